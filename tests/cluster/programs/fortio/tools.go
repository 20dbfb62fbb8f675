//go:build tools

// Package fortio pins a tool of tests and benches; it is built on demand (bed build fortio).
package fortio

import _ "fortio.org/fortio"
