//go:build tools

// Package echo pins the conformance suite's echo server.
package echo

import _ "sigs.k8s.io/gateway-api-conformance-images/echo-basic"
