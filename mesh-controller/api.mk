# Generates mesh-controller/src/api/generated from the CRDs of the Gateway API Go module and from deploy/crds.
.PHONY: generate-api
generate-api:
	mesh-controller/src/api/generate.sh
