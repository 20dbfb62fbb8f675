// Package machine is one machine of a bed: namespaces of its own (network, mounts, processes, host name)
// under one first process that sets them up and keeps the machine's services running. Killing that process
// ends the machine and everything on it. The package knows nothing of Kubernetes.
package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Spec is everything a machine does when it boots. It is decided outside and only obeyed here.
type Spec struct {
	Name string
	// State is the machine's folder on the host: its disk, logs and records.
	State string
	// Group is its control group, below each hierarchy's root.
	Group string
	// WaitFor are network interfaces that must exist before Setup.
	WaitFor []string
	// Files are written before anything starts; the paths are the machine's own.
	Files map[string]string
	// FirstFiles lie on the disk and are written when it is new; what others made of them since stays, as on a real machine.
	FirstFiles map[string]string
	// Setup are commands run in order; the machine does not boot if one fails.
	Setup [][]string
	// Services start in order, each after the one before is ready.
	Services []Service
}

// Service is one program the machine runs.
type Service struct {
	Name string
	Args []string
	Env  []string
	// Once marks a command that ends; the next service waits for it. Any other is started again when it ends.
	Once bool
	// Ready is "tcp:ADDRESS" or "unix:PATH" that accepts connections when the service is ready; empty is at once.
	Ready string
}

// Kernel settings of a machine's own network, as paths for Files.
const (
	Forward4     = "/proc/sys/net/ipv4/ip_forward"
	Forward6     = "/proc/sys/net/ipv6/conf/all/forwarding"
	BridgeRules4 = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	BridgeRules6 = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
)

// Log is the file a service of the machine writes to.
func (s Spec) Log(service string) string { return filepath.Join(s.State, "log", service+".log") }

// Hold makes the machine end a service and keep it down, or lets it start again.
func (s Spec) Hold(service string, held bool) error {
	known := slices.ContainsFunc(s.Services, func(one Service) bool { return one.Name == service && !one.Once })
	if !known {
		return fmt.Errorf("%s runs no service %q", s.Name, service)
	}
	if !held {
		if err := os.Remove(s.heldFile(service)); err != nil && !os.IsNotExist(err) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.heldFile(service)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.heldFile(service), nil, 0o644)
}

func (s Spec) held(service string) bool {
	_, err := os.Lstat(s.heldFile(service))
	return err == nil
}

func (s Spec) heldFile(service string) string { return filepath.Join(s.State, "held", service) }

func (s Spec) file() string { return filepath.Join(s.State, "machine.json") }

// Load reads the spec a machine was last booted with.
func Load(state string) (Spec, error) {
	var spec Spec
	text, err := os.ReadFile(filepath.Join(state, "machine.json"))
	if err != nil {
		return spec, err
	}
	return spec, json.Unmarshal(text, &spec)
}

func (s Spec) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.file(), text, 0o600)
}
