package bedtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// refuses runs a command that must fail with one line that holds the words.
func refuses(t *testing.T, command *exec.Cmd, words string) {
	t.Helper()
	out, err := command.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err == nil {
		t.Fatalf("it did not refuse: %s", out)
	}
	for _, line := range lines {
		if strings.Contains(line, words) {
			return
		}
	}
	t.Errorf("no line says %q:\n%s", words, out)
}

func TestMissingPrivilegeIsNamed(t *testing.T) {
	b := newBed(t, "nobody")
	// A copy where anyone may run it, and a home that anyone may read.
	dir, err := os.MkdirTemp("/srv", "bed-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(os.Getenv("BED_PROGRAM"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bed"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(dir, "bed"), "up")
	command.Dir = "/"
	command.Env = append(os.Environ(), "BED="+b.name, "HEDDLE_BED_HOME="+filepath.Join(dir, "home"))
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	refuses(t, command, "missing privilege: a bed makes namespaces, mounts and control groups; run it as root")
}

func TestAMissingPackageIsNamed(t *testing.T) {
	b := newBed(t, "package")
	// A PATH with everything but nft.
	dir := t.TempDir()
	for _, tool := range []string{"ip", "conntrack", "nsenter", "mount", "true", "go"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	command := b.command("up")
	command.Env = append(command.Env, "PATH="+dir)
	refuses(t, command, "missing package: nft is in nftables (apt-get install nftables)")
}

func TestTooLittleDiskIsNamed(t *testing.T) {
	b := newBed(t, "disk")
	dir, err := os.MkdirTemp("/srv", "bed-disk-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// A mount namespace of its own, so that the small disk is nobody else's.
	inner := b.command("up")
	command := exec.Command("unshare", "--mount", "sh", "-ec", "mount -t tmpfs -o size=64m small "+dir+"; exec "+inner.Path+" up")
	command.Env = append(inner.Env, "HEDDLE_BED_HOME="+dir)
	refuses(t, command, "too little disk: "+dir+" has 64 MiB free")
}

func TestATakenAddressIsNamed(t *testing.T) {
	b := newBed(t, "address")
	refuses(t, b.command("up", "--pod-net", "10.96.0.0/12"),
		"address taken: the pod range 10.96.0.0/12 overlaps the service range 10.96.0.0/16")
}

func TestAnUnknownMachineIsNamedWithThoseThereAre(t *testing.T) {
	b := newBed(t, "unknown")
	refuses(t, b.command("exec-node", "node1", "--", "true"), "is not up")
	refuses(t, b.command("kubectl", "get", "nodes"), "is not up")
}
