package cluster

import (
	"encoding/json"
	"fmt"
	"strings"

	"heddle.test/cluster/internal/programs"
)

// Pod is one pod that runs the probe, which is server and client at once.
type Pod struct {
	Namespace string
	Name      string
	c         *Cluster
}

// Answer is what a server sent back.
type Answer struct {
	Status  int
	Headers map[string]string
	Body    string
	Millis  int64
}

// Probe starts a pod that serves on port 8080, on a node (empty is any), and waits until it is Ready.
func (c *Cluster) Probe(namespace, name, node string, labels ...string) Pod {
	c.t.Helper()
	return c.ProbeAs(namespace, name, node, "default", labels...)
}

// ProbeAs is Probe with a ServiceAccount.
func (c *Cluster) ProbeAs(namespace, name, node, account string, labels ...string) Pod {
	c.t.Helper()
	all := append([]string{"probe: " + name}, labels...)
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {%s}}
spec:
  %s
  serviceAccountName: %s
  terminationGracePeriodSeconds: 1
  containers:
  - name: probe
    image: %s
    imagePullPolicy: IfNotPresent
    args: [serve]
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
`, name, namespace, strings.Join(all, ", "), onNode(node), account, programs.ProbeImage))
	pod := Pod{Namespace: namespace, Name: name, c: c}
	pod.WaitReady()
	return pod
}

// PodOn is the running pod with a label on a node; there must be just one.
func (c *Cluster) PodOn(namespace, selector, node string) Pod {
	c.t.Helper()
	names := strings.Fields(c.Kubectl("-n", namespace, "get", "pods", "-l", selector,
		"--field-selector", "spec.nodeName="+node+",status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(names) != 1 {
		c.t.Fatalf("pods %s on %s: %v, want one", selector, node, names)
	}
	return Pod{Namespace: namespace, Name: names[0], c: c}
}

func onNode(node string) string {
	if node == "" {
		return "enableServiceLinks: false"
	}
	return "nodeSelector: {kubernetes.io/hostname: " + node + "}"
}

// WaitReady waits until the pod's Ready condition is true.
func (p Pod) WaitReady() {
	p.c.t.Helper()
	p.c.Eventually("pod "+p.Name+" is ready", func() error {
		out, err := p.c.TryKubectl("-n", p.Namespace, "get", "pod", p.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("its Ready condition is %q", out)
		}
		return err
	})
}

// IPs are the pod's addresses, one per family.
func (p Pod) IPs() []string {
	p.c.t.Helper()
	var pod struct {
		Status struct{ PodIPs []struct{ IP string } }
	}
	p.c.Get(&pod, "-n", p.Namespace, "pod", p.Name)
	var ips []string
	for _, entry := range pod.Status.PodIPs {
		ips = append(ips, entry.IP)
	}
	if len(ips) != p.c.Families() {
		p.c.t.Fatalf("pod %s has addresses %v in a bed of %d families", p.Name, ips, p.c.Families())
	}
	return ips
}

// Exec runs a command in the pod.
func (p Pod) Exec(args ...string) (string, error) {
	return p.c.TryKubectl(append([]string{"-n", p.Namespace, "exec", p.Name, "--"}, args...)...)
}

// Logs is what the pod wrote.
func (p Pod) Logs() string {
	p.c.t.Helper()
	return p.c.Kubectl("-n", p.Namespace, "logs", p.Name)
}

// Curl asks a URL from inside the pod; extra arguments go to the probe.
func (p Pod) Curl(url string, args ...string) (Answer, error) {
	out, err := p.Exec(append(append([]string{"/probe", "get"}, args...), url)...)
	return answer(url, out, err)
}

// Reaches curls until a 200 comes back.
func (p Pod) Reaches(url string) Answer {
	p.c.t.Helper()
	var got Answer
	p.c.Eventually(p.Name+" reaches "+url, func() error {
		var err error
		got, err = p.Curl(url)
		if err == nil && got.Status != 200 {
			err = fmt.Errorf("status %d", got.Status)
		}
		return err
	})
	return got
}

func answer(url, out string, err error) (Answer, error) {
	var got Answer
	if err != nil {
		return got, fmt.Errorf("curl %s: %w %s", url, err, strings.TrimSpace(out))
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return got, fmt.Errorf("curl %s: %w in %q", url, err, out)
	}
	return got, nil
}
