package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/balancer"
	"heddle.test/cluster/internal/bed"
	"heddle.test/cluster/internal/cgroup"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/place"
	"heddle.test/cluster/internal/preflight"
	"heddle.test/cluster/internal/programs"
)

// name is the bed the command is about.
func name() string {
	if name := os.Getenv("BED"); name != "" {
		return name
	}
	return "dev"
}

func open() (*bed.Bed, error) { return bed.Open(name()) }

func say(format string, args ...any) { fmt.Printf("bed "+name()+": "+format+"\n", args...) }

// bedFlags are the ones of up, which conformance shares.
type bedFlags struct {
	nodes                       *int
	ipv6, dual                  *bool
	node, pod, service, balance *string
}

func addBedFlags(set *flag.FlagSet) bedFlags {
	return bedFlags{
		nodes:   set.Int("nodes", 2, "number of nodes"),
		ipv6:    set.Bool("ipv6", false, "IPv6 alone"),
		dual:    set.Bool("dual", false, "IPv4 and IPv6"),
		node:    set.String("node-net", "", "range of the nodes, one per family, comma separated"),
		pod:     set.String("pod-net", "", "range of the pods"),
		service: set.String("service-net", "", "range of the Services"),
		balance: set.String("lb-net", "", "range of load balancer addresses"),
	}
}

func (f bedFlags) config() (bed.Config, error) {
	families := addr.IPv4
	switch {
	case *f.ipv6 && *f.dual:
		return bed.Config{}, fmt.Errorf("--ipv6 means IPv6 alone and --dual both families: choose one")
	case *f.ipv6:
		families = addr.IPv6
	case *f.dual:
		families = addr.Dual
	}
	plan := addr.Default(families)
	for kind, list := range map[string]string{"node": *f.node, "pod": *f.pod, "service": *f.service, "load-balancer": *f.balance} {
		if list == "" {
			continue
		}
		if err := plan.Override(kind, list); err != nil {
			return bed.Config{}, err
		}
	}
	return bed.Config{Nodes: *f.nodes, Plan: plan}, plan.Check(*f.nodes)
}

func up(args []string) error {
	set := flag.NewFlagSet("up", flag.ExitOnError)
	flags := addBedFlags(set)
	_ = set.Parse(args)
	return bringUp(flags)
}

func bringUp(flags bedFlags) error {
	config, err := flags.config()
	if err != nil {
		return err
	}
	b, err := open()
	if err != nil {
		return err
	}
	home, err := place.Home()
	if err != nil {
		return err
	}
	if err := preflight.Failed(preflight.Run(home)); err != nil {
		return err
	}
	built, err := ensure()
	if err != nil {
		return err
	}
	config.Bin, config.Images = built.Bin, built.Images
	return b.BringUp(config, say)
}

// ensure builds the programs that are missing; what building needs is checked only then.
func ensure(wanted ...string) (programs.Built, error) {
	builder, err := builder()
	if err != nil {
		return programs.Built{}, err
	}
	if missing, err := builder.Missing(wanted...); err != nil {
		return programs.Built{}, err
	} else if len(missing) > 0 {
		if err := preflight.Failed(preflight.Build(builder.Home)); err != nil {
			return programs.Built{}, err
		}
	}
	return builder.Ensure(wanted...)
}

func builder() (programs.Builder, error) {
	home, err := place.Home()
	if err != nil {
		return programs.Builder{}, err
	}
	source, err := sources()
	if err != nil {
		return programs.Builder{}, err
	}
	return programs.Builder{Source: filepath.Join(source, "programs"), Home: home, Say: func(line string) { fmt.Println("bed:", line) }}, nil
}

// sources is tests/cluster of the checkout: BED_SOURCE, or the folder above the working one that holds it.
func sources() (string, error) {
	if source := os.Getenv("BED_SOURCE"); source != "" {
		return source, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "tests", "cluster")} {
			if _, err := os.Stat(filepath.Join(candidate, "programs", "kube", "go.mod")); err == nil {
				return candidate, nil
			}
		}
		if dir == "/" {
			return "", fmt.Errorf("run bed inside the checkout, or set BED_SOURCE to its tests/cluster")
		}
	}
}

func down([]string) error {
	b, err := open()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.TakeDown(); err != nil {
		return err
	}
	say("down after %s", time.Since(began).Round(100*time.Millisecond))
	return nil
}

func check([]string) error {
	home, err := place.Home()
	if err != nil {
		return err
	}
	return preflight.Failed(append(preflight.Run(home), preflight.Build(home)...))
}

func leftovers([]string) error {
	b, err := open()
	if err != nil {
		return err
	}
	left, err := b.Leftovers()
	if err != nil {
		return err
	}
	for _, line := range left {
		fmt.Println(line)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d things of bed %s are on this machine", len(left), name())
	}
	return nil
}

// beds lists by state folder and by control group, so that one whose folder is lost is seen too.
func beds([]string) error {
	home, err := place.Home()
	if err != nil {
		return err
	}
	names := map[string]bool{}
	states, err := filepath.Glob(filepath.Join(home, "state-*"))
	if err != nil {
		return err
	}
	for _, state := range states {
		names[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(state), "state-"), ".lock")] = true
	}
	trees, err := cgroup.Find()
	if err != nil {
		return err
	}
	for _, group := range trees.Named(place.Cgroup("")) {
		names[strings.TrimPrefix(group, place.Cgroup(""))] = true
	}
	for name := range names {
		b, err := bed.Open(name)
		if err != nil {
			return err
		}
		left, err := b.Leftovers()
		if err != nil {
			return err
		}
		switch {
		case b.Up():
			fmt.Printf("%-20s up, %d nodes, %s\n", name, b.Nodes, b.Plan.Families)
		case len(left) > 0:
			fmt.Printf("%-20s remains (bed --bed %s down)\n", name, name)
		}
	}
	return nil
}

func build(args []string) error {
	built, err := ensure(args...)
	if err != nil {
		return err
	}
	for _, folder := range args {
		if folder == "otel" || folder == "prometheus" {
			archive, err := built.Extra(folder)
			if err != nil {
				return err
			}
			fmt.Println("bed:", archive)
		}
	}
	fmt.Println("bed: programs are in", built.Bin)
	return nil
}

func machineInit(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("bed machine SPEC")
	}
	return machine.Init(args[0])
}

func allocate(args []string) error {
	set := flag.NewFlagSet("allocate", flag.ExitOnError)
	pki := set.String("pki", "", "folder of the certificates")
	server := set.String("server", "", "URL of the API server")
	list := set.String("ranges", "", "ranges to allocate from")
	_ = set.Parse(args)
	var ranges []netip.Prefix
	for _, text := range strings.Split(*list, ",") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		ranges = append(ranges, prefix)
	}
	client, err := api.NewClient(*pki, "load-balancer", *server, 0)
	if err != nil {
		return err
	}
	return balancer.Serve(context.Background(), client, ranges)
}

// await polls often: everything else of the control plane waits for it.
func await(args []string) error {
	set := flag.NewFlagSet("await", flag.ExitOnError)
	pki := set.String("pki", "", "folder of the certificates")
	server := set.String("server", "", "URL of the API server")
	_ = set.Parse(args)
	client, err := api.NewClient(*pki, "admin", *server, 0)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = client.Get("/readyz", nil); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
