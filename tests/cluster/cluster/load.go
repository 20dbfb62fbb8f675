package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"heddle.test/cluster/internal/programs"
)

// Servers are the pods of one Deployment that answer every kind of load, and the Service in front of them.
type Servers struct {
	Namespace string
	Name      string
	c         *Cluster
}

// Ports of the Service of Servers, by what they speak.
const (
	PortWeb  = "80"
	PortH2   = "81"
	PortGRPC = "82"
	PortTCP  = "83"
)

// Servers starts replicas that are spread over the nodes, and waits until all are Ready. They are well-behaved:
// told to end they serve on for some seconds, until nobody should send them anything more.
func (c *Cluster) Servers(namespace, name string, replicas int) Servers {
	c.t.Helper()
	c.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - name: load
        image: %[4]s
        imagePullPolicy: IfNotPresent
        args: [serve]
        ports: [{containerPort: 8080}, {containerPort: 9090}, {containerPort: 7070}]
        # A busy machine must not make a server unready that serves.
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 10}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ipFamilyPolicy: PreferDualStack
  ports:
  - {name: web, port: 80, targetPort: 8080, appProtocol: http}
  - {name: h2, port: 81, targetPort: 8080, appProtocol: kubernetes.io/h2c}
  - {name: grpc, port: 82, targetPort: 9090, appProtocol: grpc}
  - {name: bytes, port: 83, targetPort: 7070, appProtocol: tcp}
`, name, namespace, replicas, programs.LoadImage))
	servers := Servers{Namespace: namespace, Name: name, c: c}
	servers.WaitReady()
	return servers
}

// ScaleTo asks for another number of replicas and waits until it is so, terminating pods included.
func (s Servers) ScaleTo(replicas int) {
	s.c.t.Helper()
	s.c.Kubectl("-n", s.Namespace, "scale", "deployment", s.Name, fmt.Sprintf("--replicas=%d", replicas))
	s.WaitReady()
	s.count(replicas)
}

func (s Servers) count(replicas int) {
	s.c.t.Helper()
	s.c.EventuallyWithin(5*time.Minute, fmt.Sprintf("%s has just %d pods", s.Name, replicas), func() error {
		names := s.Pods()
		if len(names) != replicas {
			return fmt.Errorf("there are %d pods", len(names))
		}
		return nil
	})
}

// Restart replaces all pods in turn and waits until the last of the old ones is gone.
func (s Servers) Restart() {
	s.c.t.Helper()
	before := len(s.Pods())
	s.c.Rollout(s.Namespace, "deployment/"+s.Name)
	s.count(before)
}

// WaitReady waits for the Deployment's own word.
func (s Servers) WaitReady() {
	s.c.t.Helper()
	s.c.RolledOut(s.Namespace, "deployment/"+s.Name)
}

// NoneIsReady waits until the control plane calls no server ready.
func (s Servers) NoneIsReady() {
	s.c.t.Helper()
	s.c.Eventually("no endpoint of "+s.Name+" is ready", func() error {
		out, err := s.c.TryKubectl("-n", s.Namespace, "get", "endpointslices", "-l", "kubernetes.io/service-name="+s.Name,
			"-o", "jsonpath={.items[*].endpoints[*].conditions.ready}")
		if err == nil && strings.Contains(out, "true") {
			err = fmt.Errorf("ready are %s", out)
		}
		return err
	})
}

// Pods are the names of all pods there are, also of those that end.
func (s Servers) Pods() []string {
	out, err := s.c.TryKubectl("-n", s.Namespace, "get", "pods", "-l", "app="+s.Name, "-o", "jsonpath={.items[*].metadata.name}")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

// On is the running server on a node; there must be just one.
func (s Servers) On(node string) Pod {
	s.c.t.Helper()
	return s.c.PodOn(s.Namespace, "app="+s.Name, node)
}

// Addresses are the Service's cluster IPs, one per family.
func (s Servers) Addresses() []string {
	s.c.t.Helper()
	var service struct{ Spec struct{ ClusterIPs []string } }
	s.c.Get(&service, "-n", s.Namespace, "service", s.Name)
	return service.Spec.ClusterIPs
}

// Load is a pod that asks without pause, and the words that its requests and answers carry.
type Load struct {
	Pod
	Word    string
	started time.Time
	servers Servers
}

// Rate is the requests a second of each of the four kinds that ask (h1, h1-new, h2, grpc); the four byte
// streams send twenty frames a second each. BED_RATE changes it for a machine that is busy with other work.
var Rate = rate()

func rate() int {
	if n, err := strconv.Atoi(os.Getenv("BED_RATE")); err == nil && n > 0 {
		return n
	}
	return 60
}

// Load starts a driver on a node that asks the Service of servers by its address (so that a name server's
// failures are not counted), waits until every kind of load is answered, and begins to count.
func (c *Cluster) Load(node string, servers Servers) *Load {
	c.t.Helper()
	return c.LoadFrom(servers.Namespace, node, servers)
}

// LoadFrom is Load with the driver in another namespace.
func (c *Cluster) LoadFrom(namespace, node string, servers Servers) *Load {
	c.t.Helper()
	return c.load(namespace, node, servers, NewWord())
}

// NewWord is one that nobody else says.
func NewWord() string { return fmt.Sprintf("plain-%x", time.Now().UnixNano()) }

func (c *Cluster) load(namespace, node string, servers Servers, word string) *Load {
	c.t.Helper()
	address := servers.Addresses()[0]
	name := fmt.Sprintf("load-%x", time.Now().UnixNano()&0xffffff)
	at := func(port string) string { return net.JoinHostPort(address, port) }
	args, err := json.Marshal([]string{"drive", "-web", at(PortWeb), "-h2", at(PortH2), "-grpc", at(PortGRPC), "-tcp", at(PortTCP),
		"-host", servers.Name + "." + servers.Namespace, "-rate", fmt.Sprint(Rate), "-streams", fmt.Sprint(Streams), "-marker", word})
	if err != nil {
		c.t.Fatal(err)
	}
	load := &Load{Pod: c.loadPod(namespace, name, node, string(args)), Word: word, servers: servers}
	load.Settle()
	load.started = load.Report().Started
	return load
}

// loadPod starts a pod that runs the load program with these arguments, a YAML list, and waits until it is Ready.
func (c *Cluster) loadPod(namespace, name, node, args string) Pod {
	c.t.Helper()
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: driver}}
spec:
  %s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: load, image: %q, imagePullPolicy: IfNotPresent, args: %s}
`, name, namespace, onNode(node), programs.LoadImage, args))
	pod := Pod{Namespace: namespace, Name: name, c: c}
	pod.WaitReady()
	return pod
}

// Report is what a driver counted.
type Report struct {
	Started, Began, Now time.Time
	Kinds               map[string]Kind
}

// Kind is one kind of load; the fields are explained in programs/load/report.go.
type Kind struct {
	Sent, OK, Failed, Retried, Opened, Goodbyes int
	GapMillis, P50Micros, P99Micros, MaxMicros  int64
	Backends, Messages                          map[string]int
	Failures                                    []struct {
		At      time.Time
		Millis  int64
		Message string
	}
}

// Failed is the sum over all kinds.
func (r Report) Failed() int {
	sum := 0
	for _, kind := range r.Kinds {
		sum += kind.Failed
	}
	return sum
}

// Sent is the sum over all kinds.
func (r Report) Sent() int {
	sum := 0
	for _, kind := range r.Kinds {
		sum += kind.Sent
	}
	return sum
}

// Silence is the longest time that any kind got no good answer.
func (r Report) Silence() time.Duration {
	var longest int64
	for _, kind := range r.Kinds {
		longest = max(longest, kind.GapMillis)
	}
	return time.Duration(longest) * time.Millisecond
}

// String is the report for a person.
func (r Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%-7s %6s %6s %6s %7s %5s %4s %7s %8s %8s  %s", "kind", "sent", "ok", "failed", "retried", "open", "bye", "gap ms", "p50 ms", "p99 ms", "answers by pod")
	var kinds []string
	for kind := range r.Kinds {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, name := range kinds {
		k := r.Kinds[name]
		fmt.Fprintf(&text, "\n%-7s %6d %6d %6d %7d %5d %4d %7d %8.2f %8.2f  %v", name, k.Sent, k.OK, k.Failed, k.Retried, k.Opened, k.Goodbyes,
			k.GapMillis, float64(k.P50Micros)/1000, float64(k.P99Micros)/1000, k.Backends)
	}
	for _, name := range kinds {
		k := r.Kinds[name]
		for message, count := range k.Messages {
			fmt.Fprintf(&text, "\n  %s: %d x %s", name, count, message)
		}
		for i, failure := range k.Failures {
			if i == 5 {
				break
			}
			fmt.Fprintf(&text, "\n  %s at %s after %d ms: %s", name, failure.At.Format("15:04:05.000"), failure.Millis, failure.Message)
		}
	}
	return text.String()
}

// Report asks the driver; it tries for a while, since the way there may be what the story disturbs.
func (l *Load) Report() Report { l.c.t.Helper(); return l.tell("report") }

// Reset forgets all that was counted: the story counts from here.
func (l *Load) Reset() { l.c.t.Helper(); l.tell("reset") }

// Mark changes the word that requests and answers carry from now on.
func (l *Load) Mark(word string) {
	l.c.t.Helper()
	l.tell("mark", word)
	l.Word = word
}

// Renew has the byte streams end by themselves, in good order, and begin anew.
func (l *Load) Renew() { l.c.t.Helper(); l.tell("renew") }

func (l *Load) tell(args ...string) Report {
	l.c.t.Helper()
	var report Report
	l.c.Eventually("the driver says what it counted", func() error {
		out, err := l.Exec(append([]string{"/load"}, args...)...)
		if err != nil {
			return err
		}
		report = Report{}
		return json.Unmarshal([]byte(out), &report)
	})
	if !l.started.IsZero() && !report.Started.Equal(l.started) {
		l.c.t.Fatalf("driver %s was started again, what it had counted is lost", l.Name)
	}
	return report
}

// Settle waits until every kind of load has been answered for a second without a failure, and counts anew.
func (l *Load) Settle() {
	l.c.t.Helper()
	l.c.Eventually("every kind of load is answered", func() error {
		l.tell("reset")
		time.Sleep(time.Second)
		report := l.tell("report")
		for name, kind := range report.Kinds {
			if kind.Failed > 0 || kind.OK < 10 {
				return fmt.Errorf("%s is not:\n%s", name, report)
			}
		}
		return nil
	})
	l.tell("reset")
}

// Runs lets the load go on for a while: the time in which nothing may fail.
func (l *Load) Runs(length time.Duration) { time.Sleep(length) }

// NothingFailed ends the count: a request or a stream that failed fails the story. Each story says it under
// its own name, so that a run of many is a table.
func (l *Load) NothingFailed(during string) Report {
	l.c.t.Helper()
	return l.AtMostFailed(during, 0)
}

// Streams is how many long byte streams a driver keeps open.
const Streams = 4

// unnoticed is how long a client that shares connections may go on writing to one that is dead already: the
// kernel must close what a killed process held, and the client must be told.
const unnoticed = 500 * time.Millisecond

// OnlyWhatWasHeldFailed is NothingFailed for the sudden end of a process: what it held at that moment dies with
// it, and nothing that began later may. A byte stream may notice late, so streams are counted: one failure each.
func (l *Load) OnlyWhatWasHeldFailed(during string, moment time.Time) Report {
	l.c.t.Helper()
	report := l.Report()
	held, late := 0, 0
	for name, kind := range report.Kinds {
		if name == "tcp" {
			held += min(kind.Failed, Streams)
			late += max(kind.Failed-Streams, 0)
			continue
		}
		began := 0
		for _, failure := range kind.Failures {
			if failure.At.Before(moment.Add(unnoticed)) {
				began++
			}
		}
		held += began
		late += kind.Failed - began
	}
	verdict := "ok"
	if late > 0 {
		verdict = "FAILED"
		l.c.t.Errorf("%d that began after %s failed during %s:\n%s", late, moment.UTC().Format("15:04:05.000"), during, report)
	} else {
		l.c.t.Logf("during %s:\n%s", during, report)
	}
	l.c.t.Logf("VERDICT load | %s | sent %d | failed %d (were held: %d, began later: %d) | longest silence %s | over %s | %s", during, report.Sent(),
		report.Failed(), held, late, report.Silence(), report.Now.Sub(report.Began).Round(100*time.Millisecond), verdict)
	return report
}

// NoRequestFailed is NothingFailed for the orderly end of a proxy: requests move to the next one, but a byte
// stream that outlives the time to drain cannot, and ends. So each stream may end once for every proxy on its way.
func (l *Load) NoRequestFailed(during string, proxies int) Report {
	l.c.t.Helper()
	report := l.Report()
	streams := report.Kinds["tcp"].Failed
	requests := report.Failed() - streams
	verdict := "ok"
	if requests > 0 || streams > proxies*Streams {
		verdict = "FAILED"
		l.c.t.Errorf("%d requests and %d streams failed during %s:\n%s", requests, streams, during, report)
	} else {
		l.c.t.Logf("during %s:\n%s", during, report)
	}
	l.c.t.Logf("VERDICT load | %s | sent %d | failed %d (streams that outlived the drain: %d) | longest silence %s | over %s | %s", during, report.Sent(),
		requests, streams, report.Silence(), report.Now.Sub(report.Began).Round(100*time.Millisecond), verdict)
	return report
}

// AtMostFailed is NothingFailed for what cannot be without loss; the story must say why.
func (l *Load) AtMostFailed(during string, limit int) Report {
	l.c.t.Helper()
	report := l.Report()
	verdict := "ok"
	if report.Failed() > limit {
		verdict = "FAILED"
		l.c.t.Errorf("%d of %d failed during %s, at most %d may:\n%s", report.Failed(), report.Sent(), during, limit, report)
	} else {
		l.c.t.Logf("during %s:\n%s", during, report)
	}
	l.c.t.Logf("VERDICT load | %s | sent %d | failed %d (allowed %d) | longest silence %s | over %s | %s", during, report.Sent(), report.Failed(), limit,
		report.Silence(), report.Now.Sub(report.Began).Round(100*time.Millisecond), verdict)
	for name, kind := range report.Kinds {
		if kind.OK == 0 {
			l.c.t.Errorf("no answer at all to %s during %s", name, during)
		}
	}
	return report
}
