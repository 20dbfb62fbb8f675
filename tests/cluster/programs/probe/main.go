// Command probe is both ends of a test's traffic, in pods: `probe serve` answers HTTP and says who it is,
// `probe get` asks once and prints what came back as JSON, `probe api` asks the API
// server, `probe files` lists a folder. It needs no shell and no libraries.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// Answer is what get prints.
type Answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	Millis  int64             `json:"millis"`
}

// A body beyond this is not a test's.
const bodyLimit = 1 << 20

func main() {
	if len(os.Args) < 2 {
		fail("probe serve|get")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2:])
	case "get":
		get(os.Args[2:])
	case "api":
		api(os.Args[2:])
	case "files":
		files(os.Args[2])
	default:
		fail("probe serve|get|api|files, not " + os.Args[1])
	}
}

// serve answers with the pod's name, the peer's address and the request's body, on every address family.
func serve(args []string) {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	port := set.String("port", "8080", "port")
	_ = set.Parse(args)
	host, _ := os.Hostname()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, bodyLimit))
		peer, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Pod", host)
		w.Header().Set("Peer", peer)
		fmt.Fprintf(w, "%s %s %s\n%s", host, r.Method, r.URL.RequestURI(), body)
	})
	fmt.Println("serving on", *port)
	server := &http.Server{Addr: ":" + *port, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	fail(server.ListenAndServe().Error())
}

func get(args []string) {
	set := flag.NewFlagSet("get", flag.ExitOnError)
	timeout := set.Duration("timeout", 5*time.Second, "for the whole exchange")
	method := set.String("method", "GET", "method")
	body := set.String("body", "", "body")
	headers := set.String("headers", "", "name:value, comma separated")
	want := set.Int("status", 0, "fail if another status comes back; 0 takes any")
	_ = set.Parse(args)
	request, err := http.NewRequest(*method, set.Arg(0), strings.NewReader(*body))
	if err != nil {
		fail(err.Error())
	}
	for _, header := range strings.Split(*headers, ",") {
		if name, value, ok := strings.Cut(header, ":"); ok {
			request.Header.Add(name, strings.TrimSpace(value))
			if strings.EqualFold(name, "host") {
				request.Host = strings.TrimSpace(value)
			}
		}
	}
	client := &http.Client{
		Timeout:       *timeout,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		fail(err.Error())
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	if err != nil {
		fail(err.Error())
	}
	answer := Answer{Status: response.StatusCode, Headers: map[string]string{}, Body: string(text), Millis: time.Since(began).Milliseconds()}
	for name := range response.Header {
		answer.Headers[name] = response.Header.Get(name)
	}
	_ = json.NewEncoder(os.Stdout).Encode(answer)
	if *want != 0 && answer.Status != *want {
		fail(fmt.Sprintf("status %d, not %d", answer.Status, *want))
	}
}

// api asks the API server the way any client in a pod does: with the pod's token, trusting the pod's CA alone.
func api(args []string) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		fail(err.Error())
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		fail(err.Error())
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		fail("the pod's ca.crt holds no certificate")
	}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	request, err := http.NewRequest(http.MethodGet, "https://"+server+strings.Join(args, ""), nil)
	if err != nil {
		fail(err.Error())
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.Do(request)
	if err != nil {
		fail(err.Error())
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	if err != nil {
		fail(err.Error())
	}
	if response.StatusCode != http.StatusOK {
		fail(response.Status + " " + string(text))
	}
	fmt.Println(string(text))
}

// files lists a folder: each name, and for a mounted namespace the word "namespace".
func files(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fail(err.Error())
	}
	for _, entry := range entries {
		var stat syscall.Statfs_t
		kind := ""
		if err := syscall.Statfs(dir+"/"+entry.Name(), &stat); err == nil && stat.Type == namespaceMagic {
			kind = " namespace"
		}
		fmt.Println(entry.Name() + kind)
	}
}

// namespaceMagic is NSFS_MAGIC of linux/magic.h.
const namespaceMagic = 0x6e736673

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}
