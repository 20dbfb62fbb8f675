package stories

import (
	"fmt"
	"net"
	"testing"

	"heddle.test/cluster/cluster"
)

func TestARebootedNodeHeals(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("reboot")
	client, server := c.Probe(ns, "client", "node1"), c.Probe(ns, "server", "node2")
	client.Reaches("http://" + net.JoinHostPort(server.IPs()[0], "8080") + "/")
	node := c.Node("node2")
	node.Run("touch", "/run/of-this-boot", "/var/lib/on-the-disk")
	node.Reboot()
	if out, err := node.Try("ls", "/run/of-this-boot"); err == nil {
		t.Errorf("/run outlived the reboot: %s", out)
	}
	node.Run("ls", "/var/lib/on-the-disk")
	// The pod starts again; its address is a new one.
	c.Eventually("the pod restarted", func() error {
		out, err := c.TryKubectl("-n", ns, "get", "pod", "server", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
		if err == nil && out == "0" {
			err = fmt.Errorf("restart count %s", out)
		}
		return err
	})
	server.WaitReady()
	client.Reaches("http://" + net.JoinHostPort(server.IPs()[0], "8080") + "/")
}

func TestAPartitionStopsTrafficAndHealingRestoresIt(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("split")
	client, server := c.Probe(ns, "client", "node1"), c.Probe(ns, "server", "node2")
	url := "http://" + net.JoinHostPort(server.IPs()[0], "8080") + "/"
	client.Reaches(url)
	c.Partition("node2")
	if got, err := client.Curl(url, "-timeout", "1s"); err == nil {
		t.Errorf("a node that is cut off answered: %+v", got)
	}
	c.Heal()
	client.Reaches(url)
}

func TestAPausedNodeIsSilentAndGoesOn(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("pause")
	client, server := c.Probe(ns, "client", "node1"), c.Probe(ns, "server", "node2")
	url := "http://" + net.JoinHostPort(server.IPs()[0], "8080") + "/"
	client.Reaches(url)
	node := c.Node("node2")
	node.Pause()
	if got, err := client.Curl(url, "-timeout", "1s"); err == nil {
		t.Errorf("a paused node answered: %+v", got)
	}
	node.Resume()
	client.Reaches(url)
}
