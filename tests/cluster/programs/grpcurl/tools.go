//go:build tools

// Package grpcurl pins a tool of tests and benches; it is built on demand (bed build grpcurl).
package grpcurl

import _ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
