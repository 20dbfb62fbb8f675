package pki

import (
	"fmt"
	"os"
	"path/filepath"
)

// Kubeconfig writes NAME.kubeconfig: how the holder of certificate NAME reaches the API server.
// Files are named, not embedded, so that one folder holds the whole trust of a bed.
func Kubeconfig(dir, name, server string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: bed
  cluster: {server: %q, certificate-authority: %q}
users:
- name: %s
  user: {client-certificate: %q, client-key: %q}
contexts:
- name: bed
  context: {cluster: bed, user: %s}
current-context: bed
`, server, filepath.Join(dir, "ca.crt"), name, filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"), name)
	return os.WriteFile(filepath.Join(dir, name+".kubeconfig"), []byte(text), 0o600)
}
