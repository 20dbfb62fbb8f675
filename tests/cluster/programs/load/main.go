// Command load is both ends of a steady load, in pods: `load serve` answers HTTP/1.1, HTTP/2, gRPC and a
// checksummed echo of bytes, `load drive` asks without pause and counts every answer that did not come, and
// `load report`, `load mark WORD`, `load reset` and `load renew` (byte streams end in good order and begin anew) speak
// to the driver of the same pod. `load changes` notes the moment at which answers begin to be others, and
// `load sign` asks a controller for a certificate. It knows no Kubernetes.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail("load serve|drive|changes|sign|report|mark|reset|renew")
	}
	switch verb := os.Args[1]; verb {
	case "serve":
		serve(os.Args[2:])
	case "drive":
		drive(os.Args[2:])
	case "changes":
		changes(os.Args[2:])
	case "sign":
		sign(os.Args[2:])
	case "report", "reset", "renew":
		ask(verb)
	case "mark":
		if len(os.Args) != 3 {
			fail("load mark WORD")
		}
		ask("mark " + os.Args[2])
	default:
		fail("load serve|drive|changes|sign|report|mark|reset|renew, not " + verb)
	}
}

func fail(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}
