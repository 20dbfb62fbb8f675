package siege

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// While an upgrade runs, nodes with the old and nodes with the new version must serve each other for as long as
// it takes. The other version is the same program under another tag: what is shown is the procedure.
func TestTwoVersionsServeSideBySide(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("versions", 2)
	image := c.Kubectl("-n", cluster.System, "get", "daemonset", "mesh-proxy", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	other := image[:strings.LastIndex(image, ":")] + ":vnext"
	for _, node := range c.Nodes() {
		c.Node(node).Tag(image, other)
	}
	t.Cleanup(func() {
		_, _ = c.TryKubectl("-n", cluster.System, "patch", "daemonset", "mesh-proxy", "--type=merge", "-p", `{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}`)
		_, _ = c.TryKubectl("-n", cluster.System, "set", "image", "daemonset/mesh-proxy", "mesh-proxy="+image)
		_, _ = c.TryKubectl("-n", cluster.System, "rollout", "status", "daemonset/mesh-proxy", "--timeout=180s")
	})
	// OnDelete leaves it to the story which node is upgraded when; a rolling update would not stop half way.
	c.Kubectl("-n", cluster.System, "patch", "daemonset", "mesh-proxy", "--type=merge", "-p", `{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
	c.Kubectl("-n", cluster.System, "set", "image", "daemonset/mesh-proxy", "mesh-proxy="+other)
	name, _ := c.Node("node1").ProxyPod()
	c.Kubectl("-n", cluster.System, "delete", "pod", name)
	c.EventuallyWithin(3*time.Minute, "node1 runs the other version", func() error {
		out, err := c.TryKubectl("-n", cluster.System, "get", "pods", "-l", "app.kubernetes.io/name=mesh-proxy", "--field-selector", "spec.nodeName=node1",
			"-o", `jsonpath={range .items[*]}{.spec.containers[0].image} {.status.containerStatuses[0].ready} {end}`)
		if err == nil && strings.TrimSpace(out) != other+" true" {
			err = fmt.Errorf("it runs %s", out)
		}
		return err
	})
	// A pod deleted first is not handed over but stopped and started: connections wait or end, and are not judged here.
	scene.Load.Settle()
	scene.Load.Runs(10 * time.Second)
	scene.Servers.Restart()
	scene.NothingFailed("two versions side by side")
}

// A connection lives in the process that carries it. So the pods are let go first, which costs no request, and the
// proxies stay until what they still carry has ended by itself.
func TestHeddleIsUninstalledUnderLivePods(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("leave", 2)
	t.Cleanup(c.Install)
	removal := c.MeshctlBegins("uninstall")
	// The byte streams are all that does not move to other connections by itself; the proxies of both their ends tell of them.
	removal.Says("open from before")
	removal.Says(fmt.Sprintf("%d of %s/%s on node1", cluster.Streams, scene.Namespace, scene.Load.Name))
	scene.Load.Runs(10 * time.Second)
	scene.Load.Renew()
	t.Log(removal.Ends())
	scene.Load.Runs(5 * time.Second)
	scene.Load.NothingFailed("uninstall with live pods")
	nothingIsLeft(c)
	scene.Servers.ScaleTo(4)
	scene.Load.NothingFailed("new pods after the uninstall")
}

func TestAnUninstallCutsWhatDoesNotEndAndNamesIt(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("cut", 2)
	t.Cleanup(c.Install)
	said := c.Meshctl("uninstall", "--drain", "40")
	t.Log(said)
	// Requests have moved by then.
	want := fmt.Sprintf("%d of %s/%s on node1", cluster.Streams, scene.Namespace, scene.Load.Name)
	if _, cut, _ := strings.Cut(said, "cut with the proxies: "); !strings.Contains(cut, want) {
		t.Errorf("it does not say that %q is cut", want)
	}
	scene.Load.Runs(5 * time.Second)
	scene.Load.NoRequestFailed("uninstall that does not wait for streams", 1)
	nothingIsLeft(c)
}

func nothingIsLeft(c *cluster.Cluster) {
	c.Eventually("nothing of Heddle is left", func() error {
		if _, err := c.TryKubectl("get", "namespace", cluster.System); err == nil {
			return errors.New("its namespace is there")
		}
		for _, node := range c.Nodes() {
			if c.Node(node).InChain() {
				return fmt.Errorf("the plugin is in the chain of %s", node)
			}
		}
		return nil
	})
}
