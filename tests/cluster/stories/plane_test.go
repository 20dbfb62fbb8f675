package stories

import (
	"strings"
	"testing"

	"heddle.test/cluster/cluster"
)

func TestExecAndLogsWork(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("exec")
	pod := c.Probe(ns, "pod", "node2")
	if logs := pod.Logs(); !strings.Contains(logs, "serving on 8080") {
		t.Errorf("the log is %q", logs)
	}
	if _, err := pod.Exec("/no-such-program"); err == nil {
		t.Error("a program that is not there ran")
	}
	if got, err := pod.Curl("http://localhost:8080/"); err != nil || got.Headers["Pod"] != "pod" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAPodVerifiesTheAPIServerAndIsKnownToIt(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("client")
	pod := c.Probe(ns, "pod", "node1")
	out, err := pod.Exec("/probe", "api", "/api/v1/namespaces/"+ns+"/pods")
	if err == nil || !strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default") {
		t.Errorf("a pod without rights got %q, %v", out, err)
	}
	c.Kubectl("-n", ns, "create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount="+ns+":default")
	c.Eventually("the pod may read", func() error {
		_, err := pod.Exec("/probe", "api", "/api/v1/namespaces/"+ns+"/pods")
		return err
	})
}

func TestANodeMayOnlyTouchWhatIsItsOwn(t *testing.T) {
	c := cluster.Use(t)
	if out, err := c.KubectlAs("node1", "label", "node", "node2", "mine=yes"); err == nil {
		t.Errorf("node1 labelled node2: %s", out)
	}
	if out, err := c.KubectlAs("node1", "get", "secrets", "-A"); err == nil {
		t.Errorf("node1 read all secrets: %s", out)
	}
	if _, err := c.KubectlAs("node1", "get", "node", "node1"); err != nil {
		t.Errorf("node1 cannot read itself: %v", err)
	}
}

func TestTheAuditLogSaysWhoDidWhat(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("audit")
	for _, line := range strings.Split(c.AuditLog(), "\n") {
		if strings.Contains(line, `"verb":"create"`) && strings.Contains(line, `"resource":"namespaces"`) && strings.Contains(line, ns) {
			if !strings.Contains(line, `"username":"admin"`) {
				t.Errorf("the line does not name the admin: %s", line)
			}
			return
		}
	}
	t.Errorf("no line about creating namespace %s", ns)
}
