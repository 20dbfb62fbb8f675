// Package preflight finds out, before anything is touched, why a bed could not come up here. Each problem is
// one line that says what to do.
package preflight

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"heddle.test/cluster/internal/cgroup"
)

const (
	// Programs take 0.7 GB, the images unpacked 0.3 GB a node; the rest is for pods.
	needDisk = 3 << 30
	// The first build also fills Go's caches.
	needDiskToBuild = 12 << 30
)

// Tools a running bed calls, and the Debian package of each.
var runTools = [][2]string{
	{"ip", "iproute2"}, {"nft", "nftables"}, {"conntrack", "conntrack"},
	{"nsenter", "util-linux"}, {"mount", "mount"},
}

// buildTools are needed once per pin.
var buildTools = [][2]string{{"pkg-config", "pkg-config"}, {"gcc", "gcc"}, {"python3", "python3-venv"}}

// PluginDir is where Debian keeps the standard CNI plugins.
const PluginDir = "/usr/lib/cni"

// Run checks what a running bed needs. home is where its files go.
func Run(home string) []string {
	problems := privilege()
	problems = append(problems, packages(runTools)...)
	for _, plugin := range []string{"bridge", "host-local", "loopback"} {
		if _, err := os.Stat(filepath.Join(PluginDir, plugin)); err != nil {
			problems = append(problems, missing("the CNI plugin "+plugin, "containernetworking-plugins"))
			break
		}
	}
	if _, err := cgroup.Find(); err != nil {
		problems = append(problems, "missing privilege: "+err.Error())
	}
	for _, feature := range [][2]string{
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "the kernel's bridge netfilter (modprobe br_netfilter)"},
		{"/proc/self/ns/pid", "process namespaces"},
	} {
		if _, err := os.Stat(feature[0]); err != nil {
			problems = append(problems, "missing: "+feature[1])
		}
	}
	return append(problems, disk(home, needDisk)...)
}

// Build checks what building the programs needs.
func Build(home string) []string {
	problems := packages(buildTools)
	if exec.Command("pkg-config", "--exists", "libseccomp").Run() != nil {
		problems = append(problems, missing("libseccomp's headers", "libseccomp-dev"))
	}
	if exec.Command("python3", "-c", "import venv, ensurepip").Run() != nil {
		problems = append(problems, missing("python3 -m venv", "python3-venv"))
	}
	if _, err := exec.LookPath("go"); err != nil {
		problems = append(problems, "missing: go 1.26 or later (https://go.dev/dl)")
	}
	return append(problems, disk(home, needDiskToBuild)...)
}

func privilege() []string {
	if os.Geteuid() != 0 {
		return []string{"missing privilege: a bed makes namespaces, mounts and control groups; run it as root"}
	}
	command := exec.Command("true")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := command.Run(); err != nil {
		return []string{fmt.Sprintf("missing privilege: this root may not make namespaces (%v)", err)}
	}
	return nil
}

func packages(tools [][2]string) []string {
	var problems []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool[0]); err != nil {
			problems = append(problems, missing(tool[0], tool[1]))
		}
	}
	return problems
}

func missing(what, debian string) string {
	return fmt.Sprintf("missing package: %s is in %s (apt-get install %s)", what, debian, debian)
}

func disk(home string, need uint64) []string {
	dir := home
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return []string{fmt.Sprintf("disk at %s: %v", dir, err)}
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < need {
		return []string{fmt.Sprintf("too little disk: %s has %d MiB free, %d are needed (HEDDLE_BED_HOME moves it)", dir, free>>20, need>>20)}
	}
	return nil
}

// Failed turns problems into one error, or nil.
func Failed(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(problems, "\n"))
}
