package programs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func source(t *testing.T) Builder {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tool", "go.mod"), "module tool\n\ngo 1.26.0\n\nrequire (\n\texample.test/a v1.2.3\n\texample.test/b v0.4.0 // indirect\n)\n")
	write(t, filepath.Join(dir, "tool", "main.go"), "package main\n\nfunc main() {}\n")
	return Builder{Source: dir, Home: t.TempDir()}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var tool = Program{Folder: "tool", Targets: map[string]string{"tool": "."}}

func TestOnlyAChangedPinAsksForANewBuild(t *testing.T) {
	b := source(t)
	first, err := b.key(tool)
	if err != nil {
		t.Fatal(err)
	}
	// A new checkout has new times, and is the same pin.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(b.Source, "tool", "go.mod"), later, later); err != nil {
		t.Fatal(err)
	}
	if again, _ := b.key(tool); again != first {
		t.Error("the same sources made another pin")
	}
	tagged := tool
	tagged.Tags = "netgo"
	if other, _ := b.key(tagged); other == first {
		t.Error("another build tag made the same pin")
	}
	write(t, filepath.Join(b.Source, "tool", "go.mod"), "module tool\n\ngo 1.26.0\n\nrequire example.test/a v1.2.4\n")
	if other, _ := b.key(tool); other == first {
		t.Error("another version made the same pin")
	}
}

func TestAVersionIsReadFromTheModule(t *testing.T) {
	b := source(t)
	if got := b.Pinned("tool", "example.test/a"); got != "v1.2.3" {
		t.Errorf("got %q", got)
	}
	if got := b.Pinned("tool", "example.test/c"); got != "" {
		t.Errorf("a module that is not required has version %q", got)
	}
}

func TestOldBuildsGoButForTheLastAndThoseABedUses(t *testing.T) {
	b := source(t)
	now := time.Now()
	for i, key := range []string{"aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"} {
		dir := filepath.Join(b.Home, "programs", "tool-"+key)
		write(t, filepath.Join(dir, "tool"), "")
		age := now.Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(dir, age, age); err != nil {
			t.Fatal(err)
		}
	}
	at := func(key string) string { return filepath.Join(b.Home, "programs", "tool-"+key) }
	if err := os.MkdirAll(filepath.Join(b.Home, "state-dev", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(at("aaaaaaaaaaaa"), "tool"), filepath.Join(b.Home, "state-dev", "bin", "tool")); err != nil {
		t.Fatal(err)
	}
	b.dropOld(tool, at("dddddddddddd"))
	for key, stays := range map[string]bool{"aaaaaaaaaaaa": true, "bbbbbbbbbbbb": false, "cccccccccccc": true, "dddddddddddd": true} {
		if _, err := os.Stat(at(key)); (err == nil) != stays {
			t.Errorf("%s stays: %v, want %v", key, err == nil, stays)
		}
	}
}
