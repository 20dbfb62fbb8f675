package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Usage is what one process takes.
type Usage struct {
	Pid int
	// MiB is its resident memory; Percent is of one processor.
	MiB, Percent float64
}

// ticks a second, in which the kernel tells processor time on every architecture that matters here.
const ticks = 100

// Usage measures every process of a program in the pods of the mesh on the node, over a while.
func (n Node) Usage(program string, over time.Duration) []Usage {
	n.c.t.Helper()
	workload := program
	if program == "mesh-cni" {
		workload = "mesh-agent"
	}
	pids := n.processes(workload, program)
	before := map[string]float64{}
	began := time.Now()
	for _, pid := range pids {
		before[pid], _ = n.cpuSeconds(pid)
	}
	time.Sleep(over)
	var found []Usage
	for _, pid := range pids {
		seconds, ok := n.cpuSeconds(pid)
		if !ok {
			continue
		}
		number, _ := strconv.Atoi(pid)
		found = append(found, Usage{Pid: number, MiB: n.residentMiB(pid), Percent: 100 * (seconds - before[pid]) / time.Since(began).Seconds()})
	}
	return found
}

func (n Node) cpuSeconds(pid string) (float64, bool) {
	text, err := n.Try("cat", "/proc/"+pid+"/stat")
	if err != nil {
		return 0, false
	}
	// Behind the name, which may hold anything, the 12th and 13th field are user and system time.
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticks, true
}

func (n Node) residentMiB(pid string) float64 {
	text, _ := n.Try("cat", "/proc/"+pid+"/status")
	for _, line := range strings.Split(text, "\n") {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024
		}
	}
	return 0
}

// Nodes are the names of the bed's nodes.
func (c *Cluster) Nodes() []string { return c.bed.Machines()[1:] }
