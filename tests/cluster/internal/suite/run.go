package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/api"
	"heddle.test/cluster/internal/bed"
	"heddle.test/cluster/internal/node"
)

// Controller is the name that Heddle's GatewayClass and XMesh carry; MeshLabel enrols a namespace.
const (
	Controller = "heddle.dev/controller"
	MeshLabel  = "heddle.dev/mesh=enabled"
)

// Run is one run of the suite.
type Run struct {
	Bed *bed.Bed
	// Out is the folder for report.yaml and raw.log.
	Out string
	// Profiles to run; empty is those whose core features are all claimed.
	Profiles []string
	// Only is a single test.
	Only string
	// Extra runs the tests that the suite lacks as well, after it.
	Extra bool
	// Bare says that nothing is installed: every mesh feature is put to the test, with short time limits.
	Bare bool
	// Implementation is what the report says about who ran.
	Implementation Implementation
}

// Implementation names the project in the report.
type Implementation struct{ Organization, Project, URL, Version, Contact string }

// The whole suite takes a quarter of an hour on a quiet machine.
const suiteTimeout = "90m"

// With nothing installed most tests end by running into a limit; what is not there will not come.
const bareLimits = "MaxTimeToConsistency:2;RequestTimeout:2;HTTPRouteMustHaveCondition:2;RouteMustHaveParents:2;" +
	"DefaultTestTimeout:10;LatestObservedGenerationSet:2;NamespacesMustBeReady:240"

// Do runs the suite and judges it. The error says that the suite could not run; a bad outcome is no error.
func (r Run) Do() (Outcome, error) {
	if err := os.MkdirAll(r.Out, 0o755); err != nil {
		return Outcome{}, err
	}
	catalogue, err := r.catalogue()
	if err != nil {
		return Outcome{}, err
	}
	claims, flags, err := r.claims(catalogue)
	if err != nil {
		return Outcome{}, err
	}
	report := filepath.Join(r.Out, "report.yaml")
	if err := os.Remove(report); err != nil && !os.IsNotExist(err) {
		return Outcome{}, err
	}
	claims.Extra = r.Extra
	flags = append(flags, "-test.v", "-test.timeout="+suiteTimeout, "--namespace-labels="+MeshLabel)
	if r.Only != "" {
		flags = append(flags, "--run-test="+r.Only)
	}
	// First, since the suite takes away the base that both stand on, and does not wait until it is gone.
	extra, err := r.extra(catalogue, flags)
	if err != nil {
		return Outcome{}, err
	}
	if slices.ContainsFunc(catalogue.Tests, func(test Test) bool { return test.Extra && test.Name == r.Only }) {
		return Judge(catalogue, claims, extra), nil
	}
	flags = append(flags,
		"-test.run=^TestConformance$",
		"--conformance-profiles="+strings.Join(claims.Profiles, ","),
		"--report-output="+report,
		"--organization="+r.Implementation.Organization, "--project="+r.Implementation.Project,
		"--url="+r.Implementation.URL, "--version="+r.Implementation.Version, "--contact="+r.Implementation.Contact,
	)
	rawLog := filepath.Join(r.Out, "raw.log")
	ran := r.suite(rawLog, flags)
	text, err := os.ReadFile(rawLog)
	if err != nil {
		return Outcome{}, err
	}
	results := Read(string(text))
	if len(results) == 0 {
		return Outcome{}, fmt.Errorf("the suite ran no test (%v); the end of %s:\n%s", ran, rawLog, end(string(text), 15))
	}
	maps.Copy(results, extra)
	outcome := Judge(catalogue, claims, results)
	if ran != nil && outcome.Conformant() {
		return outcome, fmt.Errorf("every claimed test passed, but the suite itself failed (%w): see %s", ran, rawLog)
	}
	return outcome, nil
}

// extra runs what the suite lacks, if that is wanted, and leaves the suite's base in place.
func (r Run) extra(catalogue Catalogue, flags []string) (map[string]Result, error) {
	ours := func(test Test) bool { return test.Extra && (r.Only == "" || r.Only == test.Name) }
	if r.Bare || !slices.ContainsFunc(catalogue.Tests, ours) || (!r.Extra && r.Only == "") {
		return nil, nil
	}
	log := filepath.Join(r.Out, "extra.log")
	ran := r.suite(log, append(slices.Clone(flags), "-test.run=^TestExtra$", "--cleanup-base-resources=false"))
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	results := Read(string(text))
	if len(results) == 0 {
		return nil, fmt.Errorf("no test that the suite lacks was run (%v); the end of %s:\n%s", ran, log, end(string(text), 15))
	}
	return results, nil
}

// suite runs in node1's network: Gateways and Services are dialled from there, as a client on a node would.
func (r Run) suite(rawLog string, flags []string) error {
	log, err := os.Create(rawLog)
	if err != nil {
		return err
	}
	defer log.Close()
	command, err := r.Bed.Command(node.Name(1), true, append([]string{r.program()}, flags...)...)
	if err != nil {
		return err
	}
	command.Env = append(os.Environ(), "KUBECONFIG="+r.Bed.Kubeconfig())
	command.Stdout, command.Stderr = log, log
	return command.Run()
}

func (r Run) catalogue() (Catalogue, error) {
	var catalogue Catalogue
	file := filepath.Join(r.Out, "catalogue.json")
	command := exec.Command(r.program(), "-test.run=^TestCatalogue$")
	command.Env = append(os.Environ(), "CATALOGUE="+file)
	if out, err := command.CombinedOutput(); err != nil {
		return catalogue, fmt.Errorf("catalogue of the suite: %w\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return catalogue, err
	}
	return catalogue, json.Unmarshal(text, &catalogue)
}

func (r Run) program() string { return filepath.Join(r.Bed.Bin, "conformance.test") }

// claims are what the cluster's own GatewayClass and XMesh say in their status, or, with nothing installed,
// everything about meshes. The flags tell the suite the same.
func (r Run) claims(catalogue Catalogue) (Claims, []string, error) {
	if r.Bare {
		claims := Claims{Profiles: []string{"MESH-HTTP", "MESH-GRPC"}, Only: r.Only}
		for _, test := range catalogue.Tests {
			if slices.Contains(test.Features, "Mesh") {
				claims.Features = append(claims.Features, test.Features...)
			}
		}
		slices.Sort(claims.Features)
		claims.Features = slices.Compact(claims.Features)
		return claims, []string{"--supported-features=" + strings.Join(claims.Features, ","),
			"--timeout-config-overrides=" + bareLimits}, nil
	}
	client, err := r.Bed.API()
	if err != nil {
		return Claims{}, nil, err
	}
	class, gateway, err := claimed(client, "/apis/gateway.networking.k8s.io/v1/gatewayclasses")
	if err != nil {
		return Claims{}, nil, err
	}
	mesh, meshes, err := claimed(client, "/apis/gateway.networking.x-k8s.io/v1alpha1/xmeshes")
	if err != nil {
		return Claims{}, nil, err
	}
	claims := Claims{Features: append(gateway, meshes...), Profiles: r.Profiles, Only: r.Only}
	if len(claims.Features) == 0 {
		return claims, nil, fmt.Errorf("neither a GatewayClass nor an XMesh of %s claims a feature in its status", Controller)
	}
	if len(claims.Profiles) == 0 {
		for _, profile := range catalogue.Profiles {
			if all(profile.Core, func(feature string) bool { return slices.Contains(claims.Features, feature) }) {
				claims.Profiles = append(claims.Profiles, profile.Name)
			}
		}
	}
	return claims, []string{"--gateway-class=" + class, "--mesh-name=" + mesh,
		// For the test of a Gateway's static addresses: one the allocator gives, one that no network here has.
		"--usable-address=" + addr.Nth(r.Bed.Plan.Balancer[0], usable).String(),
		"--unusable-address=" + map[bool]string{true: "203.0.113.13", false: "2001:db8::13"}[r.Bed.Plan.Balancer[0].Addr().Is4()]}, nil
}

// usable is far from the addresses that are given out in turn.
const usable = 200

// claimed reads the features in the status of our object of a kind, and the object's name.
func claimed(client *api.Client, path string) (string, []string, error) {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ ControllerName string }
			Status   struct{ SupportedFeatures []struct{ Name string } }
		}
	}
	if err := client.Get(path, &list); errors.Is(err, api.ErrNotFound) {
		return "", nil, nil
	} else if err != nil {
		return "", nil, err
	}
	for _, item := range list.Items {
		if item.Spec.ControllerName != Controller {
			continue
		}
		var features []string
		for _, feature := range item.Status.SupportedFeatures {
			features = append(features, feature.Name)
		}
		return item.Metadata.Name, features, nil
	}
	return "", nil, nil
}

func end(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return strings.Join(lines, "\n")
}
