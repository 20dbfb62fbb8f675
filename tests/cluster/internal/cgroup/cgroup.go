// Package cgroup keeps a bed's processes together, so that all of them, and nothing else, can be ended
// at any moment. It speaks to cgroup v2 for that, and tidies v1 hierarchies where the kubelet uses them.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A killed process can take a while to leave when its memory and mounts are torn down.
const emptyWithin = 30 * time.Second

// Hierarchies are the control group trees of this machine.
type Hierarchies struct {
	unified string
	v1      []string
}

// Find reads the machine's mounts.
func Find() (Hierarchies, error) {
	var found Hierarchies
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return found, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		switch kind, _, _ := strings.Cut(after, " "); kind {
		case "cgroup2":
			if found.unified == "" {
				found.unified = fields[4]
			}
		case "cgroup":
			found.v1 = append(found.v1, fields[4])
		}
	}
	if found.unified == "" {
		return found, errors.New("no cgroup2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	}
	return found, lines.Err()
}

// V1 says whether the kubelet's controllers are in v1 hierarchies here.
func (h Hierarchies) V1() bool { return len(h.v1) > 0 }

// Create makes the group in every hierarchy and hands its controllers down.
func (h Hierarchies) Create(name string) error {
	for _, root := range append([]string{h.unified}, h.v1...) {
		dir := root
		for _, part := range strings.Split(name, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if root == h.unified {
				handDown(parent)
			}
			if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
				return fmt.Errorf("control group: %w", err)
			}
			if root != h.unified {
				inheritCpuset(parent, dir)
			}
		}
	}
	return nil
}

// Open opens the unified group as a folder, for a process to be born in it.
func (h Hierarchies) Open(name string) (*os.File, error) {
	return os.Open(filepath.Join(h.unified, name))
}

// bedShares is the weight of a whole bed beside single processes of the host, which have 1024 each.
const bedShares = "4096"

// Join puts the process, and so what it will start, into the v1 groups as well; in the v2 group it was born. So each
// machine of a bed has an equal part of the processor, and its own programs beside its pods: else each process of a crowd
// that starts on one machine would weigh as much as all pods of all machines.
func (h Hierarchies) Join(name string, pid int) error {
	for _, root := range h.v1 {
		if err := os.WriteFile(filepath.Join(root, name, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		bed, _, _ := strings.Cut(name, "/")
		shares := filepath.Join(root, bed, "cpu.shares")
		if _, err := os.Stat(shares); err != nil {
			continue
		}
		if err := os.WriteFile(shares, []byte(bedShares), 0o644); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
	}
	return nil
}

// Processes lists everything that lives in the group or below it.
func (h Hierarchies) Processes(name string) []int {
	var pids []int
	_ = filepath.WalkDir(filepath.Join(h.unified, name), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for _, line := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// Freeze stops (or lets go on) every process of the group at once, as a paused machine would.
func (h Hierarchies) Freeze(name string, frozen bool) error {
	state := "0"
	if frozen {
		state = "1"
	}
	return os.WriteFile(filepath.Join(h.unified, name, "cgroup.freeze"), []byte(state), 0o644)
}

// Kill ends every process of the group and waits until none is left. A group that is not there is empty.
func (h Hierarchies) Kill(name string) error {
	dir := filepath.Join(h.unified, name)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0o644); err != nil && !os.IsNotExist(err) {
		return err
	}
	for deadline := time.Now().Add(emptyWithin); ; time.Sleep(10 * time.Millisecond) {
		left := h.Processes(name)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of %s did not end within %s", left, name, emptyWithin)
		}
	}
}

// Remove takes the empty group out of every hierarchy.
func (h Hierarchies) Remove(name string) error {
	var failed error
	for _, root := range append([]string{h.unified}, h.v1...) {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, dir := range dirs {
			if err := remove(dir); err != nil && failed == nil {
				failed = fmt.Errorf("control group left behind: %w", err)
			}
		}
	}
	return failed
}

// Exists lists the folders of this group that are there, in any hierarchy.
func (h Hierarchies) Exists(name string) []string {
	var there []string
	for _, root := range append([]string{h.unified}, h.v1...) {
		if dir := filepath.Join(root, name); isDir(dir) {
			there = append(there, dir)
		}
	}
	return there
}

// Named lists the groups at the root of any hierarchy whose names begin like this.
func (h Hierarchies) Named(prefix string) []string {
	var names []string
	for _, root := range append([]string{h.unified}, h.v1...) {
		dirs, _ := filepath.Glob(filepath.Join(root, prefix+"*"))
		for _, dir := range dirs {
			if name := filepath.Base(dir); isDir(dir) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// remove retries: the kernel frees a group a moment after its last process is gone.
func remove(dir string) error {
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = os.Remove(dir); err == nil || os.IsNotExist(err) {
			return nil
		}
	}
	return err
}

// handDown lets children of a v2 group use its controllers. A controller that is not offered is no error:
// on a machine with v1 hierarchies the unified one has none.
func handDown(dir string) {
	for _, controller := range []string{"+cpuset", "+cpu", "+io", "+memory", "+pids"} {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(controller), 0o644)
	}
}

// inheritCpuset fills what a fresh v1 cpuset leaves empty; no process may enter it before.
func inheritCpuset(parent, dir string) {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if value, err := os.ReadFile(filepath.Join(parent, name)); err == nil {
			_ = os.WriteFile(filepath.Join(dir, name), value, 0o644)
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
