package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"heddle.test/cluster/internal/cgroup"
)

// Boot starts the machine's first process and returns its process id. The process is born in the
// machine's control group, so that it can be found and ended even if nothing else is written down.
func Boot(bed string, spec Spec) (int, error) {
	trees, err := cgroup.Find()
	if err != nil {
		return 0, err
	}
	if err := trees.Create(spec.Group + "/init"); err != nil {
		return 0, err
	}
	for _, dir := range []string{"log", "disk"} {
		if err := os.MkdirAll(filepath.Join(spec.State, dir), 0o755); err != nil {
			return 0, err
		}
	}
	if err := spec.save(); err != nil {
		return 0, err
	}
	group, err := trees.Open(spec.Group + "/init")
	if err != nil {
		return 0, err
	}
	defer group.Close()
	log, err := os.OpenFile(spec.Log("init"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	first := exec.Command(bed, "machine", spec.file())
	first.Dir = "/"
	first.Stdout, first.Stderr = log, log
	first.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		UseCgroupFD: true,
		CgroupFD:    int(group.Fd()),
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := first.Start(); err != nil {
		return 0, fmt.Errorf("machine %s: %w", spec.Name, err)
	}
	pid := first.Process.Pid
	record := fmt.Sprintf("%d %s\n", pid, startTime(pid))
	if err := os.WriteFile(pidFile(spec.State), []byte(record), 0o644); err != nil {
		return 0, err
	}
	if err := trees.Join(spec.Group+"/init", pid); err != nil {
		return 0, err
	}
	return pid, first.Process.Release()
}

// Running is the first process of the machine, or 0 if the machine is down. The start time guards against
// a process id that the kernel gave to a stranger.
func Running(state string) int {
	text, err := os.ReadFile(pidFile(state))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0
	}
	pid, err := strconv.Atoi(fields[0])
	if err != nil || startTime(pid) != fields[1] {
		return 0
	}
	return pid
}

// Inside is the command line that runs args on the machine: all namespaces, or the network alone.
func Inside(pid int, networkOnly bool, args ...string) []string {
	line := []string{"nsenter", "--target", strconv.Itoa(pid), "--net"}
	if !networkOnly {
		line = append(line, "--mount", "--pid", "--uts", "--ipc")
	}
	return append(append(line, "--"), args...)
}

func pidFile(state string) string { return filepath.Join(state, "init.pid") }

// startTime is field 22 of /proc/PID/stat; the name in field 2 may hold spaces and parentheses.
// A dead process that nobody has reaped does not count.
func startTime(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "gone"
	}
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "gone"
	}
	return fields[19]
}
