//go:build tools

package echo

import _ "sigs.k8s.io/gateway-api-conformance-images/echo-basic"
