// Package place says where a bed's files lie. It makes no folder and starts nothing.
package place

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Home is the folder for everything a bed keeps outside the checkout: programs, images, states.
// HEDDLE_BED_HOME moves it, and HEDDLE_CACHE does with the rest of the project's caches.
func Home() (string, error) {
	if home := os.Getenv("HEDDLE_BED_HOME"); home != "" {
		return filepath.Abs(home)
	}
	if cache := os.Getenv("HEDDLE_CACHE"); cache != "" {
		return filepath.Abs(filepath.Join(cache, "bed"))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the bed: set HEDDLE_BED_HOME (%w)", err)
	}
	return filepath.Join(cache, "heddle", "bed"), nil
}

// Folders a node replaces by its own; a state below one of them would vanish from its sight.
var replaced = []string{"/run", "/tmp", "/etc", "/var", "/opt", "/proc", "/sys", "/dev"}

// State is the folder of the bed of this name.
func State(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fmt.Errorf("bed name %q: up to 20 lower-case letters, digits and dashes, a letter first", name)
	}
	home, err := Home()
	if err != nil {
		return "", err
	}
	for _, folder := range replaced {
		if strings.HasPrefix(home+"/", folder+"/") {
			return "", fmt.Errorf("the bed cannot live in %s, which its nodes replace by their own %s: set HEDDLE_BED_HOME to a folder elsewhere", home, folder)
		}
	}
	return filepath.Join(home, "state-"+name), nil
}

// Cgroup is the name of the bed's control group below each hierarchy's root.
func Cgroup(name string) string { return "heddle-bed-" + name }

// validName keeps names fit for a file, a control group and a line of text.
var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)
