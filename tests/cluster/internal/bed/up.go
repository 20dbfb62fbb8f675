package bed

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/cgroup"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/plane"
	"heddle.test/cluster/internal/preflight"
	"heddle.test/cluster/internal/wire"
)

// Each stage takes seconds; a machine that is busy with other things gets patience, not a hang.
const (
	serverWithin = 120 * time.Second
	nodesWithin  = 120 * time.Second
)

// BringUp makes the bed. What an earlier one left behind is cleared away first; one that runs is an error.
func (b *Bed) BringUp(config Config, say func(string, ...any)) error {
	unlock, err := b.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	// One that came up only in part, because its up was killed or failed, is cleared like any remains.
	if _, err := os.Stat(b.file("complete")); err == nil && b.Up() {
		return fmt.Errorf("bed %s is already up (bed down, or another --bed NAME)", b.Name)
	}
	if err := config.Plan.Check(config.Nodes); err != nil {
		return err
	}
	if err := b.clear(); err != nil {
		return err
	}
	b.Config = config
	if err := b.lay(); err != nil {
		return err
	}
	if err := b.start(say); err != nil {
		return fmt.Errorf("%w\nbed %s is left as it is: bed logs, bed down", err, b.Name)
	}
	return nil
}

// lay writes everything the machines will read.
func (b *Bed) lay() error {
	for _, name := range append(b.Machines(), "pki") {
		if err := os.MkdirAll(b.file(name), 0o755); err != nil {
			return err
		}
	}
	// Links of its own, so that a build for another pin does not change a bed that runs.
	if err := resolveLinks(b.Bin, b.file("bin")); err != nil {
		return err
	}
	b.Bin = b.file("bin")
	text, err := json.MarshalIndent(b.Config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.file("bed.json"), text, 0o644); err != nil {
		return err
	}
	// The machines keep running this very program, whatever is built over it meanwhile.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := copyProgram(self, b.file("bed")); err != nil {
		return err
	}
	if err := plane.Trust(b.State, b.Name, b.Plan, b.Machines()[1:]); err != nil {
		return err
	}
	plugins, err := filepath.Glob(filepath.Join(preflight.PluginDir, "*"))
	if err != nil {
		return err
	}
	for _, name := range b.Machines()[1:] {
		dir := b.file(name + "/disk/opt/cni/bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, plugin := range plugins {
			if err := copyProgram(plugin, filepath.Join(dir, filepath.Base(plugin))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Bed) start(say func(string, ...any)) error {
	began := time.Now()
	for _, name := range b.Machines() {
		if err := b.boot(name); err != nil {
			return err
		}
	}
	client, err := b.API()
	if err != nil {
		return err
	}
	if err := b.eventually(serverWithin, "the API server is ready", func() error { return client.Get("/readyz", nil) }); err != nil {
		return err
	}
	say("API server ready after %s", since(began))
	if err := b.Apply(manifests(b.Plan)); err != nil {
		return err
	}
	if err := b.WaitNodes(b.Machines()[1:]...); err != nil {
		return err
	}
	say("%d nodes ready after %s", b.Nodes, since(began))
	err = b.eventually(nodesWithin, "CoreDNS answers", func() error {
		var deployment struct {
			Status struct{ AvailableReplicas int }
		}
		if err := client.Get("/apis/apps/v1/namespaces/kube-system/deployments/coredns", &deployment); err != nil {
			return err
		}
		if deployment.Status.AvailableReplicas == 0 {
			return fmt.Errorf("no replica of CoreDNS is available: %s", b.whyWaiting(client))
		}
		return nil
	})
	if err != nil {
		return err
	}
	say("cluster DNS ready after %s", since(began))
	return os.WriteFile(b.file("complete"), nil, 0o644)
}

// whyWaiting says what the pods of kube-system wait for.
func (b *Bed) whyWaiting(client *api.Client) string {
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Phase             string
				ContainerStatuses []struct {
					State struct {
						Waiting struct{ Reason, Message string }
					}
				}
			}
		}
	}
	if err := client.Get("/api/v1/namespaces/kube-system/pods", &pods); err != nil {
		return err.Error()
	}
	var reasons []string
	for _, pod := range pods.Items {
		reason := pod.Metadata.Name + " is " + pod.Status.Phase
		for _, container := range pod.Status.ContainerStatuses {
			reason += " " + container.State.Waiting.Reason + " " + container.State.Waiting.Message
		}
		reasons = append(reasons, strings.TrimSpace(reason))
	}
	return strings.Join(reasons, "; ")
}

// boot starts one machine and, for a node, plugs it in.
func (b *Bed) boot(name string) error {
	spec, err := b.spec(name)
	if err != nil {
		return err
	}
	if name != plane.Name {
		trees, err := cgroup.Find()
		if err != nil {
			return err
		}
		// The kubelet wants its root to be there.
		if err := trees.Create(spec.Group + "/pods"); err != nil {
			return err
		}
	}
	pid, err := machine.Boot(b.file("bed"), spec)
	if err != nil || name == plane.Name {
		return err
	}
	planePid, err := b.Pid(plane.Name)
	if err != nil {
		return err
	}
	// The plane makes its bridge in its first moments; a node may come before it.
	return b.eventually(30*time.Second, name+" is plugged in", func() error {
		if b.pid(name) == 0 {
			return fmt.Errorf("%s ended while booting:\n%s", name, lastLines(spec.Log("init"), 5))
		}
		return wire.Connect(planePid, pid, name, b.number(name))
	})
}

// WaitNodes waits until the named nodes are Ready.
func (b *Bed) WaitNodes(names ...string) error {
	client, err := b.API()
	if err != nil {
		return err
	}
	return b.eventually(nodesWithin, "nodes "+strings.Join(names, ", ")+" are ready", func() error {
		for _, name := range names {
			ready, _, err := nodeReady(client, name)
			if err != nil {
				return err
			}
			if !ready {
				return fmt.Errorf("node %s is not ready", name)
			}
		}
		return nil
	})
}

// Apply gives YAML to the API server, server side.
func (b *Bed) Apply(yaml string) error {
	command, err := b.Command(plane.Name, true, filepath.Join(b.Bin, "kube"), "kubectl", "--kubeconfig", b.Kubeconfig(),
		"apply", "--server-side", "--force-conflicts", "-f", "-")
	if err != nil {
		return err
	}
	command.Stdin = strings.NewReader(yaml)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w\n%s", err, out)
	}
	return nil
}

// Command is a command on a machine of the bed: in all its namespaces, or in its network alone.
func (b *Bed) Command(name string, networkOnly bool, args ...string) (*exec.Cmd, error) {
	pid, err := b.Pid(name)
	if err != nil {
		return nil, err
	}
	line := machine.Inside(pid, networkOnly, args...)
	command := exec.Command(line[0], line[1:]...)
	// It is in no control group of the bed's: when we are killed, it must not outlive us, nor the bed that another command takes down.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command, nil
}

// eventually tries until it works, a machine of the bed dies, or the time is over.
func (b *Bed) eventually(within time.Duration, what string, try func() error) error {
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil {
			return nil
		}
		for _, name := range b.Machines() {
			if b.known(name) && b.pid(name) == 0 {
				return fmt.Errorf("waiting until %s: machine %s ended:\n%s", what, name, lastLines(b.file(name+"/log/init.log"), 8))
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain until %s: %w", within, what, err)
		}
	}
}

// known says that the machine has been started at some time.
func (b *Bed) known(name string) bool {
	_, err := machine.Load(b.file(name))
	return err == nil
}

func since(began time.Time) time.Duration { return time.Since(began).Round(100 * time.Millisecond) }

func resolveLinks(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		target, err := filepath.EvalSymlinks(filepath.Join(from, entry.Name()))
		if err != nil {
			continue // a link to a build that is gone; what the bed needs was just ensured
		}
		if err := os.Symlink(target, filepath.Join(to, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
