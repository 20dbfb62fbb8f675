// Package plane decides what the control plane's machine runs: etcd, the API server, the controller
// manager, the scheduler and the load balancer allocator. It only computes; machines obey.
package plane

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/machine"
)

// Port is the API server's.
const Port = "6443"

// Name is the control plane's machine.
const Name = "plane"

// Bridge is the network between all machines of a bed; it lives on the control plane's machine.
const Bridge = "fabric"

// Server is the API server's URL as nodes and the admin see it.
func Server(plan addr.Plan) string { return "https://" + Endpoint(plan) }

// Endpoint is the API server's address and port.
func Endpoint(plan addr.Plan) string { return net.JoinHostPort(plan.Plane()[0].String(), Port) }

// Spec is the control plane's machine of the bed whose folder is `state`.
func Spec(state, group, bin string, plan addr.Plan, nodes int) machine.Spec {
	dir := filepath.Join(state, Name)
	pki := filepath.Join(state, "pki")
	file := func(name string) string { return filepath.Join(pki, name) }
	kube := filepath.Join(bin, "kube")
	etcd := "127.0.0.1:2379"
	return machine.Spec{
		Name:  Name,
		State: dir,
		Group: group + "/" + Name,
		Setup: network(plan, nodes),
		Files: map[string]string{
			"/etc/kubernetes/audit.yaml": auditPolicy,
			machine.Forward4:             "1",
			machine.Forward6:             "1",
		},
		Services: []machine.Service{
			{Name: "etcd", Ready: "tcp:" + etcd, Args: []string{kube, "etcd",
				"--data-dir", filepath.Join(dir, "disk", "etcd"),
				"--listen-client-urls", "http://" + etcd, "--advertise-client-urls", "http://" + etcd,
				"--listen-peer-urls", "http://127.0.0.1:2380",
				// A bed does not outlive its machine, so waiting for the disk would buy nothing.
				"--unsafe-no-fsync"}},
			{Name: "apiserver", Ready: "tcp:" + Endpoint(plan), Args: []string{kube, "kube-apiserver",
				"--etcd-servers=http://" + etcd,
				"--secure-port=" + Port,
				"--bind-address=" + plan.Plane()[0].String(),
				"--advertise-address=" + plan.Plane()[0].String(),
				"--service-cluster-ip-range=" + addr.Join(plan.Services),
				"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
				"--client-ca-file=" + file("ca.crt"),
				"--authorization-mode=Node,RBAC",
				"--enable-admission-plugins=NodeRestriction",
				"--anonymous-auth=false",
				"--kubelet-client-certificate=" + file("apiserver-kubelet.crt"),
				"--kubelet-client-key=" + file("apiserver-kubelet.key"),
				"--kubelet-certificate-authority=" + file("ca.crt"),
				"--kubelet-preferred-address-types=InternalIP,Hostname",
				"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
				"--service-account-key-file=" + file("service-account.key"),
				"--service-account-signing-key-file=" + file("service-account.key"),
				"--requestheader-client-ca-file=" + file("front-proxy-ca.crt"),
				"--requestheader-allowed-names=front-proxy",
				"--requestheader-username-headers=X-Remote-User",
				"--requestheader-group-headers=X-Remote-Group",
				"--requestheader-extra-headers-prefix=X-Remote-Extra-",
				"--proxy-client-cert-file=" + file("front-proxy.crt"),
				"--proxy-client-key-file=" + file("front-proxy.key"),
				// Webhooks and aggregated servers are reached at their pods; no kube-proxy runs here.
				"--enable-aggregator-routing=true",
				"--allow-privileged=true",
				"--audit-policy-file=/etc/kubernetes/audit.yaml",
				"--audit-log-path=" + filepath.Join(dir, "log", "audit.log"),
				"--audit-log-maxsize=100", "--audit-log-maxbackup=2",
			}},
			// The API server listens before its own roles exist; what starts in between ends at once.
			{Name: "await", Once: true, Args: []string{filepath.Join(state, "bed"), "await", "--pki", pki, "--server", Server(plan)}},
			{Name: "controller-manager", Args: []string{kube, "kube-controller-manager",
				"--kubeconfig=" + file("controller-manager.kubeconfig"),
				"--authentication-kubeconfig=" + file("controller-manager.kubeconfig"),
				"--authorization-kubeconfig=" + file("controller-manager.kubeconfig"),
				"--bind-address=127.0.0.1",
				"--client-ca-file=" + file("ca.crt"),
				"--root-ca-file=" + file("ca.crt"),
				"--cluster-signing-cert-file=" + file("ca.crt"), "--cluster-signing-key-file=" + file("ca.key"),
				"--service-account-private-key-file=" + file("service-account.key"),
				"--use-service-account-credentials=true",
				"--leader-elect=false",
				// A node that is lost is noticed, and its pods are moved, in seconds instead of minutes.
				"--node-monitor-grace-period=16s", "--node-monitor-period=2s",
			}},
			{Name: "scheduler", Args: []string{kube, "kube-scheduler",
				"--kubeconfig=" + file("scheduler.kubeconfig"),
				"--authentication-kubeconfig=" + file("scheduler.kubeconfig"),
				"--authorization-kubeconfig=" + file("scheduler.kubeconfig"),
				"--bind-address=127.0.0.1",
				"--leader-elect=false"}},
			{Name: "load-balancer", Args: []string{filepath.Join(state, "bed"), "allocate",
				"--pki", pki, "--server", Server(plan), "--ranges", addr.Join(plan.Balancer)}},
		},
	}
}

// network makes the bridge, the plane's own addresses, and the ways to pods, Services and load balancer
// addresses, which all lead over the nodes: the plane is also the place that plays "outside the cluster".
func network(plan addr.Plan, nodes int) [][]string {
	setup := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", Bridge, "type", "bridge"},
	}
	for i, ip := range plan.Plane() {
		setup = append(setup, address(ip, plan.Nodes[i], Bridge))
	}
	setup = append(setup, []string{"ip", "link", "set", Bridge, "up"})
	for node := 1; node <= nodes; node++ {
		for i, pods := range plan.PodRange(node) {
			setup = append(setup, []string{"ip", "route", "add", pods.String(), "via", plan.Node(node)[i].String()})
		}
	}
	for i := range plan.Services {
		for _, all := range []netip.Prefix{plan.Services[i], plan.Balancer[i]} {
			route := []string{"ip", "route", "add", all.String()}
			for node := 1; node <= nodes; node++ {
				route = append(route, "nexthop", "via", plan.Node(node)[i].String())
			}
			setup = append(setup, route)
		}
	}
	return setup
}

func address(ip netip.Addr, in netip.Prefix, device string) []string {
	command := []string{"ip", "addr", "add", fmt.Sprintf("%s/%d", ip, in.Bits()), "dev", device}
	if ip.Is6() {
		// Nobody else can have the address: waiting to find that out would only cost a second.
		command = append(command, "nodad")
	}
	return command
}

// auditPolicy keeps who did what, without the bodies and without the beat of leases and events.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: "", resources: [events]}
  - {group: events.k8s.io, resources: [events]}
- level: None
  nonResourceURLs: ["/readyz*", "/healthz*", "/livez*", "/openapi*", "/api", "/api/*", "/apis", "/apis/*", "/version"]
- level: Metadata
`
