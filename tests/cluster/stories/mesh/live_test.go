// Package mesh holds what must be true of Heddle on a real cluster, each story under a steady load that counts
// failed requests and with a watch for plaintext on every wire. These are the stories that every change must
// pass; longer ones are in siege. They run on the bed that BED names, on which Heddle is installed.
package mesh

import (
	"fmt"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

func TestALiveNamespaceJoinsAndLeavesTheMeshWithoutAFailedRequest(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	ns := c.Namespace("live")
	servers := c.Servers(ns, "echo", 4)
	scene := cluster.Scene{Cluster: c, Namespace: ns, Servers: servers, Watch: c.Watch(), Load: c.Load("node1", servers)}

	c.Label(ns, cluster.Enabled)
	t.Logf("captured %s after the label", scene.Captured(true))
	scene.Load.NothingFailed("label of a live namespace")

	// Connections from before go on as they are; the last of them ends when its server does.
	scene.Load.Reset()
	servers.Restart()
	scene.Watch.Forget()
	word := cluster.NewWord()
	scene.Watch.Also(word)
	scene.Load.Mark(word)
	scene.Load.Runs(2 * time.Second)
	scene.NothingFailed("restart of all servers after the label")

	scene.Load.Reset()
	c.Unlabel(ns, cluster.MeshLabel)
	t.Logf("released %s after the label was taken away", scene.Captured(false))
	scene.Load.Runs(2 * time.Second)
	scene.Load.NothingFailed("unlabel of a live namespace")
}

func TestPodsComeAndGoWithoutAFailedRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("churn", 1)
	scene.Servers.ScaleTo(20)
	c.Eventually("new connections, and the calls of one gRPC connection, are spread over all twenty", func() error {
		kinds := scene.Load.Report().Kinds
		for _, kind := range []string{"h1-new", "grpc"} {
			if answered := kinds[kind].Backends; len(answered) != 20 {
				return fmt.Errorf("%s: %d pods answer", kind, len(answered))
			}
		}
		return nil
	})
	scene.Servers.ScaleTo(1)
	scene.NothingFailed("scale 1 → 20 → 1")
}
