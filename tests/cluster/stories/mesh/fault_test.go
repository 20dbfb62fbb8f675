package mesh

import (
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// outage is how long a part is away here; siege has minutes of it.
const outage = 15 * time.Second

func TestTheControllerIsNotMissedByWhatRuns(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("headless", 2)
	c.RestartController()
	scene.NothingFailed("both replicas of the controller replaced")
	scene.Load.Reset()
	t.Cleanup(func() {
		_, _ = c.TryKubectl("-n", cluster.System, "scale", "deployment/mesh-controller", "--replicas=2")
	})
	c.ScaleController(0)
	scene.Load.Runs(outage)
	c.ScaleController(2)
	scene.Load.Runs(2 * time.Second)
	scene.NothingFailed("no controller for a while")
	// It must also be back in charge: a new pod is a new backend.
	scene.Servers.ScaleTo(3)
	scene.Load.Runs(time.Second)
	scene.NothingFailed("the controller is back and servers are scaled")
}

func TestTheAPIServerIsNotMissedByWhatRuns(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("serverless", 2)
	c.StopAPIServer()
	scene.Load.Runs(outage)
	c.StartAPIServer()
	scene.Load.Runs(2 * time.Second)
	scene.NothingFailed("no API server for a while")
	scene.Servers.ScaleTo(3)
	scene.Load.Runs(time.Second)
	scene.NothingFailed("the API server is back and servers are scaled")
}

// When no kubelet is heard of, for whatever reason, the control plane calls all pods not ready, though nothing is wrong with them.
func TestPodsThatOnlyTheControlPlaneCallsNotReadyGoOnServing(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("silent", 2)
	for _, node := range c.Nodes() {
		c.Node(node).SilenceKubelet()
	}
	for _, node := range c.Nodes() {
		c.Node(node).Reads("Unknown")
	}
	scene.Servers.NoneIsReady()
	scene.Load.Runs(3 * time.Second)
	// Who asks the driver for its report needs its kubelet.
	for _, node := range c.Nodes() {
		c.Node(node).HearKubelet()
	}
	scene.Load.Runs(3 * time.Second)
	scene.NothingFailed("no kubelet was heard of, and they came back one after the other")
}

func TestAKilledProxyCostsNoMoreThanWhatItHeld(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("kill", 2)
	for node, whose := range map[string]string{"node1": "the client's node", "node2": "a server's node"} {
		scene.Load.Reset()
		moment := c.Node(node).KillProxy()
		scene.Load.Runs(3 * time.Second)
		scene.Load.OnlyWhatWasHeldFailed("SIGKILL of the proxy on "+whose, moment)
		scene.Watch.NoPlaintext("SIGKILL of the proxy on " + whose)
	}
}

func TestARollingUpdateOfTheProxiesFailsNoRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("roll", 2)
	c.Rollout(cluster.System, "daemonset/mesh-proxy")
	scene.Load.Runs(3 * time.Second)
	scene.Load.NoRequestFailed("rolling update of the proxies", len(c.Nodes()))
	scene.Watch.NoPlaintext("rolling update of the proxies")
}

func TestARollingUpdateOfTheAgentsFailsNoRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("agents", 2)
	c.Rollout(cluster.System, "daemonset/mesh-agent")
	scene.Load.Runs(2 * time.Second)
	scene.NothingFailed("rolling update of the agents")
}
