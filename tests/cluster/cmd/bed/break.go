package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"heddle.test/cluster/internal/plane"
)

func reboot(args []string) error {
	set := flag.NewFlagSet("reboot", flag.ExitOnError)
	wait := set.Bool("wait", true, "wait until the node is ready again")
	_ = set.Parse(args)
	b, err := open()
	if err != nil {
		return err
	}
	for _, machine := range set.Args() {
		began := time.Now()
		if err := b.Reboot(machine, *wait); err != nil {
			return err
		}
		say("%s rebooted in %s", machine, time.Since(began).Round(100*time.Millisecond))
	}
	return nil
}

func partition(args []string) error {
	set := flag.NewFlagSet("partition", flag.ExitOnError)
	keep := set.Bool("keep-plane", false, "let the nodes still reach the API server")
	_ = set.Parse(args)
	if set.NArg() == 0 {
		return fmt.Errorf("which nodes shall be cut off?")
	}
	b, err := open()
	if err != nil {
		return err
	}
	return b.Partition(set.Args(), *keep)
}

func heal([]string) error {
	b, err := open()
	if err != nil {
		return err
	}
	return b.Heal()
}

func pause(args []string) error { return freeze(args, true) }

func resume(args []string) error { return freeze(args, false) }

func stop(args []string) error { return hold(args, true) }

func start(args []string) error { return hold(args, false) }

// hold is about services by the names of bed logs: node2/kubelet, and apiserver for plane/apiserver.
func hold(args []string, held bool) error {
	if len(args) == 0 {
		return fmt.Errorf("which service? (bed stop plane/apiserver)")
	}
	b, err := open()
	if err != nil {
		return err
	}
	for _, what := range args {
		machine, service, ok := strings.Cut(what, "/")
		if !ok {
			machine, service = plane.Name, what
		}
		if err := b.Hold(machine, service, held); err != nil {
			return err
		}
	}
	return nil
}

func freeze(args []string, frozen bool) error {
	b, err := open()
	if err != nil {
		return err
	}
	for _, machine := range args {
		if err := b.Freeze(machine, frozen); err != nil {
			return err
		}
	}
	return nil
}

// clock only shows: Linux has no wall clock per namespace, and the host's is not a bed's to set. What a
// jump of the clock does to a node's timers and leases, pause and resume do too.
func clock([]string) error {
	b, err := open()
	if err != nil {
		return err
	}
	for _, machine := range b.Machines() {
		command, err := b.Command(machine, false, "date", "+%s.%N %FT%T%z")
		if err != nil {
			return err
		}
		out, err := command.Output()
		if err != nil {
			return fmt.Errorf("clock of %s: %w", machine, err)
		}
		seconds, text, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		stamp, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			return fmt.Errorf("clock of %s: %w", machine, err)
		}
		off := time.Duration((stamp - float64(time.Now().UnixNano())/1e9) * float64(time.Second))
		fmt.Printf("%-8s %s  %s from the host's\n", machine, text, off.Round(time.Millisecond))
	}
	return nil
}
