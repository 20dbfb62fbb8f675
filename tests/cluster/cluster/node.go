package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Node is one machine of the bed.
type Node struct {
	Name string
	c    *Cluster
}

// Node names one.
func (c *Cluster) Node(name string) Node { return Node{Name: name, c: c} }

// Plane is the control plane's machine, which plays the world outside the cluster.
func (c *Cluster) Plane() Node { return c.Node("plane") }

// Reboot takes the node's power and waits until it is Ready again.
func (n Node) Reboot() {
	n.c.t.Helper()
	if err := n.c.bed.Reboot(n.Name, true); err != nil {
		n.c.t.Fatal(err)
	}
}

// Pause stops everything on the node until Resume or the story's end.
func (n Node) Pause() {
	n.c.t.Helper()
	if err := n.c.bed.Freeze(n.Name, true); err != nil {
		n.c.t.Fatal(err)
	}
	n.c.t.Cleanup(n.Resume)
}

// Resume lets a paused node go on.
func (n Node) Resume() {
	n.c.t.Helper()
	if err := n.c.bed.Freeze(n.Name, false); err != nil {
		n.c.t.Fatal(err)
	}
}

// SilenceKubelet ends the node's kubelet, whose pods go on, until HearKubelet or the story's end.
func (n Node) SilenceKubelet() { n.c.t.Helper(); n.c.hold(n.Name, "kubelet") }

// HearKubelet lets it run again and waits until the node is Ready.
func (n Node) HearKubelet() {
	n.c.t.Helper()
	n.c.release(n.Name, "kubelet")
	n.Reads("True")
}

// Reads waits until the API server has this for the status of the node's condition Ready.
func (n Node) Reads(status string) {
	n.c.t.Helper()
	n.c.EventuallyWithin(2*time.Minute, n.Name+" has Ready="+status, func() error {
		out, err := n.c.TryKubectl("get", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != status {
			err = fmt.Errorf("it is %s", out)
		}
		return err
	})
}

// Run runs a command on the node.
func (n Node) Run(args ...string) string {
	n.c.t.Helper()
	out, err := n.Try(args...)
	if err != nil {
		n.c.t.Fatalf("%s on %s: %v\n%s", strings.Join(args, " "), n.Name, err, out)
	}
	return out
}

// Try is Run for what may fail.
func (n Node) Try(args ...string) (string, error) {
	command, err := n.c.bed.Command(n.Name, false, args...)
	if err != nil {
		return "", err
	}
	out, err := command.CombinedOutput()
	return string(out), err
}

// Curl asks a URL from the node itself, outside any pod.
func (n Node) Curl(url string) (Answer, error) {
	command, err := n.c.bed.Command(n.Name, true, n.c.bed.Bin+"/probe", "get", url)
	if err != nil {
		return Answer{}, err
	}
	out, err := command.CombinedOutput()
	return answer(url, string(out), err)
}

// NextAddress makes the node's address plugin give out these addresses next, as soon as they are free. The plugin itself
// goes round its whole range first, and by then nobody remembers who had an address; so the node and its pods forget their
// neighbours of these, which nothing would tell them of for up to a minute: the first frame of a new pod is lost to a bridge
// whose port is not up yet.
func (n Node) NextAddress(addresses []string) {
	n.c.t.Helper()
	for i, address := range addresses {
		file := fmt.Sprintf("/var/lib/cni/networks/pods/last_reserved_ip.%d", i)
		n.c.Eventually(address+" is free", func() error {
			if _, err := n.Try("ls", "/var/lib/cni/networks/pods/"+address); err == nil {
				return errors.New("it is taken")
			}
			return nil
		})
		ip := netip.MustParseAddr(address)
		n.Run("sh", "-c", "printf %s "+ip.Prev().String()+" > "+file)
		family := "-4"
		if ip.Is6() {
			family = "-6"
		}
		n.Run("ip", family, "neigh", "flush", "to", address)
		n.Run("ip", "-all", "netns", "exec", "ip", family, "neigh", "flush", "to", address)
	}
}
