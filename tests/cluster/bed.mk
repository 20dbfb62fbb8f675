# The real cluster: bring one up, run the conformance suite on it, make Heddle's images. Included by the root Makefile;
# also works alone: make -f tests/cluster/bed.mk bed-up
BED_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
BED_ROOT := $(abspath $(BED_DIR)/../..)
BED_HOME ?= $(or $(HEDDLE_BED_HOME),$(or $(HEDDLE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/heddle)/bed)
BED_PROGRAM := $(BED_HOME)/bed
BED_PACKAGES := iproute2 nftables conntrack containernetworking-plugins libseccomp-dev pkg-config gcc libc6-dev python3-venv
export BED_SOURCE := $(abspath $(BED_DIR))
export HEDDLE_BED_HOME := $(BED_HOME)

.PHONY: bed bed-packages bed-build bed-up bed-down bed-status bed-test bed-stories bed-figures bed-soak bed-tools bed-install test-cluster conformance images

bed: $(BED_PROGRAM)

# Always asked, seldom built: Go's cache knows whether the driver changed.
.PHONY: $(BED_PROGRAM)
$(BED_PROGRAM):
	@command -v go >/dev/null || { echo "missing: go 1.26 or newer (https://go.dev/dl)" >&2; exit 2; }
	@mkdir -p $(BED_HOME)
	@cd $(BED_DIR) && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -o $(BED_PROGRAM) ./cmd/bed

# As root on Debian what is missing is installed; elsewhere it is named, one line each.
bed-packages: $(BED_PROGRAM)
	@if ! $(BED_PROGRAM) check >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=; for p in $(BED_PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then echo "installing$$missing"; (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing) >/dev/null; fi; fi
	@$(BED_PROGRAM) check

bed-build: bed-packages
	@$(BED_PROGRAM) build

bed-up: bed-packages
	@$(BED_PROGRAM) up $(UPFLAGS)

bed-down: $(BED_PROGRAM)
	@$(BED_PROGRAM) down

bed-status: $(BED_PROGRAM)
	@$(BED_PROGRAM) status

# The stories, on the bed that BED names; it is brought up if it is not, and left up. `.` needs nothing installed; `mesh` is what every change
# of Heddle must pass and `siege` what takes its time; both install it first. RUN=TestName V=1 STORIES=mesh UPFLAGS="--nodes 3 --dual"
STORIES ?= . mesh siege
STORY_ENV = BED_PROGRAM=$(BED_PROGRAM) MESHCTL=$(BED_ROOT)/target/images/programs/meshctl
bed-stories: bed-build $(if $(filter-out .,$(STORIES)),images)
	@$(BED_PROGRAM) leftovers >/dev/null || $(BED_PROGRAM) status >/dev/null || $(BED_PROGRAM) down
	@$(BED_PROGRAM) status >/dev/null 2>&1 || $(BED_PROGRAM) up $(UPFLAGS)
	@set -e; cd $(BED_DIR); for s in $(STORIES); do \
	  [ $$s = . ] || $(BED_PROGRAM) install; \
	  $(STORY_ENV) go test -p 1 -count=1 -timeout 90m ./stories/$$s $(if $(RUN),-run '$(RUN)') $(if $(V),-v); done

# The figures of SPECIFICATION.md about a cluster: about ten minutes on a machine that does nothing else.
bed-figures: bed-build images
	@$(BED_PROGRAM) status >/dev/null 2>&1 || $(BED_PROGRAM) up $(UPFLAGS)
	@$(BED_PROGRAM) install && cd $(BED_DIR) && $(STORY_ENV) FIGURES=$(BED_ROOT)/target/figures.md go test -tags figures -count=1 -timeout 60m -v ./stories/figures | grep -v '^=== '

# The bed's own test: no trace left, refusals in one line, the suite with nothing installed.
bed-test: bed-build
	@cd $(BED_DIR) && go vet ./... && test -z "$$(gofmt -l .)" && go test -count=1 $$(go list -f '{{if .TestGoFiles}}{{.ImportPath}}{{end}}' ./internal/...)
	@cd $(BED_DIR) && BED_PROGRAM=$(BED_PROGRAM) go test -count=1 -v -parallel 2 -timeout 30m ./bedtest/... $(if $(RUN),-run '$(RUN)')

bed-soak: bed-build
	@cd $(BED_DIR) && BED_CYCLES=20 BED_PROGRAM=$(BED_PROGRAM) go test -count=1 -v -timeout 60m -run TestABedComesAndGoesWithoutATrace ./bedtest/

# What `make test` runs of all this: the bed's own test with the conformance table of an empty cluster; then, on one dual-stack bed, the stories
# that need nothing installed, Heddle as the tests have built it, both mesh profiles, and the stories that every change must pass.
test-cluster: bed-test
	@$(MAKE) -f $(BED_ROOT)/tests/cluster/bed.mk images IMAGE_PROFILE=dev
	@export BED=ci$$$$; trap '$(BED_PROGRAM) down' EXIT; set -e; $(BED_PROGRAM) up --dual; cd $(BED_DIR); \
	  go test -count=1 -timeout 20m ./stories; \
	  $(BED_PROGRAM) install; \
	  $(BED_PROGRAM) conformance --no-install --profiles MESH-HTTP,MESH-GRPC; \
	  $(STORY_ENV) go test -p 1 -count=1 -timeout 40m ./stories/mesh

# Heddle on the bed that BED names, brought up if it is not: IMAGE_PROFILE=dev takes what the tests have built.
bed-install: bed-build images
	@$(BED_PROGRAM) install $(UPFLAGS)

# PROFILES=MESH-HTTP,… RUN=TestName BARE=1 EXTRA=1 (tests that the suite lacks)
conformance: bed-build $(if $(BARE),,images)
	@$(BED_PROGRAM) conformance $(if $(PROFILES),--profiles $(PROFILES)) $(if $(RUN),--run $(RUN)) $(if $(BARE),--bare) $(if $(EXTRA),--extra) $(UPFLAGS)

# Tools for later tests and benches, built on demand: make bed-tools TOOLS="otel prometheus fortio grpcurl h2spec"
TOOLS ?= otel prometheus fortio grpcurl h2spec
bed-tools: bed-packages
	@$(BED_PROGRAM) build $(TOOLS)

# Heddle's own programs as images: one static file each (.cargo/config.toml), none needs root but those that set up other pods' networks.
# IMAGE_PROFILE=dev takes what the tests have built, so that a test on a cluster compiles nothing twice; what is published is `release`.
CARGO_TARGET_DIR ?= $(or $(HEDDLE_CACHE),$(HOME)/.cache/heddle)/target
IMAGE_PROFILE ?= release
IMAGE_TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
IMAGE_BUILT := $(CARGO_TARGET_DIR)/$(IMAGE_TRIPLE)/$(if $(filter dev,$(IMAGE_PROFILE)),debug,$(IMAGE_PROFILE))
IMAGE_VERSION ?= $(shell sed -n 's/^version *= *"\(.*\)"/\1/p' $(BED_ROOT)/Cargo.toml | head -1)
IMAGE_PROGRAMS ?= mesh-controller mesh-proxy mesh-cni meshctl
# The proxy enters pods' network namespaces and mesh-cni is copied onto the node: both are root in their container.
IMAGE_ROOT := mesh-proxy mesh-cni
# The proxy sets up pods' networks with these two; they come from the building machine, with just their libraries.
IMAGE_PROXY_WITH := --with nft --with ip
images: bed
	@cd $(BED_ROOT) && CARGO_TARGET_DIR=$(CARGO_TARGET_DIR) cargo build --profile $(IMAGE_PROFILE) --locked --workspace --bins
	@mkdir -p $(BED_ROOT)/target/images/programs; set -e; for p in $(IMAGE_PROGRAMS); do \
	  strip -o $(BED_ROOT)/target/images/programs/$$p $(IMAGE_BUILT)/$$p; \
	  user=65532:65532; case " $(IMAGE_ROOT) " in *" $$p "*) user=0:0;; esac; \
	  with=; case $$p in mesh-proxy) with="$(IMAGE_PROXY_WITH)";; esac; \
	  $(BED_PROGRAM) image --out $(BED_ROOT)/target/images/$$p.tar --name heddle.dev/$$p:v$(IMAGE_VERSION) --user $$user $$with $(BED_ROOT)/target/images/programs/$$p; done
