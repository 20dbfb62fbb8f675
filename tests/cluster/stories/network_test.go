// Package stories holds what must be true of a bed with nothing installed on it: the ground later stories
// stand on. They run on the bed that BED names.
package stories

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"heddle.test/cluster/cluster"
)

func TestPodsReachEachOtherAcrossNodes(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("across")
	client, server := c.Probe(ns, "client", "node1"), c.Probe(ns, "server", "node2")
	clients := client.IPs()
	for i, ip := range server.IPs() {
		got := client.Reaches("http://" + net.JoinHostPort(ip, "8080") + "/hello")
		if got.Headers["Pod"] != "server" || got.Headers["Peer"] != clients[i] {
			t.Errorf("over %s: answered %+v, want pod server that sees %s", ip, got.Headers, clients[i])
		}
	}
}

func TestAServiceBalancesInEachFamily(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("balance")
	client := c.Probe(ns, "client", "node1")
	c.Probe(ns, "one", "node1", "app: echo")
	c.Probe(ns, "two", "node2", "app: echo")
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: %s}
spec: {selector: {app: echo}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 8080}]}
`, ns))
	var service struct{ Spec struct{ ClusterIPs []string } }
	c.Get(&service, "-n", ns, "service", "echo")
	if len(service.Spec.ClusterIPs) != c.Families() {
		t.Fatalf("the Service has addresses %v in a bed of %d families", service.Spec.ClusterIPs, c.Families())
	}
	for _, ip := range service.Spec.ClusterIPs {
		url := "http://" + net.JoinHostPort(ip, "80") + "/"
		seen := map[string]bool{}
		c.Eventually("both pods answered on "+ip, func() error {
			got, err := client.Curl(url)
			if err != nil {
				return err
			}
			seen[got.Headers["Pod"]] = true
			if !seen["one"] || !seen["two"] {
				return fmt.Errorf("only %v so far", seen)
			}
			return nil
		})
	}
	client.Reaches("http://echo." + ns + ".svc.cluster.local/")
}

func TestALoadBalancerAddressIsReachedFromANodeAndFromOutside(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("lb")
	c.Probe(ns, "server", "node2")
	wanted := c.Balancer(77)
	manifest := `
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec: {type: LoadBalancer, loadBalancerIP: %q, selector: {probe: server}, ports: [{port: 80, targetPort: 8080}]}
`
	c.Apply(fmt.Sprintf(manifest, "first", ns, wanted))
	c.Eventually("the requested address is given", func() error {
		got, err := c.TryKubectl("-n", ns, "get", "service", "first", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err == nil && got != wanted {
			err = fmt.Errorf("it has %q, not %s", got, wanted)
		}
		return err
	})
	for _, from := range []cluster.Node{c.Node("node1"), c.Node("node2"), c.Plane()} {
		c.Eventually(from.Name+" reaches "+wanted, func() error {
			got, err := from.Curl("http://" + net.JoinHostPort(wanted, "80") + "/")
			if err == nil && got.Headers["Pod"] != "server" {
				err = fmt.Errorf("answered by %v", got.Headers)
			}
			return err
		})
	}
	c.Apply(fmt.Sprintf(manifest, "second", ns, wanted))
	c.Eventually("the second to ask is told who has it", func() error {
		got, err := c.TryKubectl("-n", ns, "get", "events", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(got, "taken by "+ns+"/first") {
			err = fmt.Errorf("events say %q", got)
		}
		return err
	})
}

func TestTheWireShowsPlainTrafficBetweenNodes(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("wire")
	client, server := c.Probe(ns, "client", "node1"), c.Probe(ns, "server", "node2")
	const marker = "marker-that-anyone-can-read"
	capture := c.Capture("node2")
	if _, err := client.Curl("http://"+net.JoinHostPort(server.IPs()[0], "8080")+"/", "-body", marker, "-method", "POST"); err != nil {
		t.Fatal(err)
	}
	c.Eventually("the marker is seen", func() error {
		if frames, _ := capture.Frames(); !capture.Contains(marker) {
			return fmt.Errorf("it is in none of %d frames", frames)
		}
		return nil
	})
	if capture.Contains("a marker nobody sent") {
		t.Error("the capture finds what was never sent")
	}
}

// An address goes to another pod the moment it is free: whoever asks there reaches the new pod, at once and from everywhere.
func TestAnAddressThatGoesToAnotherPodLeadsToThatPod(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("again")
	far, near := c.Probe(ns, "far", "node1"), c.Probe(ns, "near", "node2")
	var addresses []string
	for _, name := range []string{"first", "second", "third", "fourth"} {
		if addresses != nil {
			c.Node("node2").NextAddress(addresses)
		}
		pod := c.Probe(ns, name, "node2")
		if addresses != nil && !slices.Equal(pod.IPs(), addresses) {
			t.Fatalf("%s has %v, not %v", name, pod.IPs(), addresses)
		}
		addresses = pod.IPs()
		for _, ip := range addresses {
			for _, client := range []cluster.Pod{far, near} {
				got, err := client.Curl(cluster.URL(ip, "8080"))
				if err != nil || got.Headers["Pod"] != name {
					t.Errorf("%s asks %s of %s: %+v, %v", client.Name, ip, name, got, err)
				}
			}
		}
		c.Kubectl("-n", ns, "delete", "pod", name, "--grace-period=0", "--force")
	}
}
