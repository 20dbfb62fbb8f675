package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"heddle.test/cluster/internal/pki"
)

// server is an API server of one bed's authority that answers as told, and the folder of that authority.
func server(t *testing.T, answer http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewAuthority(dir, "ca", "test")
	if err != nil {
		t.Fatal(err)
	}
	serving := pki.Identity{CommonName: "server", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	if err := errors.Join(ca.Issue("serving", serving), ca.Issue("admin", pki.Identity{CommonName: "admin"})); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "serving.crt"), filepath.Join(dir, "serving.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(text)
	s := httptest.NewUnstartedServer(answer)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, dir
}

func client(t *testing.T, dir, url string) *Client {
	t.Helper()
	c, err := NewClient(dir, "admin", url, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestABusyServerIsAskedAgain(t *testing.T) {
	asked := 0
	s, dir := server(t, func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			http.Error(w, "{}", http.StatusTooManyRequests)
			return
		}
		_, _ = w.Write([]byte(`{"name":"there"}`))
	})
	var out struct{ Name string }
	if err := client(t, dir, s.URL).Get("/x", &out); err != nil || out.Name != "there" || asked != 3 {
		t.Errorf("got %+v, %v after %d", out, err, asked)
	}
}

func TestWhatIsNotThereCanBeToldFromOtherFailures(t *testing.T) {
	s, dir := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		http.Error(w, `{"message":"no"}`, http.StatusForbidden)
	})
	c := client(t, dir, s.URL)
	if err := c.Get("/missing", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := c.Get("/secret", nil); err == nil || errors.Is(err, ErrNotFound) || err.Error() != "GET /secret: 403 Forbidden: no" {
		t.Errorf("got %v", err)
	}
}

func TestAServerOfAnotherAuthorityIsNotTrusted(t *testing.T) {
	s, _ := server(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	_, other := server(t, nil)
	if err := client(t, other, s.URL).Get("/x", nil); err == nil {
		t.Error("a foreign server was trusted")
	}
}
