# deploy/manifests is rendered from deploy/chart. Included by the root Makefile, after tests/cluster/bed.mk.
CHART := $(BED_ROOT)/deploy/chart
MANIFESTS := $(BED_ROOT)/deploy/manifests/heddle.yaml
HELM = $(BED_HOME)/bin/helm
# The oldest Kubernetes that the chart says it runs on renders what all newer ones take.
HELM_RENDER = $(HELM) template heddle $(CHART) --namespace heddle-system --kube-version 1.29.0 --set namespace.create=true
# The chart's own files, by content: what the manifests say they were rendered from.
CHART_SUM = $(shell cd $(CHART) && find Chart.yaml values.yaml templates -type f ! -name NOTES.txt | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)

.PHONY: manifests manifests-check helm

## Helm itself, from its Go module: 1.5 minutes of a processor, once.
helm: bed-packages
	@$(BED_PROGRAM) build helm

# Helm says on standard error that chart/crds is a link; the rest it says is an error.
define RENDER
{ echo "# Rendered from deploy/chart by \`make manifests\`; edit there. Chart $(CHART_SUM)."; $(HELM_RENDER) 2> >(grep -v 'found symbolic link' >&2); }
endef

manifests: helm
	@$(HELM) lint --quiet $(CHART) 2>/dev/null
	@$(RENDER) > $(MANIFESTS).new && mv $(MANIFESTS).new $(MANIFESTS)

## Renders again and compares; the cheap form of this, by the chart's checksum, is a test of `go test ./internal/deployed` in tests/cluster.
manifests-check: helm
	@$(HELM) lint --quiet $(CHART) 2>/dev/null
	@$(RENDER) | diff -u $(MANIFESTS) - || { echo "deploy/manifests is not what deploy/chart renders: make manifests" >&2; exit 1; }
