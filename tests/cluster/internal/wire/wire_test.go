package wire

import "testing"

func TestAPartitionCutsTheGroupOffFromNodesAndPlane(t *testing.T) {
	want := `table bridge partition
delete table bridge partition
table bridge partition {
  chain forward {
    type filter hook forward priority 0;
    iifname { "node2", "node3" } oifname != { "node2", "node3" } drop
    iifname != { "node2", "node3" } oifname { "node2", "node3" } drop
  }
  chain input {
    type filter hook input priority 0;
    iifname { "node2", "node3" } drop
  }
  chain output {
    type filter hook output priority 0;
    oifname { "node2", "node3" } drop
  }
}
`
	if got := Rules([]string{"node2", "node3"}, false); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestAPartitionThatKeepsThePlaneOnlyForwardsNothing(t *testing.T) {
	want := `table bridge partition
delete table bridge partition
table bridge partition {
  chain forward {
    type filter hook forward priority 0;
    iifname { "node1" } oifname != { "node1" } drop
    iifname != { "node1" } oifname { "node1" } drop
  }
}
`
	if got := Rules([]string{"node1"}, true); got != want {
		t.Errorf("got\n%s", got)
	}
}
