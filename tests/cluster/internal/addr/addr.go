// Package addr decides every address of a bed: nodes, pods, Services and load balancers, in one or two
// families. It is pure: it opens no socket and reads no machine state.
package addr

import (
	"fmt"
	"net/netip"
	"strings"
)

// Families says which address families a bed speaks; the first is the primary one of Services and nodes.
type Families string

// The three shapes of a bed.
const (
	IPv4 Families = "ipv4"
	IPv6 Families = "ipv6"
	Dual Families = "dual"
)

// Plan is the addressing of one bed. Each list holds one range per family, the primary family first.
type Plan struct {
	Families Families
	Nodes    []netip.Prefix
	Pods     []netip.Prefix
	Services []netip.Prefix
	Balancer []netip.Prefix
}

// The ranges a bed takes unless told otherwise. A bed's network is joined to no other, so every bed may have the same.
var defaults = map[Families]Plan{
	IPv4: {
		Nodes:    ranges("192.168.77.0/24"),
		Pods:     ranges("10.244.0.0/16"),
		Services: ranges("10.96.0.0/16"),
		Balancer: ranges("192.168.78.0/24"),
	},
	IPv6: {
		Nodes:    ranges("fd77:0:0:1::/64"),
		Pods:     ranges("fd77:0:1::/48"),
		Services: ranges("fd77:0:2::/112"),
		Balancer: ranges("fd77:0:3::/112"),
	},
}

// Default is the plan for a bed of these families.
func Default(families Families) Plan {
	if families != Dual {
		plan := defaults[families]
		plan.Families = families
		return plan
	}
	four, six := defaults[IPv4], defaults[IPv6]
	return Plan{
		Families: Dual,
		Nodes:    append(append([]netip.Prefix{}, four.Nodes...), six.Nodes...),
		Pods:     append(append([]netip.Prefix{}, four.Pods...), six.Pods...),
		Services: append(append([]netip.Prefix{}, four.Services...), six.Services...),
		Balancer: append(append([]netip.Prefix{}, four.Balancer...), six.Balancer...),
	}
}

// Override replaces one kind of range by a comma-separated list, one entry per family of the bed.
func (p *Plan) Override(kind, list string) error {
	var parsed []netip.Prefix
	for _, text := range strings.Split(list, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("%s range %q: %w", kind, text, err)
		}
		parsed = append(parsed, prefix.Masked())
	}
	target := map[string]*[]netip.Prefix{"node": &p.Nodes, "pod": &p.Pods, "service": &p.Services, "load-balancer": &p.Balancer}[kind]
	if len(parsed) != len(*target) {
		return fmt.Errorf("%s range %q: a bed of %s needs %d", kind, list, p.Families, len(*target))
	}
	for i, prefix := range parsed {
		if prefix.Addr().Is4() != (*target)[i].Addr().Is4() {
			return fmt.Errorf("%s range %s is not of the family of %s", kind, prefix, (*target)[i])
		}
	}
	*target = parsed
	return nil
}

// Check reports the first two ranges that claim the same addresses, or a range too small for its use.
func (p Plan) Check(nodes int) error {
	type claim struct {
		name   string
		prefix netip.Prefix
	}
	var claims []claim
	for name, list := range map[string][]netip.Prefix{"node": p.Nodes, "pod": p.Pods, "service": p.Services, "load-balancer": p.Balancer} {
		for _, prefix := range list {
			claims = append(claims, claim{name, prefix})
		}
	}
	for i, a := range claims {
		for _, b := range claims[i+1:] {
			if a.prefix.Overlaps(b.prefix) {
				first, second := a, b
				if first.name > second.name {
					first, second = second, first
				}
				return fmt.Errorf("address taken: the %s range %s overlaps the %s range %s", first.name, first.prefix, second.name, second.prefix)
			}
		}
	}
	if nodes < 1 || nodes > MaxNodes {
		return fmt.Errorf("a bed has 1 to %d nodes, not %d", MaxNodes, nodes)
	}
	for _, prefix := range p.Pods {
		if prefix.Bits() > podBits(prefix)-8 {
			return fmt.Errorf("the pod range %s is too small: a node takes a /%d of it", prefix, podBits(prefix))
		}
	}
	return nil
}

// MaxNodes bounds a bed: more do not fit on one machine, and node addresses are .11 to .42.
const MaxNodes = 32

// Plane is the control plane's address in each family; it is also every node's default gateway.
func (p Plan) Plane() []netip.Addr { return each(p.Nodes, 1) }

// Node is the address of node i (from 1) in each family.
func (p Plan) Node(i int) []netip.Addr { return each(p.Nodes, 10+i) }

// API is the address of the `kubernetes` Service in each family.
func (p Plan) API() []netip.Addr { return each(p.Services, 1) }

// DNS is the address of the cluster's DNS Service in each family.
func (p Plan) DNS() []netip.Addr { return each(p.Services, 10) }

// PodRange is the part of each pod range that belongs to node i (from 1).
func (p Plan) PodRange(i int) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(p.Pods))
	for _, all := range p.Pods {
		bits := podBits(all)
		bytes := all.Addr().AsSlice()
		// The subnet number sits right above the host bits, on a byte border for both sizes used.
		at := bits/8 - 1
		bytes[at] += byte(i)
		base, _ := netip.AddrFromSlice(bytes)
		out = append(out, netip.PrefixFrom(base, bits))
	}
	return out
}

// Join writes addresses or prefixes the way Kubernetes flags want them.
func Join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = item.String()
	}
	return strings.Join(texts, ",")
}

func podBits(all netip.Prefix) int {
	if all.Addr().Is4() {
		return 24
	}
	return 64
}

func each(list []netip.Prefix, offset int) []netip.Addr {
	out := make([]netip.Addr, 0, len(list))
	for _, prefix := range list {
		out = append(out, Nth(prefix, offset))
	}
	return out
}

// Nth is the address `offset` places after a range's first.
func Nth(prefix netip.Prefix, offset int) netip.Addr {
	bytes := prefix.Masked().Addr().AsSlice()
	carry := offset
	for i := len(bytes) - 1; i >= 0 && carry > 0; i-- {
		carry += int(bytes[i])
		bytes[i] = byte(carry)
		carry >>= 8
	}
	out, _ := netip.AddrFromSlice(bytes)
	return out
}

func ranges(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}
