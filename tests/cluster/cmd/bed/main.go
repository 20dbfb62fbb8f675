// Command bed brings up a real Kubernetes of several nodes on one machine, lets you look inside and break it,
// and runs the Gateway API conformance suite on it. This file only picks the subcommand.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// subcommand is one verb: its arguments, its sentence, its deed.
type subcommand struct {
	usage string
	does  string
	run   func(args []string) error
}

func verbs() map[string]subcommand {
	return map[string]subcommand{
		"up":          {"[--nodes N] [--ipv6|--dual] [--pod-net …]", "bring a bed up", up},
		"down":        {"", "end a bed and remove everything it made", down},
		"status":      {"", "show machines, services and nodes", status},
		"kubectl":     {"ARGS…", "kubectl as the cluster's admin", kubectl},
		"load":        {"IMAGE.tar…", "load image archives into every node", load},
		"logs":        {"[-f] [MACHINE/]SERVICE", "print the log of a program of the bed (audit: the API server's audit log)", logs},
		"exec-node":   {"MACHINE -- CMD…", "run a command on a machine", execNode},
		"net":         {"MACHINE -- CMD…", "run a command in a machine's network, with the host's files", netNode},
		"reboot":      {"NODE", "take a node's power and boot it again", reboot},
		"partition":   {"[--keep-plane] NODE…", "cut these nodes off from all other machines", partition},
		"heal":        {"", "end all partitions", heal},
		"pause":       {"NODE", "stop everything on a node, as a paused virtual machine", pause},
		"resume":      {"NODE", "let a paused node go on", resume},
		"stop":        {"[MACHINE/]SERVICE…", "end a machine's service and keep it down: apiserver, node2/kubelet", stop},
		"start":       {"[MACHINE/]SERVICE…", "let a stopped service run again", start},
		"clock":       {"", "show each machine's clock and its distance from the host's", clock},
		"build":       {"[TOOL…]", "build what a bed runs, or the named tools", build},
		"image":       {"--out FILE --name REF [--user UID:GID] [--with PROGRAM]… PROGRAM", "pack a program as a container image", packImage},
		"install":     {"[--nodes N] [--ipv6|--dual] …", "install Heddle from deploy/ and target/images, and wait until it is ready", installHeddle},
		"conformance": {"[--profiles …] [--run TEST] [--extra] [--bare|--no-install]", "run the official Gateway API suite and print its table", conformance},
		"check":       {"", "say what this machine lacks for a bed", check},
		"beds":        {"", "list every bed on this machine", beds},
		"leftovers":   {"", "list anything of a bed that is still on the host", leftovers},
		"machine":     {"SPEC", "(internal) be a machine's first process", machineInit},
		"import":      {"…", "(internal) import images on a node", importImages},
		"await":       {"…", "(internal) wait until the API server is ready", await},
		"allocate":    {"…", "(internal) allocate load balancer addresses", allocate},
	}
}

func main() {
	args := os.Args[1:]
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		usage()
		return
	}
	if strings.HasPrefix(args[0], "--bed=") {
		os.Setenv("BED", strings.TrimPrefix(args[0], "--bed="))
		args = args[1:]
	} else if args[0] == "--bed" && len(args) > 2 {
		os.Setenv("BED", args[1])
		args = args[2:]
	}
	verb, known := verbs()[args[0]]
	if !known {
		fmt.Fprintf(os.Stderr, "bed: no such command %q\n", args[0])
		usage()
		os.Exit(2)
	}
	err := verb.run(args[1:])
	// A command run for the user has already said why it failed; its exit code is the answer.
	exit, direct := err.(*exec.ExitError)
	switch {
	case err == nil:
	case direct:
		os.Exit(exit.ExitCode())
	default:
		for _, line := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(os.Stderr, "bed:", line)
		}
		os.Exit(1)
	}
}

func usage() {
	fmt.Println("usage: bed [--bed NAME] COMMAND\n\nSeveral beds live side by side: --bed NAME or BED=NAME picks one (default: dev).")
	fmt.Println()
	var names []string
	all := verbs()
	for name, verb := range all {
		if !strings.HasPrefix(verb.does, "(internal)") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("  bed %-60s %s\n", strings.TrimSpace(name+" "+all[name].usage), all[name].does)
	}
}
