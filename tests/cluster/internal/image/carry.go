package image

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// protocols that a ruleset may name; the C library looks them up in /etc/protocols.
const protocols = "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n"

// Carry adds a program of this machine to the image, as /usr/bin/NAME, with just the libraries and the interpreter that ldd
// names, each at the path where the dynamic linker looks for it.
func (i *Image) Carry(program string) error {
	path, err := find(program)
	if err != nil {
		return err
	}
	// A static program has nothing for ldd to list; ldd says so and fails.
	listed, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil && !strings.Contains(string(listed), "not a dynamic executable") {
		return fmt.Errorf("ldd %s: %w: %s", path, err, strings.TrimSpace(string(listed)))
	}
	libraries, err := libraries(string(listed))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if i.Files == nil {
		i.Files = map[string]File{}
	}
	if i.Files["/usr/bin/"+program], err = Executable(path); err != nil {
		return err
	}
	for _, library := range libraries {
		if i.Files[library], err = Executable(library); err != nil {
			return err
		}
	}
	i.Files["/etc/protocols"] = File{Content: []byte(protocols), Mode: 0o644}
	return nil
}

// find looks where administrators' programs are as well, whatever PATH says.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not on this machine", program)
}

// libraries reads what ldd prints: `NAME => PATH (ADDRESS)`, and for the interpreter `PATH (ADDRESS)`.
func libraries(listed string) ([]string, error) {
	var paths []string
	for _, line := range strings.Split(listed, "\n") {
		name, rest, arrow := strings.Cut(strings.TrimSpace(line), " => ")
		if !arrow {
			rest = name
		}
		path, _, _ := strings.Cut(rest, " (")
		switch {
		case strings.HasPrefix(path, "/"):
			paths = append(paths, path)
		case arrow && path == "not found":
			return nil, fmt.Errorf("its library %s is not on this machine", name)
		}
	}
	return paths, nil
}
