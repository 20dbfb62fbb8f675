package cluster

import (
	"fmt"
	"strings"
)

// TokenAudience is whom the proxies' tokens are made for.
const TokenAudience = "heddle"

// Thief is a pod outside the mesh that asks the controller for certificates with tokens that are not its own.
type Thief struct{ Pod }

// Thief starts one.
func (c *Cluster) Thief(namespace, node string) Thief {
	c.t.Helper()
	// Something to run while it waits.
	return Thief{c.loadPod(namespace, "thief", node, `[changes, -web, "127.0.0.1:1", -pause, 1h]`)}
}

// Sign asks for a certificate: the gRPC code of the answer, and what it says beside.
func (t Thief) Sign(token, identity string) (code, said string) {
	t.c.t.Helper()
	t.c.Eventually("the controller answers", func() error {
		out, err := t.Exec("/load", "sign", "-controller", "mesh-controller."+System+":15010", "-token", strings.TrimSpace(token), "-identity", identity)
		if err != nil {
			return err
		}
		var rest string
		code, rest, _ = strings.Cut(strings.TrimSpace(out), " ")
		if code == "Unavailable" {
			return fmt.Errorf("%s", out)
		}
		_, said, _ = strings.Cut(rest, " ")
		return nil
	})
	return code, said
}

// ProxyToken is a token of the node's proxy as the kubelet would give it to that pod, for an audience.
func (n Node) ProxyToken(audience string) string {
	n.c.t.Helper()
	pod, _ := n.ProxyPod()
	return n.c.Kubectl("-n", System, "create", "token", "mesh-proxy", "--audience="+audience, "--bound-object-kind=Pod", "--bound-object-name="+pod)
}
