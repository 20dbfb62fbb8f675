package stories

import (
	"fmt"
	"strings"
	"testing"

	"heddle.test/cluster/cluster"
	"heddle.test/cluster/internal/programs"
)

// What an agent on every node (a mesh's proxy, a CNI installer) takes for granted of a node.
func TestANodeAgentSeesPodNamespacesMadeLaterAndTheNodesOwnFolders(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("agent")
	c.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: %s}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      hostPID: true
      terminationGracePeriodSeconds: 1
      containers:
      - name: agent
        image: %s
        args: [serve, -port, "9876"]
        securityContext: {privileged: true, runAsUser: 0}
        readinessProbe: {httpGet: {path: /, port: 9876}, periodSeconds: 1}
        volumeMounts:
        - {name: netns, mountPath: /host/netns, mountPropagation: HostToContainer}
        - {name: cni, mountPath: /host/cni}
      volumes:
      - {name: netns, hostPath: {path: /var/run/netns}}
      - {name: cni, hostPath: {path: /etc/cni/net.d}}
`, ns, programs.ProbeImage))
	c.Eventually("an agent runs on every node", func() error {
		_, err := c.TryKubectl("-n", ns, "rollout", "status", "daemonset/agent", "--timeout=1s")
		return err
	})
	agent := c.PodOn(ns, "app=agent", "node1")
	namespaces := func() int {
		out, err := agent.Exec("/probe", "files", "/host/netns")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(out, " namespace")
	}
	before := namespaces()
	c.Probe(ns, "later", "node1")
	if after := namespaces(); after != before+1 {
		t.Errorf("the agent saw %d pod namespaces before the pod and %d after", before, after)
	}
	c.Node("node1").Run("touch", "/etc/cni/net.d/of-node1")
	t.Cleanup(func() { _, _ = c.Node("node1").Try("rm", "/etc/cni/net.d/of-node1") })
	if out, err := agent.Exec("/probe", "files", "/host/cni"); err != nil || !strings.Contains(out, "of-node1") {
		t.Errorf("the agent of node1 sees %q, %v", out, err)
	}
	if out, err := c.PodOn(ns, "app=agent", "node2").Exec("/probe", "files", "/host/cni"); err != nil || strings.Contains(out, "of-node1") {
		t.Errorf("the agent of node2 sees node1's folder: %q, %v", out, err)
	}
}
