package machine

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// The host end of a link is made right after boot; longer than this means whoever made the bed is gone.
const linkWithin = 30 * time.Second

// Init is the life of a machine's first process. It returns only when the machine cannot boot.
func Init(specFile string) error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	log.SetPrefix(spec.Name + " ")
	log.Print("boot")
	if os.Getpid() != 1 {
		return fmt.Errorf("a machine's first process has process id 1, not %d", os.Getpid())
	}
	if err := syscall.Sethostname([]byte(spec.Name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := mountAll(spec); err != nil {
		return err
	}
	for _, name := range spec.WaitFor {
		if err := waitFor(name); err != nil {
			return err
		}
	}
	if err := writeAll(spec.Files); err != nil {
		return err
	}
	installed := filepath.Join(spec.State, "disk", "installed")
	if _, err := os.Stat(installed); os.IsNotExist(err) {
		if err := writeAll(spec.FirstFiles); err != nil {
			return err
		}
		if err := os.WriteFile(installed, nil, 0o644); err != nil {
			return err
		}
	}
	nurse := newSupervisor(spec)
	for _, command := range spec.Setup {
		if err := nurse.runOnce(Service{Name: "setup", Args: command}); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
	}
	for _, service := range spec.Services {
		if err := nurse.begin(service); err != nil {
			return err
		}
	}
	log.Print("booted")
	select {}
}

func waitFor(name string) error {
	for deadline := time.Now().Add(linkWithin); ; time.Sleep(5 * time.Millisecond) {
		if _, err := net.InterfaceByName(name); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s did not appear within %s", name, linkWithin)
		}
	}
}

func writeAll(files map[string]string) error {
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(files[path]), 0o644); err != nil {
			return err
		}
	}
	return nil
}
