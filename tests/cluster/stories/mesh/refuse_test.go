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
