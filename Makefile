# The commands of a working day. `make` alone lists them.

GO      ?= go
BIN     := bin/holdfast
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.release=$(VERSION)

# A live whatsmeow client races with itself inside the library's socket code. The
# race detector leaves out what the file names, and nothing else: see there.
RACE := GORACE="halt_on_error=0 suppressions=$(CURDIR)/infra/racecheck/library.supp"

.DEFAULT_GOAL := help
.PHONY: help build run demo test quick bench lint fuzz cover clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

build: ## build bin/holdfast, pure Go
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/holdfast

run: build ## run worker and admin API on this machine, state in ./data; scan the QR code it shows
	$(BIN) dev $(ARGS)

demo: build ## the same against a simulated service and phone: no phone, no internet, about a minute
	$(BIN) demo $(ARGS)

# -race needs cgo and so a C compiler; `make quick` needs neither. Two packages at
# a time keep a machine of two cores from starving tests with real sockets.
test: ## all tests under the race detector, under 5 minutes on 2 cores
	$(RACE) $(GO) test -race -p 2 -timeout 4m ./...

quick: ## all tests without the race detector
	$(GO) test -timeout 3m ./...

# Every benchmark once, each beside the library alone where that makes sense.
bench: ## the numbers, with the machine they were taken on
	@echo "machine: $$(uname -srm), $$(nproc) cores, $$(awk '/MemTotal/ {printf "%d MiB", $$2/1024}' /proc/meminfo), $$($(GO) version)"
	$(GO) test -run '^$$' -bench '$(or $(BENCH),.)' -benchmem -timeout 30m $(or $(PKG),./...)

lint: ## gofmt, vet, and golangci-lint where it is installed
	@bad=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); if [ -n "$$bad" ]; then echo "gofmt wants: $$bad"; exit 1; fi
	$(GO) vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run ./...; else echo "golangci-lint is not installed: its rules were not checked"; fi

FUZZTIME ?= 10s

fuzz: ## each fuzz test for FUZZTIME (10s)
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "$$name in $$(dirname $$file)"; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
		done; done

cover: ## how much of the code the tests run, by package, and cover.out for go tool cover
	$(GO) test -coverprofile=cover.out -coverpkg=./... ./... >/dev/null
	@$(GO) tool cover -func=cover.out | tail -n 1

clean: ## remove what was built; ./data stays
	rm -rf bin dist cover.out
