package siege

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// While an upgrade runs, nodes with the old and nodes with the new version must serve each other for as long as
// it takes. OTHER_PROXY names an image of another version that the nodes have (bed load); without it the other version is
// the same program under another tag, which shows the procedure only.
func TestTwoVersionsServeSideBySide(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("versions", 2)
	image := c.Kubectl("-n", cluster.System, "get", "daemonset", "mesh-proxy", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
	other := os.Getenv("OTHER_PROXY")
	if other == "" {
		other = image[:strings.LastIndex(image, ":")] + ":vnext"
		for _, node := range c.Nodes() {
			c.Node(node).Tag(image, other)
		}
	}
	strategy := func(spec string) {
		c.Kubectl("-n", cluster.System, "patch", "daemonset", "mesh-proxy", "--type=merge", "-p", `{"spec":{"updateStrategy":`+spec+`}}`)
	}
	use := func(image string) {
		c.Kubectl("-n", cluster.System, "set", "image", "daemonset/mesh-proxy", "mesh-proxy="+image)
	}
	t.Cleanup(func() {
		use(image)
		strategy(`{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`)
		c.MeshReady()
	})
	// OnDelete leaves it to the story which node is upgraded when; a rolling update would not stop half way.
	strategy(`{"type":"OnDelete","rollingUpdate":null}`)
	use(other)
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
	// The rest of the nodes follow by a rolling update, as an upgrade does.
	scene.Load.Reset()
	strategy(`{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`)
	c.MeshReady()
	scene.Load.Runs(3 * time.Second)
	scene.Load.NoRequestFailed("the other nodes upgraded", len(c.Nodes())-1)
	scene.Watch.NoPlaintext("the other nodes upgraded")
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
