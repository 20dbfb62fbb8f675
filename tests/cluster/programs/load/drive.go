package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// A request that takes longer has failed: a person would have given up.
	requestLimit = 10 * time.Second
	// Requests under way at once per kind. When the mesh stalls, those that cannot even be sent are failures too.
	outstandingLimit = 400
	// The driver listens here; an abstract name belongs to the pod's own network.
	control = "@heddle-load"
)

// asker sends one request and says who answered. Retried counts tries that the client library repeated by itself.
type asker interface {
	ask(ticket, marker string) (backend string, retried int, err error)
}

// driver is one kind of load.
type driver struct {
	tally  *tally
	asker  asker
	every  time.Duration
	marker *atomic.Value
}

// drive asks forever; the report is fetched over the control socket.
func drive(args []string) {
	set := flag.NewFlagSet("drive", flag.ExitOnError)
	web := set.String("web", "", "ADDRESS:PORT that speaks HTTP/1.1")
	h2 := set.String("h2", "", "ADDRESS:PORT that speaks HTTP/2")
	calls := set.String("grpc", "", "ADDRESS:PORT that speaks gRPC")
	bytes := set.String("tcp", "", "ADDRESS:PORT of the echo")
	host := set.String("host", "", "the name to ask for; the address if empty")
	rate := set.Int("rate", 60, "requests a second of each kind")
	count := set.Int("streams", 4, "long byte streams")
	marker := set.String("marker", "marker-of-nobody", "the word that every request and answer carries")
	_ = set.Parse(args)
	var word atomic.Value
	var turn atomic.Int64
	word.Store(*marker)
	book := newBook()
	every := time.Second / time.Duration(*rate)
	begin := func(kind string, asker asker) {
		d := driver{tally: book.tally(kind), asker: asker, every: every, marker: &word}
		go d.run()
	}
	if *web != "" {
		begin("h1", newWeb(*web, *host, webKeep))
		begin("h1-new", newWeb(*web, *host, webNew))
	}
	if *h2 != "" {
		begin("h2", newWeb(*h2, *host, web2))
	}
	if *calls != "" {
		begin("grpc", newCalls(*calls, *host))
	}
	if *bytes != "" {
		tally := book.tally("tcp")
		for range *count {
			go stream(*bytes, tally, &word, &turn)
		}
	}
	listener, err := net.Listen("unix", control)
	if err != nil {
		fail(err.Error())
	}
	fmt.Println("driving")
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail(err.Error())
		}
		answer(conn, book, &word, &turn)
	}
}

// run keeps the pace whatever the answers do: a slow mesh must not be asked less.
func (d driver) run() {
	slots := make(chan struct{}, outstandingLimit)
	var number uint64
	for range time.Tick(d.every) {
		number++
		select {
		case slots <- struct{}{}:
		default:
			d.tally.failed(time.Now(), "", fmt.Errorf("%d requests are under way without an answer", outstandingLimit))
			continue
		}
		go func() {
			defer func() { <-slots }()
			began := time.Now()
			generation := d.tally.sent()
			backend, retried, err := d.asker.ask(fmt.Sprintf("t%d", number), d.marker.Load().(string)+"."+d.tally.name)
			d.tally.done(generation, began, backend, retried, err)
		}()
	}
}

// answer obeys one line of the control socket.
func answer(conn net.Conn, book *book, word *atomic.Value, turn *atomic.Int64) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(requestLimit))
	line := make([]byte, 256)
	n, err := conn.Read(line)
	if err != nil {
		return
	}
	verb, rest, _ := strings.Cut(strings.TrimSpace(string(line[:n])), " ")
	switch verb {
	case "mark":
		word.Store(rest)
	case "reset":
		book.reset()
	case "renew":
		turn.Add(1)
	}
	_, _ = conn.Write(book.json())
}

func ask(line string) {
	conn, err := net.Dial("unix", control)
	if err != nil {
		fail(err.Error())
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(line + "\n")); err != nil {
		fail(err.Error())
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		fail(err.Error())
	}
	_, _ = os.Stdout.Write(text)
}
