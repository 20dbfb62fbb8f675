#!/bin/bash
# Generates src/api/generated: Rust types (kopium) and schemas.json (what an API server defaults and checks) for every kind that the controller reads.
# Needs go, python3 with PyYAML, rustfmt, and kopium 0.24: cargo install kopium --version '^0.24'
set -euo pipefail
module=sigs.k8s.io/gateway-api@v1.7.0
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$here/generated
for tool in go python3 rustfmt kopium; do command -v "$tool" >/dev/null || { echo "generate.sh: $tool is not installed" >&2; exit 1; }; done
kopium --version | grep -q ' 0\.24\.' || { echo "generate.sh: kopium 0.24 is needed, this is $(kopium --version)" >&2; exit 1; }

# An older Go refuses the module's go directive after having downloaded it, so only the folder decides.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
(cd "$work" && go mod download "$module" >"$work/go.log" 2>&1) || true
crds=$(go env GOMODCACHE)/$module/config/crd/experimental
[ -d "$crds" ] || { cat "$work/go.log" >&2; echo "generate.sh: $module cannot be downloaded" >&2; exit 1; }

files=(
  gatewayclass:$crds/gateway.networking.k8s.io_gatewayclasses.yaml
  gateway:$crds/gateway.networking.k8s.io_gateways.yaml
  listenerset:$crds/gateway.networking.k8s.io_listenersets.yaml
  httproute:$crds/gateway.networking.k8s.io_httproutes.yaml
  grpcroute:$crds/gateway.networking.k8s.io_grpcroutes.yaml
  tlsroute:$crds/gateway.networking.k8s.io_tlsroutes.yaml
  tcproute:$crds/gateway.networking.k8s.io_tcproutes.yaml
  udproute:$crds/gateway.networking.k8s.io_udproutes.yaml
  referencegrant:$crds/gateway.networking.k8s.io_referencegrants.yaml
  backendtlspolicy:$crds/gateway.networking.k8s.io_backendtlspolicies.yaml
  xmesh:$crds/gateway.networking.x-k8s.io_xmeshes.yaml
  xbackendtrafficpolicy:$crds/gateway.networking.x-k8s.io_xbackendtrafficpolicies.yaml
  meshparameters:$root/deploy/crds/heddle.dev_meshparameters.yaml
)
mkdir -p "$out"
for entry in "${files[@]}"; do
  name=${entry%%:*}; file=${entry#*:}; version=v1
  case $name in x*|meshparameters) version=v1alpha1;; esac
  kopium --filename "$file" --api-version $version --hide-kube --hide-prelude --no-condition --smart-derive-elision \
    --derive Default --derive PartialEq > "$work/$name.rs"
done
python3 "$here/generate.py" "$out" "$work" "${files[@]}"
rustfmt --edition 2024 --config-path "$root/rustfmt.toml" "$out"/*.rs
