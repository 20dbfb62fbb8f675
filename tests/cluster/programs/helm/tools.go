//go:build tools

// Package helm pins the program that renders deploy/chart; it is built on demand (bed build helm).
package helm

import _ "helm.sh/helm/v3/cmd/helm"
