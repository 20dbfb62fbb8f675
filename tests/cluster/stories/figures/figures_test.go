//go:build figures

// Package figures measures Heddle on the bed that BED names and prints one table; the table belongs into
// SPECIFICATION.md, with the machine and the build it was made with. It judges nothing. Run it on a quiet machine:
// make bed-figures
package figures

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"heddle.test/cluster/cluster"
	"heddle.test/cluster/internal/programs"
)

// How often each thing is measured; percentiles of fewer would say little.
const (
	podRounds   = 20
	labelRounds = 10
	routeRounds = 100
	routes      = 1000
	pods        = 100
)

func TestFigures(t *testing.T) {
	c := cluster.Use(t)
	c.MeshReady()
	table := &table{t: t}
	t.Cleanup(table.print)
	table.usage(c, "idle, no meshed pod")
	podStart(c, table)
	labelled(c, table)
	routed(t, c, table, 0)
	routed(t, c, table, routes)
	crowd(c, table)
}

// podStart is the time from the API server's word that the pod exists to the first line of its program, with and
// without the mesh: what the plugin's ADD adds is the difference.
func podStart(c *cluster.Cluster, table *table) {
	var medians [2]time.Duration
	for i, labels := range [][]string{nil, {cluster.Enabled}} {
		ns := c.Namespace("start", labels...)
		var took []time.Duration
		for round := range podRounds {
			name := fmt.Sprintf("one-%d", round)
			path := "/api/v1/namespaces/" + ns + "/pods"
			began := time.Now()
			if err := c.API().Create(path, map[string]any{
				"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name},
				"spec": map[string]any{"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": []any{map[string]any{
					"name": "load", "image": programs.LoadImage, "imagePullPolicy": "IfNotPresent", "args": []string{"changes", "-web", "127.0.0.1:1", "-pause", "1h"}}}},
			}); err != nil {
				table.t.Fatal(err)
			}
			var at time.Time
			c.Eventually("the pod's program has begun", func() error {
				out, err := c.TryKubectl("-n", ns, "logs", name)
				fields := strings.Fields(out)
				if err != nil || len(fields) < 2 {
					return fmt.Errorf("no line yet: %v", err)
				}
				nanos, err := strconv.ParseInt(fields[1], 10, 64)
				at = time.Unix(0, nanos)
				return err
			})
			took = append(took, at.Sub(began))
			c.Kubectl("-n", ns, "delete", "pod", name, "--wait=true")
		}
		slices.Sort(took)
		medians[i] = took[len(took)/2]
		table.row("pod created → its program runs, "+map[int]string{0: "not meshed", 1: "meshed"}[i], percentiles(took))
	}
	table.row("what the mesh adds to a pod's start (difference of the medians)", ms(medians[1]-medians[0]))
}

// labelled is the time from the API server's word that the namespace has its label to the last new connection in
// the clear; sixty connections a second are made.
func labelled(c *cluster.Cluster, table *table) {
	ns := c.Namespace("label")
	scene := cluster.Scene{Cluster: c, Namespace: ns, Servers: c.Servers(ns, "echo", 2), Watch: c.Watch()}
	scene.Load = c.Load("node1", scene.Servers)
	var on, off []time.Duration
	for range labelRounds {
		word := cluster.NewWord()
		scene.Load.Mark(word)
		scene.Watch.Also(word + ".h1-new")
		time.Sleep(500 * time.Millisecond)
		scene.Watch.Forget()
		began := time.Now()
		label(c, ns, "enabled")
		scene.Captured(true)
		if last := scene.Watch.Last(); last.After(began) {
			on = append(on, last.Sub(began))
		} else {
			on = append(on, 0)
		}
		began = time.Now()
		label(c, ns, nil)
		scene.Captured(false)
		off = append(off, time.Since(began))
	}
	table.row("label of a namespace → last new connection in the clear", percentiles(on))
	table.row("label taken away → new connections in the clear again (to 0.3 s)", percentiles(off))
	table.row("requests that failed meanwhile", fmt.Sprint(scene.Load.Report().Failed()))
}

func label(c *cluster.Cluster, ns string, value any) {
	patch := map[string]any{"metadata": map[string]any{"labels": map[string]any{cluster.MeshLabel: value}}}
	if err := c.API().MergePatch("/api/v1/namespaces/"+ns, patch); err != nil {
		panic(err)
	}
}

// routed is the time from sending a change of a route to the API server to the first answer that was routed by it.
func routed(t *testing.T, c *cluster.Cluster, table *table, others int) {
	ns := c.Namespace("routes", cluster.Enabled)
	servers := c.Servers(ns, "echo", 2)
	api := c.API()
	path := "/apis/gateway.networking.k8s.io/v1/namespaces/" + ns + "/httproutes"
	before := len(statusWrites(c, ns))
	for i := range others {
		if i%10 == 0 {
			if err := api.Create("/api/v1/namespaces/"+ns+"/services", map[string]any{"apiVersion": "v1", "kind": "Service",
				"metadata": map[string]any{"name": fmt.Sprintf("other-%d", i/10)},
				"spec":     map[string]any{"selector": map[string]any{"app": "echo"}, "ports": []any{map[string]any{"port": 80, "targetPort": 8080, "appProtocol": "http"}}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := api.Create(path, route(fmt.Sprintf("other-%d", i), fmt.Sprintf("other-%d", i/10), fmt.Sprintf("/path-%d", i), "0")); err != nil {
			t.Fatal(err)
		}
	}
	if err := api.Create(path, route("watched", "echo", "/", "first")); err != nil {
		t.Fatal(err)
	}
	address := servers.Addresses()[0]
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: %s}
spec:
  nodeSelector: {kubernetes.io/hostname: node1}
  terminationGracePeriodSeconds: 0
  containers:
  - {name: load, image: %q, imagePullPolicy: IfNotPresent, args: [changes, -web, %q, -host, echo.%s]}
`, ns, programs.LoadImage, cluster.URL(address, "80")[len("http://"):len(cluster.URL(address, "80"))-1], ns))
	asker := c.PodNamed(ns, "asker")
	asker.WaitReady()
	c.EventuallyWithin(5*time.Minute, "the first route is in use", func() error {
		if !strings.Contains(asker.Logs(), "first ") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	sent, accepted := map[string]time.Time{}, map[string]time.Time{}
	for round := range routeRounds {
		value := fmt.Sprintf("round-%d", round)
		sent[value] = time.Now()
		if err := api.MergePatch(path+"/watched", map[string]any{"spec": route("watched", "echo", "/", value)["spec"]}); err != nil {
			t.Fatal(err)
		}
		accepted[value] = time.Now()
		time.Sleep(150 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	var fromSent, fromAccepted []time.Duration
	for _, line := range strings.Split(asker.Logs(), "\n") {
		value, rest, _ := strings.Cut(line, " ")
		began, ours := sent[value]
		nanos, err := strconv.ParseInt(rest, 10, 64)
		if !ours || err != nil {
			continue
		}
		at := time.Unix(0, nanos)
		fromSent = append(fromSent, at.Sub(began))
		fromAccepted = append(fromAccepted, max(at.Sub(accepted[value]), 0))
	}
	if len(fromSent) < routeRounds {
		table.row(fmt.Sprintf("changes of a route that were overtaken by the next, of %d", routeRounds), fmt.Sprint(routeRounds-len(fromSent)))
	}
	slices.Sort(fromSent)
	slices.Sort(fromAccepted)
	with := fmt.Sprintf(", %d other routes", others)
	table.row("change of a route sent → first request routed by it"+with, percentiles(fromSent))
	table.row("change of a route accepted by the API server → first request routed by it"+with, percentiles(fromAccepted))
	if others > 0 {
		time.Sleep(5 * time.Second)
		writes := len(statusWrites(c, ns)) - before
		changes := others + 1 + routeRounds
		table.row(fmt.Sprintf("status writes for %d changes of routes", changes), fmt.Sprintf("%d (%.2f each)", writes, float64(writes)/float64(changes)))
		table.usage(c, fmt.Sprintf("%d routes", others))
	}
	c.Kubectl("delete", "namespace", ns, "--wait=true")
}

func route(name, service, path, value string) map[string]any {
	return map[string]any{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"parentRefs": []any{map[string]any{"group": "", "kind": "Service", "name": service, "port": 80}},
			"rules": []any{map[string]any{
				"matches":     []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": path}}},
				"filters":     []any{map[string]any{"type": "ResponseHeaderModifier", "responseHeaderModifier": map[string]any{"set": []any{map[string]any{"name": "Round", "value": value}}}}},
				"backendRefs": []any{map[string]any{"name": service, "port": 80}},
			}}}}
}

// statusWrites are the lines of the audit log in which the controller wrote the status of an HTTPRoute of a namespace.
func statusWrites(c *cluster.Cluster, ns string) []string {
	var found []string
	for _, line := range strings.Split(c.AuditLog(), "\n") {
		if strings.Contains(line, `"resource":"httproutes"`) && strings.Contains(line, `"subresource":"status"`) &&
			strings.Contains(line, `"namespace":"`+ns+`"`) && strings.Contains(line, `serviceaccount:heddle-system:mesh-controller"`) {
			found = append(found, line)
		}
	}
	return found
}

// crowd is what a proxy costs with many pods of its own.
func crowd(c *cluster.Cluster, table *table) {
	ns := c.Namespace("crowd", cluster.Enabled)
	servers := c.Servers(ns, "echo", 1)
	began := time.Now()
	servers.ScaleTo(pods)
	table.row(fmt.Sprintf("scale 1 → %d meshed pods on two nodes, all ready", pods), time.Since(began).Round(100*time.Millisecond).String())
	time.Sleep(10 * time.Second)
	table.usage(c, fmt.Sprintf("%d meshed pods, idle", pods))
	load := c.Load("node1", servers)
	table.usage(c, fmt.Sprintf("%d meshed pods, 320 requests and frames a second", pods))
	report := load.Report()
	for _, kind := range []string{"h1", "h1-new", "h2", "grpc"} {
		k := report.Kinds[kind]
		table.row("latency of "+kind+" under that load", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, failed %d", float64(k.P50Micros)/1000, float64(k.P99Micros)/1000, k.Failed))
	}
}

type table struct {
	t    *testing.T
	rows [][2]string
}

func (t *table) row(what, value string) {
	t.t.Logf("%s: %s", what, value)
	t.rows = append(t.rows, [2]string{what, value})
}

// usage is the resident memory of every program of the mesh, and its processor time over ten seconds.
func (t *table) usage(c *cluster.Cluster, when string) {
	for _, program := range []string{"mesh-proxy", "mesh-controller", "mesh-cni"} {
		var texts []string
		for _, node := range c.Nodes() {
			for _, usage := range c.Node(node).Usage(program, 10*time.Second) {
				texts = append(texts, fmt.Sprintf("%s %.1f MiB %.1f %%", node, usage.MiB, usage.Percent))
			}
		}
		t.row(program+", "+when, strings.Join(texts, "; "))
	}
}

func (t *table) print() {
	var text strings.Builder
	text.WriteString("| what | measured |\n|---|---|\n")
	for _, row := range t.rows {
		fmt.Fprintf(&text, "| %s | %s |\n", row[0], row[1])
	}
	t.t.Logf("\n%s", text.String())
	if file := os.Getenv("FIGURES"); file != "" {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.t.Error(err)
		}
	}
}

func percentiles(took []time.Duration) string {
	if len(took) == 0 {
		return "nothing was measured"
	}
	slices.Sort(took)
	return fmt.Sprintf("p50 %s, p99 %s, of %d", ms(took[len(took)/2]), ms(took[len(took)*99/100]), len(took))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000) }
