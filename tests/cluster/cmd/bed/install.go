package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"heddle.test/cluster/internal/bed"
	"heddle.test/cluster/internal/place"
	"heddle.test/cluster/internal/programs"
)

// namespace is where deploy/ puts Heddle.
const namespace = "heddle-system"

// mesh is the name of the XMesh that deploy/ runs.
const mesh = "heddle"

// workloads of deploy/ with the image that each runs.
var workloads = []struct{ name, image string }{
	{"deployment/mesh-controller", "mesh-controller"},
	{"daemonset/mesh-agent", "mesh-cni"},
	{"daemonset/mesh-proxy", "mesh-proxy"},
}

// rolloutWithin is for all workloads together: pods start in seconds, one of them after the other.
const rolloutWithin = 180 * time.Second

func installHeddle(args []string) error {
	set := flag.NewFlagSet("install", flag.ExitOnError)
	flags := addBedFlags(set)
	_ = set.Parse(args)
	source, err := sources()
	if err != nil {
		return err
	}
	b, _, err := upOrBringUp(flags)
	if err != nil {
		return err
	}
	if err := installCRDs(b); err != nil {
		return err
	}
	began := time.Now()
	installed, err := install(b, filepath.Join(source, "..", ".."))
	if err != nil {
		return err
	}
	if !installed {
		return fmt.Errorf("deploy/ holds nothing to install")
	}
	say("Heddle is installed and ready after %s", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// upOrBringUp opens the bed and says whether it had to be brought up.
func upOrBringUp(flags bedFlags) (*bed.Bed, bool, error) {
	b, err := open()
	if err != nil || b.Up() {
		return b, false, err
	}
	if err := bringUp(flags); err != nil {
		return nil, true, err
	}
	b, err = open()
	return b, true, err
}

func installCRDs(b *bed.Bed) error {
	home, err := place.Home()
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", programs.CRDs(home)},
		{"wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"},
	} {
		if err := run(b, args...); err != nil {
			return fmt.Errorf("resource definitions of the Gateway API: %w", err)
		}
	}
	return nil
}

// install loads the images of target/images, applies deploy/ (its kustomization, or else its own resource definitions and plain
// manifests), and waits until all of it is ready. A program whose image is another one than last time is restarted. It says
// false if there is nothing to install.
func install(b *bed.Bed, root string) (bool, error) {
	deploy := filepath.Join(root, "deploy")
	var steps [][]string
	if _, err := os.Stat(filepath.Join(deploy, "kustomization.yaml")); err == nil {
		steps = [][]string{{"-k", deploy}}
	} else if plain, _ := filepath.Glob(filepath.Join(deploy, "manifests", "*.yaml")); len(plain) > 0 {
		if _, err := os.Stat(filepath.Join(deploy, "crds")); err == nil {
			steps = append(steps, []string{"-f", filepath.Join(deploy, "crds")})
		}
		steps = append(steps, []string{"-f", filepath.Join(deploy, "manifests")})
	} else {
		return false, nil
	}
	changed, err := loadChanged(b, filepath.Join(root, "target", "images"))
	if err != nil {
		return false, err
	}
	var restart []string
	for _, workload := range workloads {
		if slices.Contains(changed, workload.image) && run(b, "-n", namespace, "get", workload.name) == nil {
			restart = append(restart, workload.name)
		}
	}
	for _, step := range steps {
		if err := run(b, append([]string{"apply", "--server-side", "--force-conflicts"}, step...)...); err != nil {
			return false, fmt.Errorf("install Heddle: %w", err)
		}
	}
	for _, workload := range restart {
		if err := run(b, "-n", namespace, "rollout", "restart", workload); err != nil {
			return false, fmt.Errorf("install Heddle: %w", err)
		}
	}
	deadline := time.Now().Add(rolloutWithin)
	for _, workload := range workloads {
		left := max(time.Until(deadline), time.Second).Round(time.Second)
		if err := run(b, "-n", namespace, "rollout", "status", workload.name, "--timeout="+left.String()); err != nil {
			return false, errors.Join(fmt.Errorf("%s is not ready: %w", workload.name, err), unready(b))
		}
	}
	// The controller makes its XMesh and says of it when every proxy has taken the settings.
	for _, wait := range []string{"--for=create", "--for=condition=Programmed"} {
		left := max(time.Until(deadline), time.Second).Round(time.Second)
		if err := run(b, "wait", "xmesh/"+mesh, wait, "--timeout="+left.String()); err != nil {
			return false, errors.Join(fmt.Errorf("XMesh %s is not programmed: %w", mesh, err), unready(b))
		}
	}
	return true, nil
}

// loadChanged brings to the nodes the images that they do not have, and returns their names.
func loadChanged(b *bed.Bed, dir string) ([]string, error) {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return nil, err
	}
	if len(archives) == 0 {
		return nil, fmt.Errorf("deploy/ wants Heddle's images, but target/images has none (make images)")
	}
	record := filepath.Join(b.State, "heddle-images.json")
	loaded := map[string]string{}
	if text, err := os.ReadFile(record); err == nil {
		if err := json.Unmarshal(text, &loaded); err != nil {
			return nil, fmt.Errorf("%s: %w", record, err)
		}
	}
	var changed []string
	for _, archive := range archives {
		content, err := os.ReadFile(archive)
		if err != nil {
			return nil, err
		}
		name, sum := strings.TrimSuffix(filepath.Base(archive), ".tar"), fmt.Sprintf("%x", sha256.Sum256(content))
		if loaded[name] == sum {
			continue
		}
		if err := load([]string{archive}); err != nil {
			return nil, err
		}
		loaded[name] = sum
		changed = append(changed, name)
	}
	text, err := json.Marshal(loaded)
	if err != nil {
		return nil, err
	}
	return changed, os.WriteFile(record, text, 0o644)
}

// run is kubectl whose output is part of the error.
func run(b *bed.Bed, args ...string) error {
	_, err := read(b, args...)
	return err
}

func read(b *bed.Bed, args ...string) (string, error) {
	command, err := kube(b, args...)
	if err != nil {
		return "", err
	}
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// unready tells of each pod of Heddle that is not ready why that is, with its last log lines.
func unready(b *bed.Bed) error {
	text, err := read(b, "-n", namespace, "get", "pods", "-o", "json")
	if err != nil {
		return err
	}
	type state struct {
		Waiting, Terminated struct {
			Reason, Message string
			ExitCode        int
		}
	}
	var pods struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ NodeName string }
			Status   struct {
				Phase             string
				ContainerStatuses []struct {
					Ready            bool
					RestartCount     int
					State, LastState state
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &pods); err != nil {
		return err
	}
	var told []error
	for _, pod := range pods.Items {
		name, ready, restarted := pod.Metadata.Name, len(pod.Status.ContainerStatuses) > 0, false
		line := fmt.Sprintf("%s on %s: %s", name, pod.Spec.NodeName, pod.Status.Phase)
		for _, container := range pod.Status.ContainerStatuses {
			ready = ready && container.Ready
			restarted = restarted || container.RestartCount > 0
			line += fmt.Sprintf(", %d restarts %s %s", container.RestartCount, container.State.Waiting.Reason, container.State.Waiting.Message)
		}
		if ready {
			continue
		}
		events, _ := read(b, "-n", namespace, "get", "events", "--field-selector", "type=Warning,involvedObject.name="+name,
			"-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
		log, _ := read(b, "-n", namespace, "logs", name, "--tail=12")
		if restarted && strings.TrimSpace(log) == "" {
			log, _ = read(b, "-n", namespace, "logs", name, "--previous", "--tail=12")
		}
		told = append(told, fmt.Errorf("%s\n%s%s", strings.TrimSpace(line), lastLines(events, 4), lastLines(log, 12)))
	}
	return errors.Join(told...)
}

// lastLines indents the end of a text.
func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	var indented strings.Builder
	for _, line := range lines {
		if line != "" {
			indented.WriteString("    " + line + "\n")
		}
	}
	return indented.String()
}
