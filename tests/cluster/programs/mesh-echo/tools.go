//go:build tools

// Package meshecho pins the echo app that the suite's mesh tests use as server and client.
package meshecho

import (
	_ "istio.io/istio/pkg/test/echo/cmd/client"
	_ "istio.io/istio/pkg/test/echo/cmd/server"
)
