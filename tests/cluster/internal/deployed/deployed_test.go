// Package deployed holds the tests of deploy/ that need no cluster and no helm.
package deployed

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

const deploy = "../../../../deploy"

var says = regexp.MustCompile(`Chart ([0-9a-f]{16})\.`)

// The same sum as deploy.mk's CHART_SUM.
func chartSum(t *testing.T) string {
	t.Helper()
	chart := filepath.Join(deploy, "chart")
	var names []string
	err := filepath.WalkDir(chart, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(chart, path)
		template := strings.HasPrefix(name, "templates/") && filepath.Base(name) != "NOTES.txt"
		if err == nil && entry.Type().IsRegular() && (template || name == "Chart.yaml" || name == "values.yaml") {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	all := sha256.New()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(chart, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(all, "%x  %s\n", sha256.Sum256(content), name)
	}
	return hex.EncodeToString(all.Sum(nil))[:16]
}

func TestTheManifestsAreRenderedFromThisChart(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "manifests", "heddle.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	said := says.FindSubmatch(text)
	if said == nil {
		t.Fatal("deploy/manifests/heddle.yaml does not say which chart it was rendered from: make manifests")
	}
	if sum := chartSum(t); string(said[1]) != sum {
		t.Errorf("the chart is %s, deploy/manifests/heddle.yaml was rendered from %s: make manifests", sum, said[1])
	}
}

func TestTheChartHasTheVersionOfTheWorkspace(t *testing.T) {
	version := regexp.MustCompile(`(?m)^version *= *"(.*)"`)
	workspace, err := os.ReadFile(filepath.Join(deploy, "..", "Cargo.toml"))
	if err != nil {
		t.Fatal(err)
	}
	chart, err := os.ReadFile(filepath.Join(deploy, "chart", "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := version.FindSubmatch(workspace)
	if want == nil {
		t.Fatal("Cargo.toml names no version")
	}
	for _, field := range []string{"version", "appVersion"} {
		if !strings.Contains("\n"+string(chart), fmt.Sprintf("\n%s: %s\n", field, want[1])) {
			t.Errorf("Chart.yaml's %s is not %s", field, want[1])
		}
	}
}
