package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"heddle.test/cluster/internal/node"
	"heddle.test/cluster/internal/plane"
)

var errNotSeen = errors.New("nothing seen")

// System is the namespace that Heddle lives in; MeshLabel enrols a namespace.
const (
	System    = "heddle-system"
	MeshLabel = "heddle.dev/mesh"
	Enabled   = MeshLabel + "=enabled"
)

// Label gives labels to a namespace.
func (c *Cluster) Label(namespace string, labels ...string) {
	c.t.Helper()
	c.Kubectl(append([]string{"label", "--overwrite", "namespace", namespace}, labels...)...)
}

// Unlabel takes a label from a namespace.
func (c *Cluster) Unlabel(namespace, label string) {
	c.t.Helper()
	c.Kubectl("label", "namespace", namespace, label+"-")
}

// Rollout replaces the pods of a Deployment or DaemonSet in turn and waits for the end of it.
func (c *Cluster) Rollout(namespace, what string) {
	c.t.Helper()
	c.Kubectl("-n", namespace, "rollout", "restart", what)
	c.RolledOut(namespace, what)
}

// RolledOut waits until a Deployment or DaemonSet is as it should be.
func (c *Cluster) RolledOut(namespace, what string) {
	c.t.Helper()
	c.EventuallyWithin(5*time.Minute, what+" is rolled out", func() error {
		_, err := c.TryKubectl("-n", namespace, "rollout", "status", what, "--timeout=5s")
		return err
	})
}

// MeshReady waits until controller, agents and proxies are as they should be.
func (c *Cluster) MeshReady() {
	c.t.Helper()
	for _, what := range []string{"deployment/mesh-controller", "daemonset/mesh-agent", "daemonset/mesh-proxy"} {
		c.RolledOut(System, what)
	}
}

// ScaleController asks for another number of the controller's replicas and waits until it is so.
func (c *Cluster) ScaleController(replicas int) {
	c.t.Helper()
	c.Kubectl("-n", System, "scale", "deployment/mesh-controller", fmt.Sprintf("--replicas=%d", replicas))
	c.RolledOut(System, "deployment/mesh-controller")
	c.Eventually(fmt.Sprintf("%d controllers run", replicas), func() error {
		out, err := c.TryKubectl("-n", System, "get", "pods", "-l", selector("mesh-controller"), "-o", "name")
		if err == nil && len(strings.Fields(out)) != replicas {
			err = fmt.Errorf("there are %s", strings.Fields(out))
		}
		return err
	})
}

// RestartController replaces all replicas in turn.
func (c *Cluster) RestartController() { c.t.Helper(); c.Rollout(System, "deployment/mesh-controller") }

// StopAPIServer ends the API server and keeps it down until StartAPIServer or the story's end.
func (c *Cluster) StopAPIServer() {
	c.t.Helper()
	c.hold("plane", "apiserver")
	c.Eventually("the API server is down", func() error {
		if _, err := c.TryKubectl("get", "--raw", "/readyz"); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
}

// StartAPIServer lets it run again and waits until it answers.
func (c *Cluster) StartAPIServer() {
	c.t.Helper()
	c.release("plane", "apiserver")
	c.Eventually("the API server answers", func() error {
		_, err := c.TryKubectl("get", "--raw", "/readyz")
		return err
	})
}

// hold ends a service and keeps it down until release or the story's end.
func (c *Cluster) hold(machine, service string) {
	c.t.Helper()
	if err := c.bed.Hold(machine, service, true); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = c.bed.Hold(machine, service, false) })
}

func (c *Cluster) release(machine, service string) {
	c.t.Helper()
	if err := c.bed.Hold(machine, service, false); err != nil {
		c.t.Fatal(err)
	}
}

// KillProxy sends SIGKILL to the node's proxy, as the kernel does that runs out of memory, and returns when
// another process has its place. The moment is the one just after the signal.
func (n Node) KillProxy() (moment time.Time) {
	n.c.t.Helper()
	before := n.processes("mesh-proxy", "mesh-proxy")
	if len(before) == 0 {
		n.c.t.Fatalf("no mesh-proxy of the DaemonSet runs on %s", n.Name)
	}
	n.Run(append([]string{"kill", "-KILL"}, before...)...)
	moment = time.Now()
	n.c.Eventually("another proxy runs on "+n.Name, func() error {
		now := n.processes("mesh-proxy", "mesh-proxy")
		if len(now) == 0 || now[0] == before[0] {
			return fmt.Errorf("processes %v", now)
		}
		return nil
	})
	n.c.RolledOut(System, "daemonset/mesh-proxy")
	return moment
}

// processes are the ids, on the node, of a program in the pods of the DaemonSet of that name; a pod's
// processes are known by the pod's uid in their control group's path.
func (n Node) processes(daemonset, program string) []string {
	n.c.t.Helper()
	uids, err := n.c.TryKubectl("-n", System, "get", "pods", "-l", selector(daemonset), "--field-selector", "spec.nodeName="+n.Name,
		"-o", "jsonpath={.items[*].metadata.uid}")
	if err != nil {
		return nil
	}
	var found []string
	for _, uid := range strings.Fields(uids) {
		found = append(found, n.processesOf(uid, program)...)
	}
	return found
}

// processesOf are a program's ids in the pod with this uid. A pod also has its sandbox's process, which is not the program.
func (n Node) processesOf(uid, program string) []string {
	out, _ := n.Try("sh", "-c", fmt.Sprintf(`for p in /proc/[0-9]*; do grep -qs -e %s -e %s $p/cgroup && [ "$(cat $p/comm)" = %s ] && echo ${p#/proc/}; done; true`,
		uid, strings.ReplaceAll(uid, "-", "_"), program))
	return strings.Fields(out)
}

// InNetwork runs a node's program in the network of a pod that runs the probe.
func (p Pod) InNetwork(args ...string) string {
	p.c.t.Helper()
	node, uid, _ := strings.Cut(p.c.Kubectl("-n", p.Namespace, "get", "pod", p.Name, "-o", "jsonpath={.spec.nodeName} {.metadata.uid}"), " ")
	pids := p.c.Node(node).processesOf(uid, "probe")
	if len(pids) == 0 {
		p.c.t.Fatalf("no probe of pod %s runs on %s", p.Name, node)
	}
	return p.c.Node(node).Run(append([]string{"nsenter", "-t", pids[0], "-n"}, args...)...)
}

func selector(program string) string { return "app.kubernetes.io/name=" + program }

// Conflist is the file of the CNI chain that the node's runtime takes: the first by name.
func (n Node) Conflist() (path, content string) {
	n.c.t.Helper()
	path = strings.TrimSpace(n.Run("sh", "-c", `ls /etc/cni/net.d/*.conflist /etc/cni/net.d/*.conf /etc/cni/net.d/*.json 2>/dev/null | sort | head -1`))
	return path, n.Run("cat", path)
}

// RewriteConflist writes the chain as the bed made it, as another network's installer does when it starts.
func (n Node) RewriteConflist() {
	n.c.t.Helper()
	path, _ := n.Conflist()
	file, err := n.c.bed.FileOf(n.Name, "/etc/cni/net.d/10-bridge.conflist")
	if err != nil {
		n.c.t.Fatal(err)
	}
	command, err := n.c.bed.Command(n.Name, false, "sh", "-c", "cat > "+path+".new && mv "+path+".new "+path)
	if err != nil {
		n.c.t.Fatal(err)
	}
	command.Stdin = strings.NewReader(file)
	if out, err := command.CombinedOutput(); err != nil {
		n.c.t.Fatalf("write %s on %s: %v\n%s", path, n.Name, err, out)
	}
}

// InChain says whether the mesh's plugin is the last of the node's chain.
func (n Node) InChain() bool {
	n.c.t.Helper()
	_, content := n.Conflist()
	last := strings.LastIndex(content, `"type"`)
	return last >= 0 && strings.Contains(content[last:], "mesh-cni")
}

// Meshctl runs Heddle's command for people against the bed, as the admin.
func (c *Cluster) Meshctl(args ...string) string {
	c.t.Helper()
	out, err := c.outside(meshctl(), args...)
	if err != nil {
		c.t.Fatalf("meshctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Running is a command of meshctl under way.
type Running struct {
	c    *Cluster
	what string
	text *output
	done chan error
}

// output is what a process has written so far.
type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (o *output) Write(part []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.Write(part)
}

func (o *output) String() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.String()
}

// MeshctlBegins is Meshctl for what takes its time and is looked at meanwhile. It ends with the story at the latest.
func (c *Cluster) MeshctlBegins(args ...string) *Running {
	c.t.Helper()
	command, err := c.outsideCommand(meshctl(), args...)
	if err != nil {
		c.t.Fatal(err)
	}
	running := &Running{c: c, what: "meshctl " + strings.Join(args, " "), text: new(output), done: make(chan error, 1)}
	command.Stdout, command.Stderr = running.text, running.text
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = command.Process.Kill() })
	go func() { running.done <- command.Wait() }()
	return running
}

// Says waits until the command has written this.
func (r *Running) Says(text string) {
	r.c.t.Helper()
	r.c.Eventually(r.what+" says "+text, func() error {
		if said := r.text.String(); !strings.Contains(said, text) {
			return fmt.Errorf("it says\n%s", said)
		}
		return nil
	})
}

// Ends waits for the command's good end, and gives what it wrote.
func (r *Running) Ends() string {
	r.c.t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			r.c.t.Fatalf("%s: %v\n%s", r.what, err, r.text)
		}
	case <-time.After(5 * time.Minute):
		r.c.t.Fatalf("%s does not end:\n%s", r.what, r.text)
	}
	return r.text.String()
}

// Install puts Heddle on the bed from target/images and deploy/, as bed install does, and waits until it is ready.
func (c *Cluster) Install() {
	c.t.Helper()
	program := os.Getenv("BED_PROGRAM")
	if program == "" {
		c.t.Fatal("BED_PROGRAM does not name the bed program (make bed-stories)")
	}
	command := exec.Command(program, "--bed", c.bed.Name, "install")
	if out, err := command.CombinedOutput(); err != nil {
		c.t.Fatalf("bed install: %v\n%s", err, out)
	}
	c.MeshReady()
}

// outside runs a host's program in the control plane's network, with the admin's kubeconfig.
func (c *Cluster) outside(program string, args ...string) (string, error) {
	command, err := c.outsideCommand(program, args...)
	if err != nil {
		return "", err
	}
	out, err := command.CombinedOutput()
	return string(out), err
}

func (c *Cluster) outsideCommand(program string, args ...string) (*exec.Cmd, error) {
	command, err := c.bed.Command(plane.Name, true, append([]string{program}, args...)...)
	if err == nil {
		command.Env = append(os.Environ(), "KUBECONFIG="+c.bed.Kubeconfig(), "PATH="+c.bed.Bin+":"+os.Getenv("PATH"))
	}
	return command, err
}

// meshctl is the program that was packed into an image, or the one that MESHCTL names.
func meshctl() string {
	if program := os.Getenv("MESHCTL"); program != "" {
		return program
	}
	return filepath.Join(os.Getenv("BED_SOURCE"), "..", "..", "target", "images", "programs", "meshctl")
}

// Tag gives an image on the node another name.
func (n Node) Tag(image, name string) {
	n.c.t.Helper()
	n.Run(n.c.bed.Bin+"/ctr", "-a", node.Socket, "-n", "k8s.io", "images", "tag", "--force", image, name)
}

// PodNamed is a pod that somebody else made.
func (c *Cluster) PodNamed(namespace, name string) Pod {
	return Pod{Namespace: namespace, Name: name, c: c}
}

// URL of a port of an address of either family.
func URL(address, port string) string { return "http://" + net.JoinHostPort(address, port) + "/" }
