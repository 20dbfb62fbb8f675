package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"
)

// changes asks without pause on one connection and prints a line for each new value of a header of the answers:
// the value, and the nanoseconds since 1970 at which the first such answer had come.
func changes(args []string) {
	set := flag.NewFlagSet("changes", flag.ExitOnError)
	address := set.String("web", "", "ADDRESS:PORT")
	host := set.String("host", "", "the name to ask for")
	header := set.String("header", "Round", "the header to look at")
	pause := set.Duration("pause", time.Millisecond, "between an answer and the next request")
	_ = set.Parse(args)
	client := &http.Client{Timeout: requestLimit}
	last := ""
	for ; ; time.Sleep(*pause) {
		request, err := http.NewRequest(http.MethodGet, "http://"+*address+"/changes", nil)
		if err != nil {
			fail(err.Error())
		}
		request.Host = *host
		response, err := client.Do(request)
		if err != nil {
			fmt.Println("failed", time.Now().UnixNano(), err)
			continue
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if value := response.Header.Get(*header); value != last {
			last = value
			fmt.Println(value, time.Now().UnixNano())
		}
	}
}
