package mesh

import (
	"fmt"
	"strings"
	"testing"

	"heddle.test/cluster/cluster"
	"heddle.test/cluster/internal/programs"
)

// strictServer is a pod of a meshed namespace that takes nothing but mutual TLS, and its URL by address.
func strictServer(c *cluster.Cluster, ns string) (cluster.Pod, string) {
	server := c.Probe(ns, "server", "node1")
	return server, cluster.URL(server.IPs()[0], "8080")
}

// A pod on the node's network has no namespace of its own that could be captured: it is no part of the mesh, whatever
// its namespace's label says. It starts, it is reached as any server outside, and strict pods refuse it.
func TestAPodOnTheHostsNetworkIsOutsideTheMesh(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	ns := c.Namespace("host", cluster.Enabled)
	_, strict := strictServer(c, ns)
	friend := c.Probe(ns, "friend", "node1")
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: on-host, namespace: %s}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 1
  containers:
  - {name: probe, image: %q, imagePullPolicy: IfNotPresent, args: [serve, -port, "18080"], readinessProbe: {httpGet: {path: /, port: 18080}, periodSeconds: 1}}
`, ns, programs.ProbeImage))
	pod := c.PodNamed(ns, "on-host")
	pod.WaitReady()
	friend.Reaches(strict)
	refused(t, c, pod, strict)
	if got := friend.Reaches(cluster.URL(pod.IPs()[0], "18080")); got.Status != 200 {
		t.Errorf("a meshed pod does not reach it: %+v", got)
	}
}

// An init container runs after the rules are there, and what it asks is meshed like all else. A Job's pod ends by itself:
// nothing of the mesh keeps it from it. That a strict server answers is the proof that both were in the mesh.
func TestInitContainersAreMeshedAndAJobComesToItsEnd(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	ns := c.Namespace("job", cluster.Enabled)
	_, strict := strictServer(c, ns)
	c.Apply(fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: %[1]s}
spec:
  completions: 4
  parallelism: 2
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - {name: first, image: %[2]q, imagePullPolicy: IfNotPresent, args: [get, -status, "200", %[3]q]}
      containers:
      - {name: then, image: %[2]q, imagePullPolicy: IfNotPresent, args: [get, -status, "200", %[3]q]}
`, ns, programs.ProbeImage, strict))
	c.Eventually("the Job is complete", func() error {
		out, err := c.TryKubectl("-n", ns, "get", "job", "once", "-o", `jsonpath={.status.succeeded} {.status.failed}`)
		if err == nil && strings.TrimSpace(out) != "4" {
			err = fmt.Errorf("succeeded and failed: %s", out)
		}
		return err
	})
}

// Who may change its own network can undo its capture, and gets nothing by it: it is a stranger to strict pods, and has
// no key that it could prove another identity with. As long as it leaves the rules alone it is meshed like any other.
func TestAPodThatRemovesItsOwnRulesIsAStranger(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	ns := c.Namespace("admin", cluster.Enabled)
	server, strict := strictServer(c, ns)
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: admin, namespace: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: %q
    imagePullPolicy: IfNotPresent
    args: [serve]
    securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN]}}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`, ns, programs.ProbeImage))
	admin := c.PodNamed(ns, "admin")
	admin.WaitReady()
	admin.Reaches(strict)
	friend := c.Probe(ns, "friend", "node2")
	friend.Reaches(cluster.URL(admin.IPs()[0], "8080"))
	// What it could do itself with a program that its image lacks.
	admin.InNetwork("nft", "delete", "table", "inet", "heddle")
	refused(t, c, admin, strict)
	// The others are not touched by it.
	friend.Reaches(strict)
	server.WaitReady()
}

// A pod that was told to end lives on for its grace, and so does its membership: it still asks and answers.
func TestATerminatingPodIsMeshedToItsEnd(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	ns := c.Namespace("ending", cluster.Enabled)
	_, strict := strictServer(c, ns)
	friend := c.Probe(ns, "friend", "node1")
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: ending, namespace: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 60
  containers:
  - name: probe
    image: %q
    imagePullPolicy: IfNotPresent
    args: [serve]
    lifecycle: {preStop: {sleep: {seconds: 20}}}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`, ns, programs.ProbeImage))
	ending := c.PodNamed(ns, "ending")
	ending.WaitReady()
	url := cluster.URL(ending.IPs()[0], "8080")
	friend.Reaches(url)
	c.Kubectl("-n", ns, "delete", "pod", "ending", "--wait=false")
	c.Eventually("it is terminating", func() error {
		out, err := c.TryKubectl("-n", ns, "get", "pod", "ending", "-o", "jsonpath={.metadata.deletionTimestamp}")
		if err == nil && out == "" {
			err = fmt.Errorf("it is not")
		}
		return err
	})
	// Not once, but for as long as it takes that everybody has heard of it.
	for range 8 {
		if got, err := ending.Curl(strict); err != nil || got.Status != 200 {
			t.Errorf("a terminating pod asks: %+v, %v", got, err)
		}
		if got, err := friend.Curl(url); err != nil || got.Status != 200 {
			t.Errorf("a terminating pod is asked: %+v, %v", got, err)
		}
	}
	c.Eventually("it is gone", func() error {
		if _, err := c.TryKubectl("-n", ns, "get", "pod", "ending"); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}

// refused says that the pod gets no answer of the server at this URL.
func refused(t *testing.T, c *cluster.Cluster, pod cluster.Pod, url string) {
	t.Helper()
	c.Eventually(pod.Name+" is refused", func() error {
		if got, err := pod.Curl(url, "-timeout", "3s"); err == nil && got.Status < 400 {
			return fmt.Errorf("it was answered: %+v", got)
		}
		return nil
	})
	for range 5 {
		if got, err := pod.Curl(url, "-timeout", "3s"); err == nil && got.Status < 400 {
			t.Errorf("%s reached %s: %+v", pod.Name, url, got)
		}
	}
}
