package bed

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"heddle.test/cluster/internal/cgroup"
)

// TakeDown ends the bed and removes everything it made; a bed that is not there is down already.
func (b *Bed) TakeDown() error {
	unlock, err := b.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(b.clear(), os.Remove(b.lockFile()))
}

// clear works from any state a bed can be left in: its control group names every process it ever started
// and no other, and its namespaces and their mounts end with them.
func (b *Bed) clear() error {
	trees, err := cgroup.Find()
	if err != nil {
		return err
	}
	if err := trees.Kill(b.group()); err != nil {
		return err
	}
	failed := trees.Remove(b.group())
	// No mount is made outside the machines; one that is here all the same would hold the disk.
	mounts, err := mountsBelow("self", b.State)
	if err != nil {
		return errors.Join(failed, err)
	}
	for _, target := range mounts {
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			failed = errors.Join(failed, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(failed, os.RemoveAll(b.State))
}

// Leftovers lists whatever of the bed is still on the host: processes, control groups, mounts in any mount
// namespace, files. An empty list is what down promises.
func (b *Bed) Leftovers() ([]string, error) {
	trees, err := cgroup.Find()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, dir := range trees.Exists(b.group()) {
		left = append(left, "control group "+dir)
	}
	for _, path := range []string{b.State, b.lockFile()} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, "file "+path)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, dir := range processes {
		pid := filepath.Base(dir)
		if dead(dir) {
			continue
		}
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if strings.Contains(string(groups), "/"+b.group()+"/") || strings.Contains(string(line), b.State+"/") {
			left = append(left, fmt.Sprintf("process %s %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		}
		space, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		if err != nil || seen[space] {
			continue
		}
		seen[space] = true
		mounts, _ := mountsBelow(pid, b.State)
		for _, target := range mounts {
			left = append(left, fmt.Sprintf("mount %s, seen by process %s", target, pid))
		}
	}
	return left, nil
}

// dead says that a process has ended and only waits for its parent to notice.
func dead(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	end := strings.LastIndex(string(text), ") ")
	return end < 0 || strings.HasPrefix(string(text)[end+2:], "Z") || strings.HasPrefix(string(text)[end+2:], "X")
}

// mountsBelow lists the mounts a process sees on or from below a folder, the last made first.
func mountsBelow(pid, dir string) ([]string, error) {
	file, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var targets []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if strings.HasPrefix(fields[4], dir+"/") || strings.HasPrefix(fields[3], dir+"/") || strings.Contains(lines.Text(), "="+dir+"/") {
			targets = append(targets, fields[4])
		}
	}
	slices.Reverse(targets)
	return targets, lines.Err()
}
