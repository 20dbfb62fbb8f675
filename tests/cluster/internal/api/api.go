// Package api is a small client of a bed's API server: JSON over HTTPS with a certificate, from inside the
// bed's own network if need be. It knows no resource kinds.
package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// An answer that takes longer is as good as none; watches are bounded by the server.
const answerWithin = 30 * time.Second

// Client speaks to one API server.
type Client struct {
	server string
	http   *http.Client
}

// NewClient reads holder.crt, holder.key and ca.crt below pki. If namespaceOf is a process id, connections
// are made in that process's network namespace.
func NewClient(pki, holder, server string, namespaceOf int) (*Client, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, holder+".crt"), filepath.Join(pki, holder+".key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	dial := (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	if namespaceOf != 0 {
		dial = DialIn(namespaceOf)
	}
	return &Client{server: server, http: &http.Client{Transport: &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
	}}}, nil
}

// DialIn makes connections in the network namespace of a process.
func DialIn(pid int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var connection net.Conn
		err := InNetworkOf(pid, func() error {
			var err error
			connection, err = (&net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1}).DialContext(ctx, network, address)
			return err
		})
		return connection, err
	}
}

// InNetworkOf runs `act` on a thread that is in the network namespace of a process. The thread is thrown
// away afterwards if it cannot be brought back.
func InNetworkOf(pid int, act func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("network of process %d: %w", pid, err)
			return
		}
		err = act()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// ErrNotFound says that the object is not there.
var ErrNotFound = errors.New("not found")

// errBusy says that the server asks to come back.
var errBusy = errors.New("too many requests")

// busyPause is short: the server says busy for a moment when a resource was just defined.
const busyPause = 250 * time.Millisecond

// Get reads a path into out (nil to only look). A server that is busy is asked again.
func (c *Client) Get(path string, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	for {
		err := c.call(ctx, http.MethodGet, path, "", nil, out)
		if !errors.Is(err, errBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(busyPause):
		}
	}
}

// MergePatch changes the fields given.
func (c *Client) MergePatch(path string, patch any) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	return c.call(ctx, http.MethodPatch, path, "application/merge-patch+json", body, nil)
}

// Create posts an object.
func (c *Client) Create(path string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	return c.call(ctx, http.MethodPost, path, "application/json", body, nil)
}

// Watch calls each for every event of a watch path until the server ends it.
func (c *Client) Watch(ctx context.Context, path string, each func(json.RawMessage) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("watch %s: %s", path, answer.Status)
	}
	lines := bufio.NewReader(answer.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(line); err != nil {
			return err
		}
	}
}

func (c *Client) call(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", method, path, ErrNotFound)
	case answer.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%s %s: %w", method, path, errBusy)
	case answer.StatusCode >= 300:
		var status struct{ Message string }
		_ = json.Unmarshal(text, &status)
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, status.Message)
	case out == nil:
		return nil
	}
	return json.Unmarshal(text, out)
}
