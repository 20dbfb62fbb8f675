package node

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/machine"
)

func spec(families addr.Families, v1 bool) machine.Spec {
	return Spec("/state", "heddle-bed-x", "/bin", "/images", addr.Default(families), 2, 2, v1)
}

func command(t *testing.T, s machine.Spec, name string) string {
	t.Helper()
	i := slices.IndexFunc(s.Services, func(service machine.Service) bool { return service.Name == name })
	if i < 0 {
		t.Fatalf("no service %s", name)
	}
	return strings.Join(s.Services[i].Args, " ")
}

func TestImagesAreOnTheNodeBeforeItsKubeletStarts(t *testing.T) {
	var order []string
	for _, service := range spec(addr.IPv4, true).Services {
		order = append(order, service.Name)
	}
	if strings.Join(order, " ") != "containerd images kubelet kube-proxy" {
		t.Errorf("services start as %v", order)
	}
}

func TestADualNodeHasBothFamiliesInItsKubeletAndItsPods(t *testing.T) {
	s := spec(addr.Dual, true)
	if line := command(t, s, "kubelet"); !strings.Contains(line, "--node-ip=192.168.77.12,fd77:0:0:1::c") {
		t.Errorf("the kubelet is %s", line)
	}
	var list struct {
		Plugins []struct {
			IPAM struct {
				Ranges [][]struct{ Subnet string }
				Routes []struct{ Dst string }
			}
		}
	}
	if err := json.Unmarshal([]byte(s.FirstFiles["/etc/cni/net.d/10-bridge.conflist"]), &list); err != nil {
		t.Fatal(err)
	}
	ipam := list.Plugins[0].IPAM
	if len(ipam.Ranges) != 2 || ipam.Ranges[1][0].Subnet != "fd77:0:1:2::/64" || ipam.Routes[1].Dst != "::/0" {
		t.Errorf("pods get %+v", ipam)
	}
}

func TestANodeUsesItsOwnCredentialsAndControlGroup(t *testing.T) {
	s := spec(addr.IPv4, false)
	if line := command(t, s, "kubelet"); !strings.Contains(line, "--kubeconfig=/state/pki/node2.kubeconfig") {
		t.Errorf("the kubelet is %s", line)
	}
	config := s.Files["/etc/kubernetes/kubelet.yaml"]
	for _, want := range []string{"cgroupRoot: /heddle-bed-x/node2/pods", "authorization: {mode: Webhook}", "anonymous: {enabled: false}"} {
		if !strings.Contains(config, want) {
			t.Errorf("%q is not in\n%s", want, config)
		}
	}
	if strings.Contains(config, "failCgroupV1") {
		t.Error("a node on control groups v2 speaks of v1")
	}
}

func TestPodsOfOtherNodesAreReachedOverThoseNodes(t *testing.T) {
	want := []string{"ip", "route", "add", "10.244.1.0/24", "via", "192.168.77.11"}
	if !slices.ContainsFunc(spec(addr.IPv4, true).Setup, func(line []string) bool { return slices.Equal(line, want) }) {
		t.Errorf("no route to node 1's pods: %v", spec(addr.IPv4, true).Setup)
	}
}
