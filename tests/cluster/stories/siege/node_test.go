// Package siege holds the long stories of Heddle under load: lost nodes, changing trust, crowds, upgrades. They
// run on the bed that BED names, on which Heddle is installed; what every change must pass is in mesh.
package siege

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// A node that loses its power takes its servers with it, and nobody can know that before the cluster says so: the
// node controller waits 16 s (internal/plane) before it calls a node lost. What is sent there meanwhile may fail.
// What must hold: it ends, nothing runs unprotected when the node comes back, and its pods are meshed again.
func TestARebootedNodesPodsAreMeshedAgain(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("reboot", 4)
	scene.Watch.Leave("node2")
	c.Node("node2").Reboot()
	scene.Watch.Again("node2", scene.Load.Word)
	c.MeshReady()
	scene.Servers.WaitReady()
	scene.Watch.NoPlaintext("reboot of a node")
	t.Logf("during the reboot of a server's node:\n%s", scene.Load.Report())
	scene.Load.Settle()
	// For a moment after the boot the cluster still believes what the node said before it.
	c.EventuallyWithin(2*time.Minute, "all four servers answer", func() error {
		if answered := scene.Load.Report().Kinds["h1-new"].Backends; len(answered) != 4 {
			return fmt.Errorf("only %v answer", answered)
		}
		return nil
	})
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("after the reboot of a node")
}

// Requests to servers beyond the cut cannot be answered. Those within it must go on, and all must after it.
func TestAPartitionHeals(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("split", 4)
	c.Partition("node2")
	time.Sleep(5 * time.Second)
	c.Heal()
	t.Logf("during a partition of five seconds:\n%s", scene.Load.Report())
	scene.Load.Settle()
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("after a partition of five seconds")

	// Longer than the cluster's own patience: the node is called lost, and comes back.
	c.Partition("node2")
	c.EventuallyWithin(2*time.Minute, "node2 is called lost", func() error {
		out, err := c.TryKubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out == "True" {
			err = errors.New("it is ready")
		}
		return err
	})
	scene.Load.Settle()
	scene.Load.Runs(5 * time.Second)
	scene.Load.NothingFailed("a node that is lost for good, as soon as the cluster knows")
	c.Heal()
	c.EventuallyWithin(2*time.Minute, "node2 is ready again", func() error {
		_, err := c.TryKubectl("wait", "--for=condition=Ready", "node/node2", "--timeout=1s")
		return err
	})
	scene.Servers.WaitReady()
	scene.Load.Settle()
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("after a partition of a minute")
}

func TestMinutesWithoutAController(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("minutes", 2)
	t.Cleanup(func() {
		_, _ = c.TryKubectl("-n", cluster.System, "scale", "deployment/mesh-controller", "--replicas=2")
	})
	c.ScaleController(0)
	scene.Load.Runs(3 * time.Minute)
	c.ScaleController(2)
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("three minutes without a controller")
}

// crowd is nearly as many pods as the node takes (kubelets are told 230, its addresses are 254).
const crowd = 200

func TestACrowdOfPodsOnANode(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("crowd", 2)
	c.Kubectl("-n", scene.Namespace, "patch", "deployment", "echo", "--type=merge", "-p",
		`{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node2"},"terminationGracePeriodSeconds":10,"topologySpreadConstraints":null}}}}`)
	c.RolledOut(scene.Namespace, "deployment/echo")
	scene.Load.Settle()
	began := time.Now()
	c.Kubectl("-n", scene.Namespace, "scale", "deployment", "echo", fmt.Sprintf("--replicas=%d", crowd))
	c.EventuallyWithin(15*time.Minute, "the crowd is ready", func() error {
		out, err := c.TryKubectl("-n", scene.Namespace, "get", "deployment", "echo", "-o", "jsonpath={.status.readyReplicas}")
		if err == nil && out != fmt.Sprint(crowd) {
			err = fmt.Errorf("%s are", out)
		}
		return err
	})
	t.Logf("%d pods were ready after %s", crowd, time.Since(began).Round(time.Second))
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("200 pods start on one node")
	if answered := len(scene.Load.Report().Kinds["h1-new"].Backends); answered < crowd/2 {
		t.Errorf("only %d of them answered", answered)
	}
}
