package mesh

import (
	"fmt"
	"strings"
	"testing"

	"heddle.test/cluster/cluster"
	"heddle.test/cluster/internal/programs"
)

// withStrictServer is a meshed namespace with a server that takes nothing but mutual TLS, and the server's URL by address.
func withStrictServer(t *testing.T, name string) (c *cluster.Cluster, ns string, server cluster.Pod, url string) {
	c = cluster.Use(t)
	c.MeshReady()
	ns = c.Namespace(name, cluster.Enabled)
	server = c.Probe(ns, "server", "node1")
	return c, ns, server, cluster.URL(server.IPs()[0], "8080")
}

// onNode2 starts a pod there, with these fields of its spec beside, and waits until it is ready.
func onNode2(c *cluster.Cluster, ns, name, spec string) cluster.Pod {
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
%s`, name, ns, spec))
	pod := c.PodNamed(ns, name)
	pod.WaitReady()
	return pod
}

// A pod on the node's network has no namespace of its own that could be captured: it is no part of the mesh, whatever
// its namespace's label says. It starts, it is reached as any server outside, and strict pods refuse it.
func TestAPodOnTheHostsNetworkIsOutsideTheMesh(t *testing.T) {
	c, ns, _, strict := withStrictServer(t, "host")
	friend := c.Probe(ns, "friend", "node1")
	pod := onNode2(c, ns, "on-host", fmt.Sprintf(`
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: probe, image: %q, imagePullPolicy: IfNotPresent, args: [serve, -port, "18080"], readinessProbe: {httpGet: {path: /, port: 18080}, periodSeconds: 1}}
`, programs.ProbeImage))
	friend.Reaches(strict)
	refused(t, c, pod, strict)
	if got := friend.Reaches(cluster.URL(pod.IPs()[0], "18080")); got.Status != 200 {
		t.Errorf("a meshed pod does not reach it: %+v", got)
	}
}

// An init container runs after the rules are there, and what it asks is meshed like all else. A Job's pod ends by itself:
// nothing of the mesh keeps it from it. That a strict server answers is the proof that both were in the mesh.
func TestInitContainersAreMeshedAndAJobComesToItsEnd(t *testing.T) {
	c, ns, _, strict := withStrictServer(t, "job")
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
	c, ns, server, strict := withStrictServer(t, "admin")
	admin := onNode2(c, ns, "admin", fmt.Sprintf(`
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: %q
    imagePullPolicy: IfNotPresent
    args: [serve]
    securityContext: {runAsUser: 0, capabilities: {add: [NET_ADMIN]}}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`, programs.ProbeImage))
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
	c, ns, _, strict := withStrictServer(t, "ending")
	friend := c.Probe(ns, "friend", "node1")
	ending := onNode2(c, ns, "ending", fmt.Sprintf(`
  terminationGracePeriodSeconds: 60
  containers:
  - name: probe
    image: %q
    imagePullPolicy: IfNotPresent
    args: [serve]
    lifecycle: {preStop: {sleep: {seconds: 20}}}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`, programs.ProbeImage))
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
