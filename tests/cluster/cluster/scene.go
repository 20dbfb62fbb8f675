package cluster

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Scene is how most stories of the mesh begin: a meshed namespace, servers on every node, a load from a pod
// on node1 that has settled, and a watch that has looked on all wires since before the first pod.
type Scene struct {
	*Cluster
	Namespace string
	Servers   Servers
	Load      *Load
	Watch     *Watch
}

// Scene sets one up; labels of the namespace beyond the mesh's are optional.
func (c *Cluster) Scene(prefix string, replicas int) Scene {
	c.t.Helper()
	c.MeshReady()
	ns := c.Namespace(prefix, Enabled)
	word := NewWord()
	watch := c.Watch(word)
	servers := c.Servers(ns, "echo", replicas)
	return Scene{Cluster: c, Namespace: ns, Servers: servers, Watch: watch, Load: c.load(ns, "node1", servers, word)}
}

// NothingFailed ends a scene: no request failed, and no word was seen in the clear.
func (s Scene) NothingFailed(during string) {
	s.t.Helper()
	s.AtMostFailed(during, 0)
}

// AtMostFailed is NothingFailed for what cannot be without loss.
func (s Scene) AtMostFailed(during string, limit int) {
	s.t.Helper()
	s.Load.AtMostFailed(during, limit)
	s.Watch.NoPlaintext(during)
}

// Captured waits until new connections of the load are carried by tunnels alone, or (with false) by none, and
// says how long that took. It uses a new word for each look, so that what was said before does not count; the
// kinds whose connections are older than the label go on as they were, and are left out.
func (s Scene) Captured(want bool) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.Eventually(fmt.Sprintf("new connections are meshed: %v", want), func() error {
		word := NewWord()
		s.Load.Mark(word)
		s.Watch.Also(word + ".h1-new")
		before := s.Watch.Count()
		time.Sleep(300 * time.Millisecond)
		seen := s.Watch.Count() > before
		if seen == want {
			return fmt.Errorf("new connections in the clear: %v", seen)
		}
		return nil
	})
	return time.Since(began)
}

// ProxyPod is the name and address of the node's proxy; there is just one outside of a rolling update.
func (n Node) ProxyPod() (name, address string) {
	n.c.t.Helper()
	out := n.c.Kubectl("-n", System, "get", "pods", "-l", selector("mesh-proxy"), "--field-selector", "spec.nodeName="+n.Name+",status.phase=Running",
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}`)
	fields := strings.Fields(out)
	if len(fields) != 2 {
		n.c.t.Fatalf("proxies on %s: %q, want one", n.Name, out)
	}
	return fields[0], fields[1]
}

// ProxyLog is what the node's proxy wrote in the last while.
func (n Node) ProxyLog(since time.Duration) string {
	n.c.t.Helper()
	name, _ := n.ProxyPod()
	return n.c.Kubectl("-n", System, "logs", name, fmt.Sprintf("--since=%ds", int(since.Seconds())+1))
}

// ProxyMetrics is what the node's proxy counts.
func (n Node) ProxyMetrics() string {
	n.c.t.Helper()
	_, address := n.ProxyPod()
	got, err := n.Curl("http://" + net.JoinHostPort(address, "15021") + "/metrics")
	if err != nil || got.Status != 200 {
		n.c.t.Fatalf("metrics of the proxy on %s: status %d, %v", n.Name, got.Status, err)
	}
	return got.Body
}

// Refused says that the node's proxy has refused something to a workload of the namespace with this reason:
// a line in its log and a count in its metrics.
func (n Node) Refused(namespace, reason string, since time.Duration) {
	n.c.t.Helper()
	n.c.Eventually("the proxy on "+n.Name+" logs and counts "+reason, func() error {
		logged, counted := false, false
		for _, line := range strings.Split(n.ProxyLog(since), "\n") {
			logged = logged || (strings.Contains(line, `"fault":"`+reason+`"`) && strings.Contains(line, `"`+namespace+`/`))
		}
		for _, line := range strings.Split(n.ProxyMetrics(), "\n") {
			counted = counted || (strings.Contains(line, `fault="`+reason+`"`) && strings.Contains(line, `namespace="`+namespace+`"`))
		}
		switch {
		case !logged && !counted:
			return errors.New("neither is there")
		case !logged:
			return errors.New("it is counted but not logged")
		case !counted:
			return errors.New("it is logged but not counted")
		}
		return nil
	})
}
