package machine

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// A program that ends is started again after this pause, so that a broken one does not eat the processor.
	restartAfter = time.Second
	// How soon a service that is to stay down is noticed.
	heldEvery = 100 * time.Millisecond
	// The slowest program to be ready is an API server on a busy machine.
	readyWithin = 120 * time.Second
)

// supervisor starts processes and, being the machine's first process, reaps every orphan.
type supervisor struct {
	spec  Spec
	mutex sync.Mutex
	ended map[int]chan syscall.WaitStatus
}

func newSupervisor(spec Spec) *supervisor {
	s := &supervisor{spec: spec, ended: map[int]chan syscall.WaitStatus{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			s.reap()
		}
	}()
	return s
}

// begin starts a service and returns when it is ready (or has ended, if it is a command).
func (s *supervisor) begin(service Service) error {
	if service.Once {
		if err := s.runOnce(service); err != nil {
			return fmt.Errorf("%s: %w (see %s)", service.Name, err, s.spec.Log(service.Name))
		}
		return nil
	}
	go func() {
		for {
			s.whileHeld(service)
			started := time.Now()
			err := s.runOnce(service)
			log.Printf("%s ended after %s: %v; again in %s", service.Name, time.Since(started).Round(time.Millisecond), err, restartAfter)
			time.Sleep(restartAfter)
		}
	}()
	network, address, ok := strings.Cut(service.Ready, ":")
	if !ok {
		return nil
	}
	for deadline := time.Now().Add(readyWithin); ; time.Sleep(20 * time.Millisecond) {
		if connection, err := net.DialTimeout(network, address, time.Second); err == nil {
			connection.Close()
			log.Printf("%s is ready", service.Name)
			return nil
		} else if time.Now().After(deadline) {
			return fmt.Errorf("%s was not ready within %s: %w (see %s)", service.Name, readyWithin, err, s.spec.Log(service.Name))
		}
	}
}

func (s *supervisor) runOnce(service Service) error {
	out, err := os.OpenFile(s.spec.Log(service.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	path, err := exec.LookPath(service.Args[0])
	if err != nil {
		return err
	}
	// The lock is held over the start, so that the reaper cannot meet the process before it is expected.
	s.mutex.Lock()
	process, err := os.StartProcess(path, service.Args, &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), service.Env...),
		Files: []*os.File{null, out, out},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		s.mutex.Unlock()
		return err
	}
	ended := make(chan syscall.WaitStatus, 1)
	s.ended[process.Pid] = ended
	s.mutex.Unlock()
	pid := process.Pid
	_ = process.Release()
	status := s.watch(service, pid, ended)
	switch {
	case status.Signaled():
		return fmt.Errorf("killed by %s", status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("exit code %d", status.ExitStatus())
	}
	return nil
}

// watch waits for the process to end, and ends it when its service is to be held.
func (s *supervisor) watch(service Service, pid int, ended chan syscall.WaitStatus) syscall.WaitStatus {
	if service.Once {
		return <-ended
	}
	look := time.NewTicker(heldEvery)
	defer look.Stop()
	for {
		select {
		case status := <-ended:
			return status
		case <-look.C:
			if s.spec.held(service.Name) {
				// The process cannot be a stranger: it is reaped only under the same lock.
				s.mutex.Lock()
				if _, ours := s.ended[pid]; ours {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				s.mutex.Unlock()
			}
		}
	}
}

// whileHeld returns when nobody wants the service to stay down.
func (s *supervisor) whileHeld(service Service) {
	for s.spec.held(service.Name) {
		time.Sleep(heldEvery)
	}
}

func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		s.mutex.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			s.mutex.Unlock()
			if err == syscall.EINTR {
				continue
			}
			return
		}
		waiting, ours := s.ended[pid]
		delete(s.ended, pid)
		s.mutex.Unlock()
		if ours {
			waiting <- status
		}
	}
}
