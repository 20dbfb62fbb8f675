//go:build tools

// Package h2spec pins a tool of tests and benches; it is built on demand (bed build h2spec).
package h2spec

import _ "github.com/summerwind/h2spec/cmd/h2spec"
