//go:build tools

// Package prometheus pins a tool of tests and benches; it is built on demand (bed build prometheus).
package prometheus

import _ "github.com/prometheus/prometheus/cmd/prometheus"
