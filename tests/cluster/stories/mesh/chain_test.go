package mesh

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

func TestThePluginTakesItsPlaceAgainWhenAnotherWritesTheChain(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("chain", 2)
	node := c.Node("node2")
	if !node.InChain() {
		t.Fatal("the plugin is not the last of the chain to begin with")
	}
	node.RewriteConflist()
	began := time.Now()
	c.Eventually("the plugin is back in the chain", func() error {
		if !node.InChain() {
			return errors.New("it is not")
		}
		return nil
	})
	t.Logf("back in the chain after %s", time.Since(began).Round(time.Millisecond))
	scene.Servers.ScaleTo(6)
	scene.Load.Runs(time.Second)
	scene.NothingFailed("the chain rewritten, then new pods")
}

// No pod may run unprotected because the part that protects it is late: it waits instead.
func TestAPodWaitsForTheProxyRatherThanRunUnprotected(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("late", 2)
	// Nobody on node2 can answer the plugin.
	const nowhere = `{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"linux","kubernetes.io/hostname":"node1"}}}}}`
	const everywhere = `{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"linux","kubernetes.io/hostname":null}}}}}`
	restore := func() {
		for _, set := range []string{"daemonset/mesh-agent", "daemonset/mesh-proxy"} {
			_, _ = c.TryKubectl("-n", cluster.System, "patch", set, "--type=merge", "-p", everywhere)
		}
	}
	t.Cleanup(restore)
	for _, set := range []string{"daemonset/mesh-agent", "daemonset/mesh-proxy"} {
		c.Kubectl("-n", cluster.System, "patch", set, "--type=merge", "-p", nowhere)
	}
	c.Eventually("neither agent nor proxy runs on node2", func() error {
		out, err := c.TryKubectl("-n", cluster.System, "get", "pods", "--field-selector", "spec.nodeName=node2", "-l", "app.kubernetes.io/name in (mesh-agent,mesh-proxy)", "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("there are %s", out)
		}
		return err
	})
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: early, namespace: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 1
  containers:
  - {name: probe, image: "bed.test/probe:v1", imagePullPolicy: IfNotPresent, args: [serve]}
`, scene.Namespace))
	phase := func() string {
		return c.Kubectl("-n", scene.Namespace, "get", "pod", "early", "-o", "jsonpath={.status.phase}/{.status.containerStatuses[0].ready}")
	}
	c.Eventually("the pod is scheduled", func() error {
		_, err := c.TryKubectl("-n", scene.Namespace, "wait", "--for=condition=PodScheduled", "pod/early", "--timeout=1s")
		return err
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if got := phase(); got == "Running/true" {
			t.Fatal("the pod runs, and nobody protects it")
		}
	}
	restore()
	c.MeshReady()
	c.Eventually("the pod runs", func() error {
		if got := phase(); got != "Running/true" {
			return errors.New(got)
		}
		return nil
	})
	// Servers on node2 had no proxy meanwhile; what they hold and what comes to them is theirs to lose, so only the wire is judged.
	scene.Watch.NoPlaintext("a pod that starts before its node's proxy")
}
