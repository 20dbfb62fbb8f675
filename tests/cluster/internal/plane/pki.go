package plane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/pki"
)

// Trust makes the bed's whole trust in its pki folder: one authority, a certificate for each component
// with just the name RBAC knows it by, and one for each node.
func Trust(state, name string, plan addr.Plan, nodes []string) error {
	dir := filepath.Join(state, "pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := pki.NewAuthority(dir, "ca", "heddle bed "+name)
	if err != nil {
		return err
	}
	front, err := pki.NewAuthority(dir, "front-proxy-ca", "heddle bed "+name+" front proxy")
	if err != nil {
		return err
	}
	if err := front.Issue("front-proxy", pki.Identity{CommonName: "front-proxy"}); err != nil {
		return err
	}
	if err := pki.SigningKey(dir, "service-account"); err != nil {
		return err
	}
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	serving := pki.Identity{
		CommonName: "kube-apiserver",
		DNS: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local", "localhost", Name},
		IPs: append(append(append([]netip.Addr{}, plan.API()...), plan.Plane()...), loopback...),
	}
	if err := ca.Issue("apiserver", serving); err != nil {
		return err
	}
	clients := map[string]pki.Identity{
		"apiserver-kubelet":  {CommonName: "kube-apiserver-kubelet-client", Organization: "system:masters"},
		"admin":              {CommonName: "admin", Organization: "system:masters"},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":         {CommonName: "system:kube-proxy"},
		"load-balancer":      {CommonName: "bed:load-balancer"},
	}
	for i, node := range nodes {
		if err := ca.Issue(node+"-serving", pki.Identity{CommonName: node, DNS: []string{node}, IPs: plan.Node(i + 1)}); err != nil {
			return err
		}
		clients[node] = pki.Identity{CommonName: "system:node:" + node, Organization: "system:nodes"}
	}
	for client, identity := range clients {
		if err := ca.Issue(client, identity); err != nil {
			return err
		}
		if err := pki.Kubeconfig(dir, client, Server(plan)); err != nil {
			return fmt.Errorf("kubeconfig %s: %w", client, err)
		}
	}
	return nil
}
