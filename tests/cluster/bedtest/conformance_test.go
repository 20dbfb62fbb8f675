package bedtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// byLuck are the mesh tests that can pass with no mesh at all: a Service without a mesh balances over both
// versions of the echo server, and the right one may answer three times in a row.
var byLuck = []string{"MeshBasic", "MeshHTTPRouteMatching", "MeshHTTPRouteNamedRule", "MeshHTTPRouteSimpleSameNamespace", "MeshTrafficSplit"}

func TestTheSuiteWithNothingInstalledEndsInFailuresAndATable(t *testing.T) {
	t.Parallel()
	b := newBed(t, "nothing")
	dir := t.TempDir()
	out, err := b.try("conformance", "--bare", "--out", dir)
	t.Log(out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("exit: %v, want code 1", err)
	}
	b.mustLeaveNothing()
	table := regexp.MustCompile(`(?s)failed \((\d+)\):\n(.*?)\nnot claimed: (\d+) tests`).FindStringSubmatch(out)
	if table == nil {
		t.Fatal("there is no table")
	}
	failed := strings.Fields(table[2])
	// 23 tests are about meshes; 18 of them cannot pass, whatever the luck.
	certain := 0
	for _, name := range failed {
		if !slices.Contains(byLuck, name) {
			certain++
		}
	}
	if certain != 18 {
		t.Errorf("%d tests failed that cannot pass without a mesh, want 18: %v", certain, failed)
	}
	if slices.Contains(failed, "MeshBasic") {
		t.Error("MeshBasic failed: pods do not even reach each other")
	}
	report, err := os.ReadFile(filepath.Join(dir, "report.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kind: ConformanceReport", "gatewayAPIVersion: v1.7.0", "gatewayAPIChannel: experimental", "name: MESH-HTTP", "result: failure"} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report does not say %q", want)
		}
	}
}
