// Package cluster is the vocabulary of end-to-end stories on a bed: what a story says, and no more. Every
// word fails the test with what it saw; none sleeps blindly. How a bed works is in internal/.
package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/bed"
	"heddle.test/cluster/internal/plane"
	"heddle.test/cluster/internal/wire"
)

// Patience is how long Eventually tries: a pod starts in seconds, a busy machine takes its time.
const Patience = 90 * time.Second

// Cluster is the bed a story plays on.
type Cluster struct {
	t   *testing.T
	bed *bed.Bed
}

// Use takes the bed named by BED (default dev). A bed that is not up fails the story; it is never skipped.
func Use(t *testing.T) *Cluster {
	t.Helper()
	name := os.Getenv("BED")
	if name == "" {
		name = "dev"
	}
	b, err := bed.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if !b.Up() {
		t.Fatalf("bed %s is not up: make bed-up", name)
	}
	return &Cluster{t: t, bed: b}
}

// Kubectl runs kubectl as the admin and returns its output.
func (c *Cluster) Kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.TryKubectl(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// TryKubectl is Kubectl for what may fail.
func (c *Cluster) TryKubectl(args ...string) (string, error) {
	return c.kubectlAs("admin", "", args...)
}

// KubectlAs uses the credentials of another holder: a node's name, or a component's.
func (c *Cluster) KubectlAs(holder string, args ...string) (string, error) {
	return c.kubectlAs(holder, "", args...)
}

func (c *Cluster) kubectlAs(holder, input string, args ...string) (string, error) {
	kubeconfig := filepath.Join(c.bed.State, "pki", holder+".kubeconfig")
	line := append([]string{filepath.Join(c.bed.Bin, "kube"), "kubectl", "--kubeconfig", kubeconfig}, args...)
	command, err := c.bed.Command(plane.Name, true, line...)
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	command.Stdin, command.Stderr = strings.NewReader(input), &stderr
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// Apply gives YAML to the cluster, server side.
func (c *Cluster) Apply(yaml string) {
	c.t.Helper()
	if _, err := c.kubectlAs("admin", yaml, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		c.t.Fatal(err)
	}
}

// Namespace makes a fresh one that goes with the story.
func (c *Cluster) Namespace(prefix string, labels ...string) string {
	c.t.Helper()
	name := fmt.Sprintf("%s-%x", prefix, time.Now().UnixNano()&0xffffff)
	c.Kubectl("create", "namespace", name)
	for _, label := range labels {
		c.Kubectl("label", "namespace", name, label)
	}
	// No pod may start without it, and a controller manager that lost its API server is late with it.
	c.Eventually("the namespace has its service account", func() error {
		_, err := c.TryKubectl("-n", name, "get", "serviceaccount", "default")
		return err
	})
	c.t.Cleanup(func() {
		if c.t.Failed() {
			out, _ := c.TryKubectl("-n", name, "get", "pods,services,endpointslices", "-o", "wide")
			warnings, _ := c.TryKubectl("-n", name, "get", "events", "--field-selector", "type!=Normal")
			c.t.Logf("what %s held:\n%s\n%s", name, out, warnings)
		}
		_, _ = c.TryKubectl("delete", "namespace", name, "--wait=false")
	})
	return name
}

// Get reads an object, or a list, into out.
func (c *Cluster) Get(out any, args ...string) {
	c.t.Helper()
	text := c.Kubectl(append(append([]string{"get"}, args...), "-o", "json")...)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		c.t.Fatalf("kubectl get %s: %v", strings.Join(args, " "), err)
	}
}

// API is a client of the API server with the admin's rights, for what must not cost a process each.
func (c *Cluster) API() *api.Client {
	c.t.Helper()
	client, err := c.bed.API()
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// Families is how many address families the bed speaks.
func (c *Cluster) Families() int { return len(c.bed.Plan.Pods) }

// Balancer is the n-th address of the load balancer range, in the primary family.
func (c *Cluster) Balancer(n int) string {
	ip := c.bed.Plan.Balancer[0].Addr()
	for range n {
		ip = ip.Next()
	}
	return ip.String()
}

// Eventually tries until it works, and fails the story with the last error.
func (c *Cluster) Eventually(what string, try func() error) {
	c.t.Helper()
	c.EventuallyWithin(Patience, what, try)
}

// EventuallyWithin is Eventually for what is known to take its time.
func (c *Cluster) EventuallyWithin(patience time.Duration, what string, try func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	c.t.Fatalf("waited %s in vain until %s: %v", patience, what, err)
}

// AuditLog is what the API server wrote down so far.
func (c *Cluster) AuditLog() string {
	c.t.Helper()
	file, err := c.bed.Log("audit")
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// Capture records the frames at one machine's end of the wire until the story ends.
func (c *Cluster) Capture(node string) *wire.Capture {
	c.t.Helper()
	pid, err := c.bed.Pid(node)
	if err != nil {
		c.t.Fatal(err)
	}
	capture, err := wire.Listen(pid, "eth0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(capture.Stop)
	return capture
}

// Partition cuts nodes off from all others until Heal or the story's end.
func (c *Cluster) Partition(nodes ...string) {
	c.t.Helper()
	if err := c.bed.Partition(nodes, false); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = c.bed.Heal() })
}

// Heal ends every partition.
func (c *Cluster) Heal() {
	c.t.Helper()
	if err := c.bed.Heal(); err != nil {
		c.t.Fatal(err)
	}
}
