package mesh

import (
	"net"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
)

// Strict is the default: a meshed pod takes plaintext from nobody, however it is reached.
func TestPlaintextToAStrictPodIsRefusedByEveryWay(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	inside, outside := c.Namespace("strict", cluster.Enabled), c.Namespace("outside")
	began := time.Now()
	server := c.Probe(inside, "server", "node1", "app: server")
	friend := c.Probe(inside, "friend", "node2")
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: server, namespace: ` + inside + `}
spec: {selector: {app: server}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 8080}]}
`)
	var service struct{ Spec struct{ ClusterIPs []string } }
	c.Get(&service, "-n", inside, "service", "server")
	ways := map[string]string{"service name": "http://server." + inside + ".svc.cluster.local/"}
	for _, ip := range server.IPs() {
		ways["pod address "+ip] = "http://" + net.JoinHostPort(ip, "8080") + "/"
	}
	for _, ip := range service.Spec.ClusterIPs {
		ways["service address "+ip] = "http://" + net.JoinHostPort(ip, "80") + "/"
	}
	// It is there, and a meshed pod reaches it by all of them.
	for _, url := range ways {
		friend.Reaches(url)
	}
	strangers := []cluster.Pod{c.Probe(outside, "near", "node1"), c.Probe(outside, "far", "node2")}
	refused := 0
	for way, url := range ways {
		for _, stranger := range strangers {
			got, err := stranger.Curl(url, "-timeout", "3s")
			if err == nil && got.Status < 400 {
				t.Errorf("%s reached the strict pod by %s: %+v", stranger.Name, way, got)
				continue
			}
			if err == nil && got.Status != 403 {
				t.Errorf("%s by %s: status %d", stranger.Name, way, got.Status)
			}
			refused++
		}
		for _, node := range []cluster.Node{c.Node("node2"), c.Plane()} {
			if strings.Contains(url, "svc.cluster.local") || (node.Name == "plane" && !strings.Contains(way, "pod address")) {
				continue
			}
			if got, err := node.Curl(url); err == nil && got.Status < 400 {
				t.Errorf("%s reached the strict pod by %s: %+v", node.Name, way, got)
				continue
			}
			refused++
		}
	}
	c.Node("node1").Refused(inside, "plaintext_refused", time.Since(began))
	t.Logf("VERDICT refusals | plaintext to a strict pod | %d ways by %d callers | refused %d", len(ways), len(strangers)+2, refused)
	// The kubelet's own probes are not strangers: the pod stays ready.
	server.WaitReady()
	for _, url := range ways {
		friend.Reaches(url)
	}
}

// Whoever has stolen a node's token can speak for the meshed pods of that node, and for nobody else.
func TestATokenReachesNoMoreThanTheIdentitiesOfItsNode(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	inside, outside := c.Namespace("owners", cluster.Enabled), c.Namespace("thief")
	for node, account := range map[string]string{"node1": "near", "node2": "far"} {
		c.Kubectl("-n", inside, "create", "serviceaccount", account)
		c.ProbeAs(inside, account, node, account)
	}
	thief := c.Thief(outside, "node2")
	identity := func(account string) string { return "spiffe://cluster.local/ns/" + inside + "/sa/" + account }
	stolen := c.Node("node1").ProxyToken(cluster.TokenAudience)
	for _, try := range []struct{ what, token, identity, code, says string }{
		{"its own node's pod", stolen, identity("near"), "OK", ""},
		{"another node's pod", stolen, identity("far"), "PermissionDenied", "no meshed pod with this identity is scheduled on that node"},
		{"an account that nobody runs as", stolen, identity("default"), "PermissionDenied", "no meshed pod"},
		{"a foreign trust domain", stolen, "spiffe://other.example/ns/" + inside + "/sa/near", "PermissionDenied", "no meshed pod"},
		{"a token for somebody else's audience", c.Node("node1").ProxyToken("other"), identity("near"), "Unauthenticated", ""},
		{"the token of an ordinary account", c.Kubectl("-n", inside, "create", "token", "near", "--audience="+cluster.TokenAudience), identity("near"), "Unauthenticated", ""},
		{"a made-up token", "eyJhbGciOiJub25lIn0.e30.", identity("near"), "Unauthenticated", ""},
		{"no token", "", identity("near"), "Unauthenticated", ""},
	} {
		code, said := thief.Sign(try.token, try.identity)
		if code != try.code || !strings.Contains(said, try.says) {
			t.Errorf("%s: %s %q, want %s %q", try.what, code, said, try.code, try.says)
		}
		t.Logf("VERDICT refused | %s | %s %s", try.what, code, said)
	}
}
