// Package node decides what a node's machine runs: containerd, the kubelet and kube-proxy, with the
// standard bridge CNI plugin. It only computes; machines obey.
package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/programs"
)

// Socket is containerd's, at the usual place of the node's own /run.
const Socket = "/run/containerd/containerd.sock"

// Name of node i, counted from 1.
func Name(i int) string { return "node" + strconv.Itoa(i) }

// Spec is the machine of node i of the bed whose folder is `state`.
func Spec(state, group, bin, images string, plan addr.Plan, nodes, i int, cgroupV1 bool) machine.Spec {
	name := Name(i)
	dir := filepath.Join(state, name)
	pki := filepath.Join(state, "pki")
	kube := filepath.Join(bin, "kube")
	group += "/" + name
	return machine.Spec{
		Name:    name,
		State:   dir,
		Group:   group,
		WaitFor: []string{"eth0"},
		Setup:   network(plan, nodes, i),
		Files: map[string]string{
			"/etc/containerd/config.toml":  containerdConfig(bin, dir),
			"/etc/kubernetes/kubelet.yaml": kubeletConfig(plan, pki, name, group, cgroupV1),
			machine.Forward4:               "1",
			machine.Forward6:               "1",
			// Pods of one node talk over a bridge; replies must pass the node's rules all the same, or an
			// address that kube-proxy translated on the way there is not translated on the way back.
			machine.BridgeRules4: "1",
			machine.BridgeRules6: "1",
		},
		FirstFiles: map[string]string{"/etc/cni/net.d/10-bridge.conflist": conflist(plan, i)},
		Services: []machine.Service{
			{Name: "containerd", Ready: "unix:" + Socket, Env: []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin"},
				Args: []string{filepath.Join(bin, "containerd"), "--config", "/etc/containerd/config.toml"}},
			{Name: "images", Once: true, Args: []string{filepath.Join(state, "bed"), "import",
				"--ctr", filepath.Join(bin, "ctr"), "--done", filepath.Join(dir, "imported"), images}},
			{Name: "kubelet", Args: []string{kube, "kubelet",
				"--config=/etc/kubernetes/kubelet.yaml",
				"--kubeconfig=" + filepath.Join(pki, name+".kubeconfig"),
				"--hostname-override=" + name,
				"--node-ip=" + addr.Join(plan.Node(i)),
				"--node-labels=topology.kubernetes.io/region=bed,topology.kubernetes.io/zone=zone" + strconv.Itoa(i)}},
			{Name: "kube-proxy", Args: []string{kube, "kube-proxy",
				"--kubeconfig=" + filepath.Join(pki, "kube-proxy.kubeconfig"),
				"--hostname-override=" + name,
				"--proxy-mode=nftables",
				"--cluster-cidr=" + addr.Join(plan.Pods),
				// The host's own connection limits are not a node's to set.
				"--conntrack-max-per-core=0",
				"--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"}},
		},
	}
}

func network(plan addr.Plan, nodes, i int) [][]string {
	setup := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "set", "eth0", "up"},
	}
	for family, ip := range plan.Node(i) {
		command := []string{"ip", "addr", "add", fmt.Sprintf("%s/%d", ip, plan.Nodes[family].Bits()), "dev", "eth0"}
		if ip.Is6() {
			command = append(command, "nodad")
		}
		setup = append(setup, command)
	}
	for family, gateway := range plan.Plane() {
		flag := "-4"
		if gateway.Is6() {
			flag = "-6"
		}
		setup = append(setup, []string{"ip", flag, "route", "add", "default", "via", gateway.String()})
		for other := 1; other <= nodes; other++ {
			if other != i {
				setup = append(setup, []string{"ip", "route", "add", plan.PodRange(other)[family].String(), "via", plan.Node(other)[family].String()})
			}
		}
	}
	return setup
}

func conflist(plan addr.Plan, i int) string {
	var ranges, routes []any
	for _, pods := range plan.PodRange(i) {
		ranges = append(ranges, []any{map[string]string{"subnet": pods.String()}})
		routes = append(routes, map[string]string{"dst": anywhere(pods)})
	}
	text, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "pods",
		"plugins": []any{map[string]any{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
			"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": routes},
		}},
	}, "", "  ")
	if err != nil {
		panic("a value made of strings is always JSON: " + err.Error())
	}
	return string(text)
}

func anywhere(pods netip.Prefix) string {
	if pods.Addr().Is4() {
		return "0.0.0.0/0"
	}
	return "::/0"
}

func containerdConfig(bin, dir string) string {
	return fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = %q
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
      SystemdCgroup = false
`, filepath.Join(dir, "containerd"), Socket, programs.PauseImage, filepath.Join(bin, "containerd-shim-runc-v2"), filepath.Join(bin, "runc"))
}

func kubeletConfig(plan addr.Plan, pki, name, group string, cgroupV1 bool) string {
	lines := []string{
		"apiVersion: kubelet.config.k8s.io/v1beta1",
		"kind: KubeletConfiguration",
		"cgroupDriver: cgroupfs",
		// A root of its own: two kubelets on one machine would remove each other's pods.
		"cgroupRoot: /" + group + "/pods",
		"containerRuntimeEndpoint: unix://" + Socket,
		"authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: " + filepath.Join(pki, "ca.crt") + "}}",
		"authorization: {mode: Webhook}",
		"tlsCertFile: " + filepath.Join(pki, name+"-serving.crt"),
		"tlsPrivateKeyFile: " + filepath.Join(pki, name+"-serving.key"),
		"clusterDomain: cluster.local",
		"clusterDNS: [" + strconv.Quote(plan.DNS()[0].String()) + "]",
		`resolvConf: ""`,
		"failSwapOn: false",
		"enforceNodeAllocatable: []",
		"evictionHard: {}",
		// What was imported cannot be pulled again, so a full host disk must not remove it: 100 ends the collection.
		"imageGCHighThresholdPercent: 100",
		"maxPods: 230",
		// Found out in seconds, not minutes, that a node came back or went.
		"nodeStatusUpdateFrequency: 4s",
		"nodeStatusReportFrequency: 1m",
		"nodeLeaseDurationSeconds: 12",
	}
	if cgroupV1 {
		lines = append(lines, "failCgroupV1: false")
	}
	return strings.Join(lines, "\n") + "\n"
}
