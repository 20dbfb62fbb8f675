# The real cluster: bring one up, run the conformance suite on it, make Heddle's images. Included by the root Makefile;
# also works alone: make -f tests/cluster/bed.mk bed-up
BED_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
BED_ROOT := $(abspath $(BED_DIR)/../..)
BED_HOME ?= $(or $(HEDDLE_BED_HOME),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/heddle/bed)
BED := $(BED_HOME)/bed
BED_PACKAGES := iproute2 nftables conntrack containernetworking-plugins libseccomp-dev pkg-config gcc libc6-dev python3-venv
export BED_SOURCE := $(abspath $(BED_DIR))
export HEDDLE_BED_HOME := $(BED_HOME)

.PHONY: bed bed-packages bed-build bed-up bed-down bed-status bed-test bed-stories bed-soak bed-tools test-cluster conformance images

bed: $(BED)

# Always asked, seldom built: Go's cache knows whether the driver changed.
.PHONY: $(BED)
$(BED):
	@mkdir -p $(BED_HOME)
	@cd $(BED_DIR) && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -o $(BED) ./cmd/bed

# As root on Debian what is missing is installed; elsewhere it is named, one line each.
bed-packages: $(BED)
	@if ! $(BED) check >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=; for p in $(BED_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then echo "installing$$missing"; (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing) >/dev/null; fi; fi
	@$(BED) check

bed-build: bed-packages
	@$(BED) build

bed-up: bed-packages
	@$(BED) up $(UPFLAGS)

bed-down: $(BED)
	@$(BED) down

bed-status: $(BED)
	@$(BED) status
