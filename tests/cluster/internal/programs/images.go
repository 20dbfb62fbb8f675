package programs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"heddle.test/cluster/internal/image"
	"heddle.test/cluster/internal/pki"
)

// Images of a bed by archive name. The references of the suite's images are those its manifests name.
const (
	PauseImage = "bed.test/pause:v1"
	ProbeImage = "bed.test/probe:v1"
	LoadImage  = "bed.test/load:v1"
	DNSImage   = "bed.test/coredns:v1"
	basicImage = "registry.k8s.io/gateway-api/conformance/echo-basic:"
	echoImage  = "registry.k8s.io/gateway-api/conformance/echo-advanced:v0.1.0"
	otelImage  = "bed.test/otelcol:v1"
	promImage  = "bed.test/prometheus:v1"
	nobody     = "65532:65532"
)

// baseImages packs the programs that run in pods; an archive is packed again when what is in it changed.
func (b Builder) baseImages(built Built) error {
	plans := []struct {
		file  string
		image image.Image
		from  map[string]string
	}{
		{"pause", image.Image{Names: []string{PauseImage}, Entrypoint: []string{"/pause"}, User: nobody}, map[string]string{"/pause": "pause"}},
		{"probe", image.Image{Names: []string{ProbeImage}, Entrypoint: []string{"/probe"}, User: nobody}, map[string]string{"/probe": "probe"}},
		{"load", image.Image{Names: []string{LoadImage}, Entrypoint: []string{"/load"}, User: nobody}, map[string]string{"/load": "load"}},
		{"coredns", image.Image{Names: []string{DNSImage}, Entrypoint: []string{"/coredns"}}, map[string]string{"/coredns": "coredns"}},
		{"echo-basic", image.Image{Names: []string{basicImage + "v0.1.0", basicImage + "v0.2.0"}, Entrypoint: []string{"/echo-basic"}},
			map[string]string{"/echo-basic": "echo-basic"}},
		{"echo-advanced", image.Image{Names: []string{echoImage}, Entrypoint: []string{"/usr/local/bin/server"}},
			map[string]string{"/usr/local/bin/server": "server", "/usr/local/bin/client": "client"}},
	}
	for _, plan := range plans {
		if err := pack(built, plan.file, plan.image, plan.from); err != nil {
			return err
		}
	}
	return nil
}

// Extra packs an image of a tool that was built on demand, and returns its archive.
func (b Built) Extra(folder string) (string, error) {
	switch folder {
	case "otel":
		return filepath.Join(b.Images, "extra", "otelcol.tar"), pack(b, "extra/otelcol",
			image.Image{Names: []string{otelImage}, Entrypoint: []string{"/otelcol"}, User: nobody}, map[string]string{"/otelcol": "otelcol"})
	case "prometheus":
		return filepath.Join(b.Images, "extra", "prometheus.tar"), pack(b, "extra/prometheus",
			image.Image{Names: []string{promImage}, Entrypoint: []string{"/prometheus"}, User: nobody}, map[string]string{"/prometheus": "prometheus"})
	}
	return "", fmt.Errorf("no image is made of %s", folder)
}

func pack(built Built, file string, plan image.Image, from map[string]string) error {
	archive := filepath.Join(built.Images, file+".tar")
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return err
	}
	plan.Files = map[string]image.File{}
	// What the archive is made of: the same again needs no packing.
	pin := fmt.Sprintf("%v %v %s\n", plan.Names, plan.Entrypoint, plan.User)
	for _, path := range sorted(from) {
		target, err := filepath.EvalSymlinks(filepath.Join(built.Bin, from[path]))
		if err != nil {
			return err
		}
		pin += path + " " + target + "\n"
	}
	if have, err := os.ReadFile(archive + ".pin"); err == nil && string(have) == pin {
		return nil
	}
	for path, program := range from {
		content, err := image.Executable(filepath.Join(built.Bin, program))
		if err != nil {
			return err
		}
		plan.Files[path] = content
	}
	if file == "echo-advanced" {
		if err := echoCertificate(plan.Files); err != nil {
			return err
		}
	}
	if _, err := plan.Write(archive); err != nil {
		return err
	}
	return os.WriteFile(archive+".pin", []byte(pin), 0o644)
}

// echoCertificate gives the mesh echo server the certificate its TLS port asks for at start.
func echoCertificate(files map[string]image.File) error {
	dir, err := os.MkdirTemp("", "bed-echo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	authority, err := pki.NewAuthority(dir, "ca", "echo")
	if err != nil {
		return err
	}
	if err := authority.Issue("cert", pki.Identity{CommonName: "echo", DNS: []string{"echo"}}); err != nil {
		return err
	}
	for _, name := range []string{"cert.crt", "cert.key"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		files["/"+name] = image.File{Content: content, Mode: 0o644}
	}
	return nil
}

// CRDs is the file of the Gateway API's resource definitions, experimental channel.
func CRDs(home string) string { return filepath.Join(home, "gateway-api-crds.yaml") }

// renderCRDs takes the definitions out of the pinned module, so that a bed needs no Go to install them.
func (b Builder) renderCRDs(built Built) error {
	version := b.Pinned("conformance", crdModule)
	if version == "" {
		return fmt.Errorf("programs/conformance/go.mod does not pin %s", crdModule)
	}
	record := CRDs(b.Home) + ".version"
	if have, err := os.ReadFile(record); err == nil && string(have) == version {
		return nil
	}
	// The module asks for the suite's newer Go even to be unpacked.
	tool, err := b.toolchain(Program{Go127: true})
	if err != nil {
		return err
	}
	locate := exec.Command(tool, "mod", "download", "-json", crdModule+"@"+version)
	locate.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	locate.Dir = os.TempDir()
	out, err := locate.Output()
	if err != nil {
		return fmt.Errorf("%s@%s: %w", crdModule, version, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return fmt.Errorf("%s@%s: %w", crdModule, version, err)
	}
	rendered, err := exec.Command(filepath.Join(built.Bin, "kube"), "kubectl", "kustomize", filepath.Join(module.Dir, "config/crd/experimental")).Output()
	if err != nil {
		return fmt.Errorf("resource definitions of %s: %w", crdModule, err)
	}
	if err := os.WriteFile(CRDs(b.Home), rendered, 0o644); err != nil {
		return err
	}
	return os.WriteFile(record, []byte(version), 0o644)
}
