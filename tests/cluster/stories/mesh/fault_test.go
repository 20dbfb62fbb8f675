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

// What a process holds dies with it: four byte streams, and the requests of that moment (at 60 a second of each
// kind and a few milliseconds each, seldom more than one). Nothing that comes afterwards may fail.
const diesWithAProxy = 4 + 4

func TestAKilledProxyCostsNoMoreThanWhatItHeld(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("kill", 2)
	c.Node("node1").KillProxy()
	scene.Load.Runs(3 * time.Second)
	scene.AtMostFailed("SIGKILL of the proxy on the client's node", diesWithAProxy)
	scene.Load.Reset()
	c.Node("node2").KillProxy()
	scene.Load.Runs(3 * time.Second)
	scene.AtMostFailed("SIGKILL of the proxy on a server's node", diesWithAProxy)
}

func TestARollingUpdateOfTheProxiesFailsNoRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("roll", 2)
	c.Rollout(cluster.System, "daemonset/mesh-proxy")
	scene.Load.Runs(3 * time.Second)
	scene.NothingFailed("rolling update of the proxies")
}

func TestARollingUpdateOfTheAgentsFailsNoRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("agents", 2)
	c.Rollout(cluster.System, "daemonset/mesh-agent")
	scene.Load.Runs(2 * time.Second)
	scene.NothingFailed("rolling update of the agents")
}
