package siege

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
	"heddle.test/cluster/internal/programs"
)

// parameters sets the mesh's own settings for a story and takes them away at its end.
func parameters(t *testing.T, c *cluster.Cluster, spec string) {
	t.Helper()
	c.Apply(`
apiVersion: heddle.dev/v1alpha1
kind: MeshParameters
metadata: {name: heddle}
spec: ` + spec + `
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: heddle}
spec:
  controllerName: heddle.dev/controller
  parametersRef: {group: heddle.dev, kind: MeshParameters, name: heddle}
`)
	t.Cleanup(func() {
		_, _ = c.TryKubectl("patch", "xmesh", "heddle", "--type=json", "-p", `[{"op":"remove","path":"/spec/parametersRef"}]`)
		_, _ = c.TryKubectl("delete", "meshparameters", "heddle", "--ignore-not-found")
	})
	c.Eventually("all proxies have taken the settings", func() error {
		out, err := c.TryKubectl("get", "xmesh", "heddle", "-o", `jsonpath={.status.conditions[?(@.type=="Programmed")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("Programmed is %q", out)
		}
		return err
	})
}

func TestIdentitiesThatLiveForSecondsAreRenewedWithoutAFailedRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("brief", 2)
	parameters(t, c, "{svidLifetime: 10s}")
	// Several lifetimes, with the first of the new ones among them.
	scene.Load.Runs(45 * time.Second)
	scene.NothingFailed("SVIDs that live for ten seconds")
}

func TestTheRootIsRotatedWithoutAFailedRequest(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("root", 2)
	before := roots(c)
	// Returns when every proxy trusts the new root and the new root signs.
	t.Log(c.Meshctl("ca", "rotate"))
	if now := roots(c); now == before || strings.Count(now, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("after the rotation the mesh trusts\n%s", now)
	}
	t.Log(c.Meshctl("ca", "status"))
	scene.Load.Runs(5 * time.Second)
	scene.NothingFailed("rotation of the root")
	scene.Load.Reset()
	// Their certificates are of the new root, those of the load's pod still of the old one, which is trusted until the last of them has ended.
	scene.Servers.Restart()
	scene.NothingFailed("new pods under the new root")
}

func roots(c *cluster.Cluster) string {
	return c.Kubectl("-n", cluster.System, "get", "configmap", "heddle-ca-roots", "-o", `jsonpath={.data.ca\.crt}`)
}

// An address belongs to one identity today and to another tomorrow. Whoever believed the old one must be refused,
// not served by a stranger.
func TestAnAddressThatGoesToAnotherIdentityIsNotTrustedForTheOldOne(t *testing.T) {
	c := cluster.Use(t)
	scene := c.Scene("reuse", 2)
	client := c.Probe(scene.Namespace, "client", "node1")
	pod := func(name, account string) cluster.Pod {
		c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[2]s, namespace: %[3]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[3]s}
spec:
  serviceAccountName: %[2]s
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 0
  containers:
  - name: probe
    image: %[4]s
    imagePullPolicy: IfNotPresent
    args: [serve]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`, name, account, scene.Namespace, programs.ProbeImage))
		one := c.PodNamed(scene.Namespace, name)
		one.WaitReady()
		return one
	}
	for round := range 3 {
		old := pod(fmt.Sprintf("old-%d", round), "alice")
		address := old.IPs()
		if got := client.Reaches(cluster.URL(address[0], "8080")); got.Headers["Pod"] != old.Name {
			t.Fatalf("%s answered for %s", got.Headers["Pod"], old.Name)
		}
		c.Kubectl("-n", scene.Namespace, "delete", "pod", old.Name, "--grace-period=0", "--force")
		c.Node("node2").NextAddress(address)
		heir := pod(fmt.Sprintf("heir-%d", round), "bob")
		if heir.IPs()[0] != address[0] {
			t.Fatalf("the address %s was not given out again: %v", address, heir.IPs())
		}
		if got := client.Reaches(cluster.URL(address[0], "8080")); got.Headers["Pod"] != heir.Name {
			t.Errorf("%s answered for %s", got.Headers["Pod"], heir.Name)
		}
		c.Kubectl("-n", scene.Namespace, "delete", "pod", heir.Name, "--grace-period=0", "--force")
		c.Node("node2").NextAddress(address)
	}
	scene.NothingFailed("addresses that change their identity")
}
