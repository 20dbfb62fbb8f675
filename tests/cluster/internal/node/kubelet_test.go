package node

import (
	"strings"
	"testing"

	"heddle.test/cluster/internal/addr"
)

// A kubelet that collected images when the host's disk was nearly full left pods that could never start: nobody can pull them again.
func TestAKubeletRemovesNoImagesAndEvictsNobody(t *testing.T) {
	config := kubeletConfig(addr.Default(addr.IPv4), "/pki", "node1", "group", true)
	for _, line := range []string{"imageGCHighThresholdPercent: 100\n", "evictionHard: {}\n"} {
		if !strings.Contains(config, line) {
			t.Errorf("no %q in\n%s", line, config)
		}
	}
}
