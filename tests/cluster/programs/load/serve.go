package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// What is not answered by then was not meant to be.
	shutdownWithin = 10 * time.Second
	// A frame of the echo: 4 bytes of length, then the bytes. Length 0 is the server's goodbye.
	frameLimit = 1 << 20
)

// serve answers until SIGTERM, goes on for the linger (a well-behaved server outlives the news of its end),
// then says goodbye in each protocol's own way.
func serve(args []string) {
	set := flag.NewFlagSet("serve", flag.ExitOnError)
	linger := set.Duration("linger", 5*time.Second, "how long to go on after SIGTERM")
	_ = set.Parse(args)
	host, _ := os.Hostname()

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	web := &http.Server{Addr: ":8080", Handler: hello(host), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			fail(err.Error())
		}
	}()

	calls := grpc.NewServer()
	calls.RegisterService(&echoService, echo(host))
	listener, err := net.Listen("tcp", ":9090")
	if err != nil {
		fail(err.Error())
	}
	go func() {
		if err := calls.Serve(listener); err != nil {
			fail(err.Error())
		}
	}()

	bytes, err := net.Listen("tcp", ":7070")
	if err != nil {
		fail(err.Error())
	}
	streams := &streams{host: host, ending: make(chan struct{})}
	go streams.accept(bytes)

	fmt.Println("serving as", host)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	time.Sleep(*linger)
	within, cancel := context.WithTimeout(context.Background(), shutdownWithin)
	defer cancel()
	close(streams.ending)
	// The process may not end before the last call is answered: its connections would be reset.
	answered := make(chan struct{})
	go func() {
		calls.GracefulStop()
		close(answered)
	}()
	if err := web.Shutdown(within); err != nil {
		fmt.Println("requests were still open:", err)
	}
	streams.all.Wait()
	select {
	case <-answered:
	case <-within.Done():
		fmt.Println("calls were still open:", within.Err())
	}
}

// hello names the pod and repeats what the client said, so that a marker passes both ways.
func hello(host string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, frameLimit))
		w.Header().Set("Pod", host)
		fmt.Fprintf(w, "%s %s", r.Header.Get("Ticket"), r.Header.Get("Marker"))
	})
}

// echo answers a unary call with what it got; the pod's name travels as metadata.
type echo string

func (e echo) say(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs("pod", string(e))); err != nil {
		return nil, err
	}
	return in, nil
}

const echoMethod = "/heddle.load.Echo/Say"

var echoService = grpc.ServiceDesc{
	ServiceName: "heddle.load.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: func(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		return server.(echo).say(ctx, in)
	}}},
}

// streams are the byte streams of a server: first the pod's name as a frame, then each frame comes back.
type streams struct {
	host   string
	ending chan struct{}
	all    sync.WaitGroup
}

func (s *streams) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			fail(err.Error())
		}
		s.all.Add(1)
		go func() {
			defer s.all.Done()
			defer conn.Close()
			s.echo(conn)
		}()
	}
}

func (s *streams) echo(conn net.Conn) {
	if writeFrame(conn, []byte(s.host)) != nil {
		return
	}
	for {
		select {
		case <-s.ending:
			// Everything that was asked is answered; the client closes when it has read this.
			_ = writeFrame(conn, nil)
			_ = conn.SetReadDeadline(time.Now().Add(shutdownWithin))
			_, _ = io.Copy(io.Discard, conn)
			return
		default:
		}
		// Waking up now and then is how the goodbye is not forgotten on a silent stream.
		frame, err := readFrame(conn, 200*time.Millisecond)
		if errors.Is(err, errSilent) {
			continue
		}
		if err != nil || writeFrame(conn, frame) != nil {
			return
		}
	}
}

var errSilent = errors.New("no frame began")

// readFrame waits for a frame to begin within patience; once begun it must come whole within the limit.
func readFrame(conn net.Conn, patience time.Duration) ([]byte, error) {
	var head [4]byte
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if n, err := conn.Read(head[:1]); n == 0 {
		var network net.Error
		if errors.As(err, &network) && network.Timeout() {
			return nil, errSilent
		}
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(requestLimit))
	if _, err := io.ReadFull(conn, head[1:]); err != nil {
		return nil, fmt.Errorf("in the middle of a frame: %w", err)
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > frameLimit {
		return nil, fmt.Errorf("a frame of %d bytes: these are not the bytes that were sent", length)
	}
	frame := make([]byte, length)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return nil, fmt.Errorf("in the middle of a frame: %w", err)
	}
	return frame, nil
}

func writeFrame(conn net.Conn, frame []byte) error {
	_ = conn.SetWriteDeadline(time.Now().Add(requestLimit))
	_, err := conn.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame))), frame...))
	return err
}
