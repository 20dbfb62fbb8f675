package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// mountAll gives the machine a file system of its own where it matters: /etc over the host's, and its own
// /var, /opt (on its disk, which a reboot keeps) and /run, /tmp, /proc, /sys (which a reboot empties).
// The rest of the host's files are seen as they are.
func mountAll(spec Spec) error {
	// Nothing that is mounted here may be seen outside, nor the other way round.
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := dropStrangers(); err != nil {
		return err
	}
	disk := filepath.Join(spec.State, "disk")
	for _, dir := range []string{"etc", "etc-work", "opt/cni/bin", "var/lib", "var/log", "var/cache", "var/spool"} {
		if err := os.MkdirAll(filepath.Join(disk, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("/run", filepath.Join(disk, "var/run")); err != nil && !os.IsExist(err) {
		return err
	}
	if err := os.MkdirAll(filepath.Join(disk, "var/tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"etc", "/etc", "overlay", 0, fmt.Sprintf("lowerdir=/etc,upperdir=%s/etc,workdir=%s/etc-work", disk, disk)},
		{disk + "/var", "/var", "", syscall.MS_BIND, ""},
		{disk + "/opt", "/opt", "", syscall.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755"},
		{"tmpfs", "/tmp", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=1777"},
		{"proc", "/proc", "proc", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
	}
	for _, s := range steps {
		if err := mount(s.source, s.target, s.kind, s.flags, s.data); err != nil {
			return err
		}
	}
	if err := ownSys(); err != nil {
		return err
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// As on a real machine: a pod that mounts /run/netns with HostToContainer sees namespaces made later.
	return mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// ownSys mounts a /sys that shows the machine's own network, with the host's control groups in it.
func ownSys() error {
	const aside = "/run/cgroup-aside"
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	if err := mount("/sys/fs/cgroup", aside, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount(aside, "/sys/fs/cgroup", "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := syscall.Unmount(aside, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", aside, err)
	}
	return os.Remove(aside)
}

// dropStrangers lets go of mounts that belong to other users of the host. A copy kept here would keep
// their network namespaces and disks alive after they are done with them.
func dropStrangers() error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	var targets []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 {
			continue
		}
		target := unescape.Replace(fields[4])
		kind, _, _ := strings.Cut(after, " ")
		if kind == "nsfs" || strings.HasPrefix(target, "/run/") || (kind == "overlay" && target != "/") {
			targets = append(targets, target)
		}
	}
	slices.Reverse(targets)
	for _, target := range targets {
		// A mount below one that just went is gone already.
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return lines.Err()
}

// The kernel writes these four characters of a path in octal.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s %s on %s: %w", kind, source, target, err)
	}
	return nil
}
