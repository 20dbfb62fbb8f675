package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// How a web client uses its connections.
type webStyle int

const (
	webKeep webStyle = iota
	webNew
	web2
)

type web struct {
	url, host string
	client    *http.Client
}

func newWeb(address, host string, style webStyle) *web {
	protocols := new(http.Protocols)
	if style == web2 {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	transport := &http.Transport{Protocols: protocols, DisableKeepAlives: style == webNew, MaxIdleConnsPerHost: outstandingLimit, DisableCompression: true}
	return &web{url: "http://" + address + "/load", host: host, client: &http.Client{Transport: transport, Timeout: requestLimit}}
}

func (w *web) ask(ticket, marker string) (string, int, error) {
	request, err := http.NewRequest(http.MethodGet, w.url, nil)
	if err != nil {
		return "", 0, err
	}
	request.Host = w.host
	request.Header.Set("Ticket", ticket)
	request.Header.Set("Marker", marker)
	// A connection that ends while a request is on it makes the library try again on another: that is counted.
	connections := 0
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections++ }}))
	response, err := w.client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, frameLimit))
	if err != nil {
		return "", 0, fmt.Errorf("body: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("status %d: %s", response.StatusCode, bytes.TrimSpace(text))
	}
	if want := ticket + " " + marker; string(text) != want {
		return "", 0, errors.New("the answer is not to this request")
	}
	return response.Header.Get("Pod"), max(connections-1, 0), nil
}

type calls struct{ conn *grpc.ClientConn }

func newCalls(address, host string) *calls {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if host != "" {
		options = append(options, grpc.WithAuthority(host))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		fail(err.Error())
	}
	return &calls{conn: conn}
}

func (c *calls) ask(ticket, marker string) (string, int, error) {
	within, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	var header metadata.MD
	out, want := new(wrapperspb.StringValue), ticket+" "+marker
	if err := c.conn.Invoke(within, echoMethod, wrapperspb.String(want), out, grpc.Header(&header)); err != nil {
		return "", 0, err
	}
	if out.GetValue() != want {
		return "", 0, errors.New("the answer is not to this call")
	}
	pod := ""
	if values := header.Get("pod"); len(values) > 0 {
		pod = values[0]
	}
	return pod, 0, nil
}

const (
	// A stream sends a frame this often, and a failed one is opened anew after the same pause.
	frameEvery = 50 * time.Millisecond
	frameMost  = 4096
)

// stream keeps one long byte stream open: frames of random bytes around the marker must come back the same.
// It is opened anew when it broke (a failure), when the server said goodbye and when turn has changed (none).
func stream(address string, tally *tally, word *atomic.Value, turn *atomic.Int64) {
	for {
		began, generation := time.Now(), tally.sent()
		conn, backend, err := open(address)
		tally.done(generation, began, backend, 0, err)
		if err == nil {
			tally.opened()
			converse(conn, backend, tally, word, turn)
			conn.Close()
		}
		time.Sleep(frameEvery)
	}
}

func open(address string) (net.Conn, string, error) {
	conn, err := net.DialTimeout("tcp", address, requestLimit)
	if err != nil {
		return nil, "", err
	}
	name, err := readFrame(conn, requestLimit)
	if err != nil {
		conn.Close()
		return nil, "", fmt.Errorf("no greeting: %w", err)
	}
	return conn, string(name), nil
}

func converse(conn net.Conn, backend string, tally *tally, word *atomic.Value, turn *atomic.Int64) {
	began := turn.Load()
	for range time.Tick(frameEvery) {
		if turn.Load() != began {
			return
		}
		marker := word.Load().(string) + "." + tally.name
		frame := make([]byte, 1+rand.IntN(frameMost))
		for i := range frame {
			frame[i] = byte(rand.Uint32())
		}
		frame = append(frame, marker...)
		sentAt, generation := time.Now(), tally.sent()
		sum := crc32.ChecksumIEEE(frame)
		err := writeFrame(conn, frame)
		var back []byte
		if err == nil {
			back, err = readFrame(conn, requestLimit)
		}
		if err == nil && len(back) == 0 {
			// The server's goodbye crossed this frame, which it has therefore not read.
			tally.goodbye(generation)
			return
		}
		if err == nil && crc32.ChecksumIEEE(back) != sum {
			err = errors.New("other bytes came back than were sent")
		}
		tally.done(generation, sentAt, backend, 0, err)
		if err != nil {
			return
		}
	}
}
