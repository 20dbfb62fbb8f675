// Package bed puts a whole bed together and takes it apart: it gives the machines decided in plane and node
// to the machine package, and waits for what they become. Everything it makes is below one state folder, one
// control group, and namespaces that live no longer than the processes of that group.
package bed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/cgroup"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/node"
	"heddle.test/cluster/internal/place"
	"heddle.test/cluster/internal/plane"
)

// Bed is one bed by name.
type Bed struct {
	Name  string
	State string
	Config
}

// Config is what a bed was brought up with.
type Config struct {
	Nodes int
	Plan  addr.Plan
	// Bin and Images are the programs' folders.
	Bin    string
	Images string
}

// Open finds the bed of this name; its configuration is empty if it is not up.
func Open(name string) (*Bed, error) {
	state, err := place.State(name)
	if err != nil {
		return nil, err
	}
	b := &Bed{Name: name, State: state}
	text, err := os.ReadFile(b.file("bed.json"))
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	return b, json.Unmarshal(text, &b.Config)
}

// Up says whether the control plane's machine runs.
func (b *Bed) Up() bool { return b.Nodes > 0 && b.pid(plane.Name) != 0 }

// Machines are the names of all machines, the control plane's first.
func (b *Bed) Machines() []string {
	names := []string{plane.Name}
	for i := 1; i <= b.Nodes; i++ {
		names = append(names, node.Name(i))
	}
	return names
}

// Pid is the first process of a machine that runs, or an error that says what is wrong.
func (b *Bed) Pid(name string) (int, error) {
	if b.Nodes == 0 {
		return 0, fmt.Errorf("bed %s is not up (bed up)", b.Name)
	}
	for _, known := range b.Machines() {
		if known == name {
			if pid := b.pid(name); pid != 0 {
				return pid, nil
			}
			return 0, fmt.Errorf("%s of bed %s is down; the end of its log:\n%s", name, b.Name, lastLines(filepath.Join(b.State, name, "log", "init.log"), 5))
		}
	}
	return 0, fmt.Errorf("bed %s has no machine %q: it has %s", b.Name, name, strings.Join(b.Machines(), ", "))
}

// Kubeconfig is the admin's; it works in the network of any of the bed's machines.
func (b *Bed) Kubeconfig() string { return b.file("pki/admin.kubeconfig") }

// API is a client with the admin's rights.
func (b *Bed) API() (*api.Client, error) {
	pid, err := b.Pid(plane.Name)
	if err != nil {
		return nil, err
	}
	return api.NewClient(b.file("pki"), "admin", plane.Server(b.Plan), pid)
}

// Lock keeps two commands from changing one bed at once. The returned function lets go.
func (b *Bed) Lock() (func(), error) {
	if err := os.MkdirAll(filepath.Dir(b.State), 0o755); err != nil {
		return nil, err
	}
	for {
		file, err := os.OpenFile(b.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			file.Close()
			return nil, fmt.Errorf("bed %s is being changed by another command", b.Name)
		}
		// A down that ended in between took the file away; a lock on what is gone protects nothing.
		mine, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		if there, err := os.Stat(b.lockFile()); err == nil && os.SameFile(mine, there) {
			return func() { file.Close() }, nil
		}
		file.Close()
	}
}

func (b *Bed) lockFile() string { return b.State + ".lock" }

func (b *Bed) group() string { return place.Cgroup(b.Name) }

func (b *Bed) file(name string) string { return filepath.Join(b.State, name) }

func (b *Bed) pid(name string) int { return machine.Running(b.file(name)) }

func (b *Bed) spec(name string) (machine.Spec, error) {
	trees, err := cgroup.Find()
	if err != nil {
		return machine.Spec{}, err
	}
	if name == plane.Name {
		return plane.Spec(b.State, b.group(), b.Bin, b.Plan, b.Nodes), nil
	}
	return node.Spec(b.State, b.group(), b.Bin, b.Images, b.Plan, b.Nodes, b.number(name), trees.V1()), nil
}

// number of a node from its name; 0 is the plane.
func (b *Bed) number(name string) int {
	for i := 1; i <= b.Nodes; i++ {
		if node.Name(i) == name {
			return i
		}
	}
	return 0
}

func lastLines(file string, count int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return "  " + strings.Join(lines, "\n  ")
}
