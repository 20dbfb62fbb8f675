// Package wire lays the cables of a bed: a pair of interfaces between each node and the bridge, and rules on
// the bridge that cut nodes off. It works in the machines' network namespaces and never in the host's.
package wire

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"heddle.test/cluster/internal/machine"
	"heddle.test/cluster/internal/plane"
)

// Connect makes eth0 of a node and plugs its other end, which has the node's name, into the bridge.
// The hardware address is always the same, so that neighbours know the node again after a reboot.
func Connect(planePid, nodePid int, node string, number int) error {
	mac := fmt.Sprintf("02:77:00:00:00:%02x", number)
	for _, command := range [][]string{
		// First, since this may be tried before the plane has made its bridge.
		{"ip", "link", "show", plane.Bridge},
		{"ip", "link", "add", node, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", strconv.Itoa(nodePid)},
		{"ip", "link", "set", node, "master", plane.Bridge, "up"},
	} {
		if err := run(planePid, "", command...); err != nil {
			return err
		}
	}
	return nil
}

// Partition cuts the group of nodes off from every other machine, or from the other nodes only if the control
// plane shall still be reached. Packets vanish, as on a broken network; no interface goes down.
func Partition(planePid int, group []string, keepPlane bool) error {
	return run(planePid, Rules(group, keepPlane), "nft", "-f", "-")
}

// Rules is the partition as a ruleset: a pure function of who is cut off.
func Rules(group []string, keepPlane bool) string {
	quoted := make([]string, len(group))
	for i, node := range group {
		quoted[i] = strconv.Quote(node)
	}
	set := "{ " + strings.Join(quoted, ", ") + " }"
	var text strings.Builder
	text.WriteString("table bridge partition\ndelete table bridge partition\ntable bridge partition {\n")
	text.WriteString("  chain forward {\n    type filter hook forward priority 0;\n")
	fmt.Fprintf(&text, "    iifname %s oifname != %s drop\n    iifname != %s oifname %s drop\n  }\n", set, set, set, set)
	if !keepPlane {
		fmt.Fprintf(&text, "  chain input {\n    type filter hook input priority 0;\n    iifname %s drop\n  }\n", set)
		fmt.Fprintf(&text, "  chain output {\n    type filter hook output priority 0;\n    oifname %s drop\n  }\n", set)
	}
	text.WriteString("}\n")
	return text.String()
}

// Heal ends every partition.
func Heal(planePid int) error {
	return run(planePid, "table bridge partition\ndelete table bridge partition\n", "nft", "-f", "-")
}

func run(pid int, input string, args ...string) error {
	line := machine.Inside(pid, true, args...)
	command := exec.Command(line[0], line[1:]...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
