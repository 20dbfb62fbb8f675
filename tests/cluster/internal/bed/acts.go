package bed

import (
	"fmt"
	"path/filepath"
	"time"

	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/cgroup"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/plane"
	"heddle.test/cluster/internal/wire"
)

// Reboot takes the power from a machine and boots it again: processes, network, /run and /tmp are gone, its
// disk stays. With wait, it returns when the new kubelet has said Ready.
func (b *Bed) Reboot(name string, wait bool) error {
	if name == plane.Name {
		return fmt.Errorf("only nodes are rebooted: every cable of the bed ends at the plane")
	}
	if _, err := b.Pid(name); err != nil {
		return err
	}
	unlock, err := b.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	trees, err := cgroup.Find()
	if err != nil {
		return err
	}
	group := b.group() + "/" + name
	if err := trees.Kill(group); err != nil {
		return err
	}
	if err := trees.Remove(group); err != nil {
		return err
	}
	cut := time.Now()
	if err := b.boot(name); err != nil {
		return err
	}
	if !wait {
		return nil
	}
	client, err := b.API()
	if err != nil {
		return err
	}
	// Ready may be what the API server remembers from before; only a heartbeat of the new kubelet is news.
	return b.eventually(nodesWithin, name+" is ready again", func() error {
		ready, beat, err := nodeReady(client, name)
		if err != nil {
			return err
		}
		if !ready || beat.Before(cut.Truncate(time.Second)) {
			return fmt.Errorf("ready: %v, as of %s; the reboot was at %s", ready, beat.Format(time.TimeOnly), cut.UTC().Format(time.TimeOnly))
		}
		return nil
	})
}

// Partition cuts nodes off together; keepPlane leaves them the API server.
func (b *Bed) Partition(names []string, keepPlane bool) error {
	for _, name := range names {
		if b.number(name) == 0 {
			return fmt.Errorf("bed %s has no node %q", b.Name, name)
		}
	}
	pid, err := b.Pid(plane.Name)
	if err != nil {
		return err
	}
	return wire.Partition(pid, names, keepPlane)
}

// Heal ends all partitions.
func (b *Bed) Heal() error {
	pid, err := b.Pid(plane.Name)
	if err != nil {
		return err
	}
	return wire.Heal(pid)
}

// Freeze stops or resumes everything on a machine, as a hypervisor does that pauses it.
func (b *Bed) Freeze(name string, frozen bool) error {
	if _, err := b.Pid(name); err != nil {
		return err
	}
	trees, err := cgroup.Find()
	if err != nil {
		return err
	}
	return trees.Freeze(b.group()+"/"+name, frozen)
}

// Hold ends one service of a machine and keeps it down, or lets it start again: an API server that is away,
// a kubelet that does not come up. The machine sees to it within a moment.
func (b *Bed) Hold(name, service string, held bool) error {
	if _, err := b.Pid(name); err != nil {
		return err
	}
	spec, err := machine.Load(b.file(name))
	if err != nil {
		return err
	}
	return spec.Hold(service, held)
}

// FileOf is what a machine writes to a path when it boots, each time or the first time.
func (b *Bed) FileOf(name, path string) (string, error) {
	spec, err := machine.Load(b.file(name))
	if err != nil {
		return "", err
	}
	for _, files := range []map[string]string{spec.Files, spec.FirstFiles} {
		if content, known := files[path]; known {
			return content, nil
		}
	}
	return "", fmt.Errorf("%s writes no %s", name, path)
}

// Log is the file of a log: MACHINE/SERVICE, or just the service if it runs on the plane; "audit" is the API
// server's audit log.
func (b *Bed) Log(what string) (string, error) {
	candidates := []string{filepath.Join(plane.Name, "log", what+".log")}
	if dir, base := filepath.Split(what); dir != "" {
		candidates = []string{filepath.Join(dir, "log", base+".log")}
	}
	matches, err := filepath.Glob(b.file(candidates[0]))
	if err != nil || len(matches) == 0 {
		all, _ := filepath.Glob(b.file("*/log/*.log"))
		text := "bed " + b.Name + " has no log " + what + "; it has:"
		for _, file := range all {
			machine := filepath.Base(filepath.Dir(filepath.Dir(file)))
			base := filepath.Base(file)
			text += "\n  " + machine + "/" + base[:len(base)-len(".log")]
		}
		return "", fmt.Errorf("%s", text)
	}
	return matches[0], nil
}

// nodeReady reads a node's Ready condition and the time of its last heartbeat.
func nodeReady(client *api.Client, name string) (bool, time.Time, error) {
	var object struct {
		Status struct {
			Conditions []struct {
				Type, Status      string
				LastHeartbeatTime time.Time
			}
		}
	}
	if err := client.Get("/api/v1/nodes/"+name, &object); err != nil {
		return false, time.Time{}, err
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", condition.LastHeartbeatTime, nil
		}
	}
	return false, time.Time{}, nil
}
