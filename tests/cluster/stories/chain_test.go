package stories

import (
	"testing"

	"heddle.test/cluster/cluster"
)

// What the mesh's stories do to a node's pod network, shown where nothing minds it.
func TestAnAddressCanBeGivenOutAgainAndTheChainRewritten(t *testing.T) {
	c := cluster.Use(t)
	ns := c.Namespace("again")
	node := c.Node("node2")
	path, before := node.Conflist()
	node.RewriteConflist()
	if after, content := node.Conflist(); after != path || content != before && node.InChain() {
		t.Errorf("rewritten from %s %s to %s %s", path, before, after, content)
	}
	first := c.Probe(ns, "first", "node2")
	address := first.IPs()
	c.Kubectl("-n", ns, "delete", "pod", "first", "--grace-period=0", "--force")
	node.NextAddress(address)
	if got := c.Probe(ns, "second", "node2").IPs(); got[0] != address[0] {
		t.Errorf("the second pod has %v, the first had %v", got, address)
	}
}
