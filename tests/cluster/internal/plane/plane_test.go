package plane

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/machine"
)

func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestEveryHolderIsWhoRBACKnowsAndIsSignedByTheBed(t *testing.T) {
	state := t.TempDir()
	plan := addr.Default(addr.Dual)
	if err := Trust(state, "x", plan, []string{"node1", "node2"}); err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(state, "pki")
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, filepath.Join(pki, "ca.crt")))
	for name, subject := range map[string]string{
		"node2": "CN=system:node:node2,O=system:nodes", "scheduler": "CN=system:kube-scheduler",
		"admin": "CN=admin,O=system:masters", "load-balancer": "CN=bed:load-balancer",
	} {
		cert := certificate(t, filepath.Join(pki, name+".crt"))
		if cert.Subject.String() != subject {
			t.Errorf("%s is %s", name, cert.Subject)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	serving := certificate(t, filepath.Join(pki, "apiserver.crt"))
	for _, host := range []string{"kubernetes.default.svc", "10.96.0.1", "fd77:0:2::1", "192.168.77.1"} {
		if err := serving.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(filepath.Join(pki, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key has mode %v, %v", info.Mode(), err)
	}
}

func TestTheAPIServerTrustsNobodyUnknown(t *testing.T) {
	spec := Spec("/state", "g", "/bin", addr.Default(addr.IPv4), 2)
	i := slices.IndexFunc(spec.Services, func(s machine.Service) bool { return s.Name == "apiserver" })
	line := strings.Join(spec.Services[i].Args, " ")
	for _, want := range []string{"--authorization-mode=Node,RBAC", "--anonymous-auth=false", "NodeRestriction", "--audit-log-path=/state/plane/log/audit.log"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %s", want, line)
		}
	}
}
