package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"heddle.test/cluster/internal/bed"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/node"
	"heddle.test/cluster/internal/plane"
)

func status([]string) error {
	b, err := open()
	if err != nil {
		return err
	}
	if b.Nodes == 0 {
		return fmt.Errorf("bed %s is not up", b.Name)
	}
	fmt.Printf("bed %s  %s  state %s\n", b.Name, b.Plan.Families, b.State)
	for i, machineName := range b.Machines() {
		addresses := b.Plan.Plane()
		if i > 0 {
			addresses = b.Plan.Node(i)
		}
		pid, state := machine.Running(filepath.Join(b.State, machineName)), "down"
		if pid != 0 {
			state = fmt.Sprintf("process %d", pid)
		}
		fmt.Printf("  %-8s %-16s %v\n", machineName, state, addresses)
	}
	if !b.Up() {
		return fmt.Errorf("the control plane is down")
	}
	return attach(kube(b, "get", "nodes,pods", "-A", "-o", "wide"))
}

func kubectl(args []string) error {
	b, err := open()
	if err != nil {
		return err
	}
	return attach(kube(b, args...))
}

// kube is kubectl in the control plane's network but with the host's files, so paths mean what they say.
func kube(b *bed.Bed, args ...string) (*exec.Cmd, error) {
	line := append([]string{filepath.Join(b.Bin, "kube"), "kubectl", "--kubeconfig", b.Kubeconfig()}, args...)
	return b.Command(plane.Name, true, line...)
}

func attach(command *exec.Cmd, err error) error {
	if err != nil {
		return err
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

func logs(args []string) error {
	set := flag.NewFlagSet("logs", flag.ExitOnError)
	follow := set.Bool("f", false, "follow")
	_ = set.Parse(args)
	b, err := open()
	if err != nil {
		return err
	}
	file, err := b.Log(set.Arg(0))
	if err != nil {
		return err
	}
	if *follow {
		return attach(exec.Command("tail", "-n", "100", "-F", file), nil)
	}
	return attach(exec.Command("cat", file), nil)
}

func execNode(args []string) error { return inside(args, false) }

func netNode(args []string) error { return inside(args, true) }

func inside(args []string, networkOnly bool) error {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 {
		return fmt.Errorf("which machine and what command? (bed exec-node node1 -- ip addr)")
	}
	b, err := open()
	if err != nil {
		return err
	}
	return attach(b.Command(args[0], networkOnly, args[1:]...))
}

func load(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("which image archive?")
	}
	b, err := open()
	if err != nil {
		return err
	}
	for _, archive := range args {
		for _, machineName := range b.Machines()[1:] {
			file, err := os.Open(archive)
			if err != nil {
				return err
			}
			command, err := b.Command(machineName, false, filepath.Join(b.Bin, "ctr"), "-a", node.Socket, "-n", "k8s.io", "images", "import", "-")
			if err != nil {
				file.Close()
				return err
			}
			command.Stdin = file
			out, err := command.CombinedOutput()
			file.Close()
			if err != nil {
				return fmt.Errorf("%s on %s: %w\n%s", archive, machineName, err, out)
			}
			for _, line := range strings.Split(string(out), "\n") {
				if fields := strings.Fields(line); len(fields) == 2 && fields[1] == "saved" {
					fmt.Printf("%s has %s\n", machineName, fields[0])
				}
			}
		}
	}
	return nil
}

// importImages runs on a node while it boots; an archive that is on the node's disk already is left alone.
func importImages(args []string) error {
	set := flag.NewFlagSet("import", flag.ExitOnError)
	ctr := set.String("ctr", "", "the ctr program")
	done := set.String("done", "", "folder that remembers what was imported")
	_ = set.Parse(args)
	if err := os.MkdirAll(*done, 0o755); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(set.Arg(0), "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		info, err := os.Stat(archive)
		if err != nil {
			return err
		}
		mark := filepath.Join(*done, fmt.Sprintf("%s-%d-%d", filepath.Base(archive), info.Size(), info.ModTime().UnixNano()))
		if _, err := os.Stat(mark); err == nil {
			continue
		}
		began := time.Now()
		if out, err := exec.Command(*ctr, "-a", node.Socket, "-n", "k8s.io", "images", "import", archive).CombinedOutput(); err != nil {
			return fmt.Errorf("import %s: %w\n%s", archive, err, out)
		}
		fmt.Printf("imported %s in %s\n", filepath.Base(archive), time.Since(began).Round(time.Millisecond))
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
