// Package bedtest proves the bed itself: that it comes and goes without a trace, from any state, and says in
// one line why it cannot. It drives the program as a person does (BED_PROGRAM names it).
package bedtest

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cycles is how often a bed is brought up and down; BED_CYCLES=20 is the soak.
func cycles(t *testing.T) int {
	text := os.Getenv("BED_CYCLES")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("BED_CYCLES=%s is not a number of cycles", text)
	}
	return n
}

func TestABedComesAndGoesWithoutATrace(t *testing.T) {
	t.Parallel()
	b := newBed(t, "cycle")
	for i := range cycles(t) {
		began := time.Now()
		b.must("up")
		up := time.Since(began)
		if i == 0 {
			// An untidy user: pods that run, a node that is cut off and one that is paused.
			b.must("kubectl", "create", "deployment", "left", "--image=bed.test/probe:v1", "--replicas=4", "--", "/probe", "serve")
			b.must("kubectl", "wait", "--for=condition=Available", "deployment/left", "--timeout=60s")
			b.must("partition", "node1")
			b.must("pause", "node2")
		}
		began = time.Now()
		b.must("down")
		t.Logf("cycle %d: up %s, down %s", i+1, up.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
		b.mustLeaveNothing()
	}
}

func TestABedThatIsKilledWhileComingUpLeavesNothing(t *testing.T) {
	b := newBed(t, "killed")
	for _, after := range []time.Duration{20 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, 4 * time.Second} {
		command := b.command("up")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		if err := command.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = command.Wait()
		b.must("down")
		b.mustLeaveNothing()
	}
}

func TestTheNextUpClearsWhatACrashLeft(t *testing.T) {
	t.Parallel()
	b := newBed(t, "crashed")
	command := b.command("up")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	// Started twice at once: one makes the bed, the other says why it does not.
	results := make(chan string, 2)
	for range 2 {
		go func() {
			out, err := b.try("up", "--nodes", "1")
			if err == nil {
				out = "made"
			}
			results <- out
		}()
	}
	both := <-results + <-results
	if strings.Count(both, "made") != 1 || !strings.Contains(both, "is being changed by another command") {
		t.Errorf("of two at once came: %s", both)
	}
	b.must("kubectl", "get", "--raw", "/readyz")
	b.must("down")
	b.mustLeaveNothing()
}

func TestTwoBedsLiveSideBySideAndOneIsDual(t *testing.T) {
	t.Parallel()
	one, two := newBed(t, "left"), newBed(t, "right")
	one.must("up", "--nodes", "1")
	two.must("up", "--dual", "--nodes", "1")
	if out := one.must("kubectl", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"); out != "10.96.0.1" {
		t.Errorf("the first bed's API is at %q", out)
	}
	if out := two.must("kubectl", "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIPs}"); out != `["10.96.0.10","fd77:0:2::a"]` {
		t.Errorf("the dual bed's DNS is at %q", out)
	}
	one.must("down")
	one.mustLeaveNothing()
	two.must("kubectl", "get", "nodes")
	if out, err := two.try("up"); err == nil || !strings.Contains(out, "already up") {
		t.Errorf("a bed that is up was brought up again: %s", out)
	}
	two.must("down")
	two.mustLeaveNothing()
}

// testBed is one bed of a test; it is taken down when the test ends, however it ends.
type testBed struct {
	t    *testing.T
	name string
}

func newBed(t *testing.T, name string) testBed {
	t.Helper()
	b := testBed{t, "t" + strconv.Itoa(os.Getpid()%10000) + "-" + name}
	t.Cleanup(func() { _, _ = b.try("down") })
	return b
}

func (b testBed) command(args ...string) *exec.Cmd {
	program := os.Getenv("BED_PROGRAM")
	if program == "" {
		b.t.Fatal("BED_PROGRAM does not name the bed program (make bed-test)")
	}
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), "BED="+b.name)
	return command
}

func (b testBed) try(args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	command := b.command(args...)
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	return stdout.String() + stderr.String(), err
}

func (b testBed) must(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		b.t.Fatalf("bed %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (b testBed) mustLeaveNothing() {
	b.t.Helper()
	if out, err := b.try("leftovers"); err != nil {
		b.t.Fatalf("left behind:\n%s", out)
	}
}
