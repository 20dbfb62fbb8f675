package stories

import (
	"fmt"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// What later stories count with must itself be believed: it counts nothing at rest, and it misses nothing.
func TestALoadAtRestFailsNothingAndAKilledServerIsSeen(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("load")
	servers := c.Servers(ns, "echo", 2)
	load := c.Load("node1", servers)
	watch := c.Watch(load.Word)
	load.Runs(5 * time.Second)
	report := load.NothingFailed("rest")
	for name, kind := range report.Kinds {
		if kind.OK < 4*cluster.Rate {
			t.Errorf("%s asked only %d times in five seconds", name, kind.OK)
		}
	}
	if answered := report.Kinds["h1-new"].Backends; len(answered) != 2 {
		t.Errorf("new connections were answered by %v, want both pods", answered)
	}
	// With no mesh everybody on the way can read along: the watch must see that.
	watch.Sees("the load's word")
	// Requests may find the other server in time; a byte stream cannot, so the one that dies is one that holds a stream.
	held := ""
	for pod := range load.Report().Kinds["tcp"].Backends {
		held = pod
	}
	load.Reset()
	c.Kubectl("-n", ns, "delete", "pod", "--grace-period=0", "--force", held)
	c.Eventually("the killed server is seen", func() error {
		if load.Report().Failed() == 0 {
			return fmt.Errorf("no request failed")
		}
		return nil
	})
	servers.WaitReady()
	load.Settle()
	t.Log(load.Report())
}

func TestAServerThatEndsInGoodOrderFailsNothing(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("order")
	servers := c.Servers(ns, "echo", 3)
	load := c.Load("node1", servers)
	servers.Restart()
	report := load.NothingFailed("a restart of all servers in turn")
	if report.Kinds["tcp"].Goodbyes == 0 {
		t.Error("no stream was told goodbye")
	}
}

func TestTheAPIServerStaysDownUntilItIsStartedAgain(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("headless")
	servers := c.Servers(ns, "echo", 2)
	load := c.Load("node1", servers)
	c.StopAPIServer()
	load.Runs(5 * time.Second)
	if _, err := c.TryKubectl("get", "--raw", "/readyz"); err == nil {
		t.Error("the API server answers five seconds after its end")
	}
	c.StartAPIServer()
	load.NothingFailed("five seconds without an API server")
}
