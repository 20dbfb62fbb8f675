// Package balancer gives Services of type LoadBalancer an address from the bed's ranges. Choosing is pure
// (this file); watching and writing is serve.go. kube-proxy makes the address work on every node.
package balancer

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"heddle.test/cluster/internal/addr"
)

// Service is what choosing needs to know of one.
type Service struct {
	Key string
	// Wants says that the Service is ours to serve at all.
	Wants bool
	// Families are the ones it asks for, "IPv4" or "IPv6", in its order.
	Families []string
	// Requested are the addresses it asks for, if any.
	Requested []string
	// Has are the addresses its status shows now.
	Has []string
}

// Change is a status to write: the new addresses, or why there are none.
type Change struct {
	Key       string
	Addresses []string
	Problem   string
}

// Choose decides every change that is due. Addresses already given stay; requested ones are honoured when
// they are in range and free; of two that ask for the same, the one that has it keeps it, else the first by name.
func Choose(ranges []netip.Prefix, services []Service) []Change {
	ordered := slices.Clone(services)
	sort.Slice(ordered, func(i, j int) bool { return ordered[i].Key < ordered[j].Key })
	taken := map[netip.Addr]string{}
	// First who keeps what it has, so that nobody is moved for a newcomer.
	kept := map[string][]string{}
	for _, service := range ordered {
		if !service.Wants {
			continue
		}
		for _, text := range service.Has {
			ip, err := netip.ParseAddr(text)
			if err != nil || !inside(ranges, ip) || taken[ip] != "" || !wanted(service, ip) {
				continue
			}
			taken[ip] = service.Key
			kept[service.Key] = append(kept[service.Key], text)
		}
	}
	var changes []Change
	for _, service := range ordered {
		if !service.Wants {
			if len(service.Has) > 0 {
				changes = append(changes, Change{Key: service.Key})
			}
			continue
		}
		given, problem := serve(ranges, taken, service, kept[service.Key])
		if problem != "" || !slices.Equal(given, service.Has) {
			changes = append(changes, Change{Key: service.Key, Addresses: given, Problem: problem})
		}
	}
	return changes
}

func serve(ranges []netip.Prefix, taken map[netip.Addr]string, service Service, kept []string) ([]string, string) {
	var given []string
	for _, family := range service.Families {
		if i := slices.IndexFunc(kept, func(text string) bool { return isFamily(netip.MustParseAddr(text), family) }); i >= 0 {
			given = append(given, kept[i])
			continue
		}
		ip, problem := pick(ranges, taken, service, family)
		if problem != "" {
			return given, problem
		}
		taken[ip] = service.Key
		given = append(given, ip.String())
	}
	return given, ""
}

func pick(ranges []netip.Prefix, taken map[netip.Addr]string, service Service, family string) (netip.Addr, string) {
	for _, text := range service.Requested {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return ip, fmt.Sprintf("requested address %q is not an IP address", text)
		}
		if !isFamily(ip, family) {
			continue
		}
		if !inside(ranges, ip) {
			return ip, fmt.Sprintf("requested address %s is not in the bed's range %s", ip, addr.Join(ranges))
		}
		if holder := taken[ip]; holder != "" {
			return ip, fmt.Sprintf("requested address %s is taken by %s", ip, holder)
		}
		return ip, ""
	}
	for _, all := range ranges {
		first := addr.Nth(all, 1)
		if !isFamily(first, family) {
			continue
		}
		for ip := first; all.Contains(ip.Next()); ip = ip.Next() {
			if taken[ip] == "" {
				return ip, ""
			}
		}
		return first, fmt.Sprintf("no address is free in %s", all)
	}
	return netip.Addr{}, fmt.Sprintf("the bed has no %s range", family)
}

// wanted says whether an address a Service has is still one it asks for.
func wanted(service Service, ip netip.Addr) bool {
	if !slices.ContainsFunc(service.Families, func(family string) bool { return isFamily(ip, family) }) {
		return false
	}
	for _, text := range service.Requested {
		if other, err := netip.ParseAddr(text); err == nil && other.Is4() == ip.Is4() && other != ip {
			return false
		}
	}
	return true
}

func isFamily(ip netip.Addr, family string) bool { return ip.Is4() == (family == "IPv4") }

func inside(ranges []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(all netip.Prefix) bool { return all.Contains(ip) })
}
