# Everything a contributor or a CI machine runs. `make help` lists the targets.
# Needs Python >= 3.11; npm for what reads the contract, go for the load tools.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	"$$p" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

BIN := .venv/bin
TOOLS := .tools
BUF := $(TOOLS)/buf/node_modules/.bin/buf
GOOGLEAPIS := $(TOOLS)/googleapis/.stamp
PORTKEY := $(TOOLS)/portkey/node_modules/@portkey-ai/gateway/build/start-server.js
GHZ := $(TOOLS)/bin/ghz
GRPCURL := $(TOOLS)/bin/grpcurl
HELM := $(TOOLS)/bin/helm
PROTOC_GEN_GO := $(TOOLS)/bin/protoc-gen-go
PROTOC_GEN_GO_GRPC := $(TOOLS)/bin/protoc-gen-go-grpc
GHZ_VERSION := v0.93.0
HELM_VERSION := v3.19.0
GRPCURL_VERSION := v1.9.4
PROTOC_GEN_GO_VERSION := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
STUBS := clients/python/trunkline/v1 clients/python/trunkline/admin/v1
COMMENTS := server/trunkline_server/contract/comments.json
PACKAGES := --editable clients/python --editable .
PROJECTS := pyproject.toml clients/python/pyproject.toml

# Extra words for pytest, e.g. make test ARGS="tests/unit -x".
ARGS ?=

# The generator plugins are Python programs: they must be those of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: run
run: .venv/run.stamp ## Install what running needs, then serve with simulated providers.
	@exec $(BIN)/trunkline serve

.PHONY: run-full
run-full: .venv/run.stamp ## The same on a Redis and a Postgres of its own, behind the control plane.
	@exec $(BIN)/python -m tools.run_full $(ARGS)

.PHONY: test
test: .venv/dev.stamp ## Run the tests. COVERAGE=1 measures them; ARGS go to pytest.
ifdef COVERAGE
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
else
	@$(BIN)/pytest -q $(ARGS)
endif

.PHONY: check
check: check-python check-contract ## Lint, format, types, import law and contract; changes nothing.

.PHONY: check-python
check-python: .venv/dev.stamp ## The part of check that needs Python only.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without npm there is no buf: a warning on a contributor's machine, a failure in CI.
.PHONY: check-contract
ifeq ($(shell command -v npm)$(filter true,$(CI)),)
check-contract:
	@echo "warning: the contract was not checked: npm, which installs buf, was not found" >&2
else
check-contract: .venv/dev.stamp $(BUF) $(GOOGLEAPIS) ## The part of check that needs buf.
	$(BUF) lint
	$(BUF) format --diff --exit-code proto
	tools/buf_breaking.sh $(BUF)
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(BUF) generate --output "$$scratch"; \
	for stubs in $(STUBS); do \
		diff --recursive --exclude __pycache__ "$$scratch/$$stubs" "$$stubs" || \
			{ echo "error: the stubs are not those of proto/: run 'make generate'" >&2; exit 1; }; \
	done; \
	diff "$$scratch/$(COMMENTS)" $(COMMENTS) >&2 || \
		{ echo "error: the comments are not those of proto/: run 'make generate'" >&2; exit 1; }
	$(BIN)/python -m tools.reference --check
endif

.PHONY: generate
generate: .venv/dev.stamp $(BUF) $(GOOGLEAPIS) ## Write the stubs of all clients from proto/, and what else is made of it.
	rm -f $(foreach stubs,$(STUBS),$(stubs)/*_pb2*.py $(stubs)/*_pb2*.pyi)
	$(BUF) generate
	$(BIN)/python -m tools.fresh_schema
	$(BIN)/python -m tools.reference
	@tools/client_stubs.sh write $(BUF)

# What a client needs that is not there is left out with a warning, and fails in CI.
.PHONY: clients
clients: .venv/dev.stamp $(BUF) $(GOOGLEAPIS) ## Build and test every client, play the conformance list with each.
	@tools/client_stubs.sh check $(BUF)
	@$(BIN)/python -m tests.conformance --test $(ARGS)

.PHONY: descriptors
descriptors: .venv/run.stamp ## Write deploy/envoy/contract.binpb, which Envoy's transcoder reads.
	@$(BIN)/trunkline schema descriptors > deploy/envoy/contract.binpb

.PHONY: bench-smoke
bench-smoke: .venv/dev.stamp $(GHZ) ## Send 25,000 calls to a served router; any error fails.
	@$(BIN)/python bench/smoke/run.py --ghz $(GHZ)

.PHONY: bench
bench: .venv/dev.stamp $(GHZ) ## Measure everything into bench/results/. ARGS="--quick" takes 4 minutes.
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-gate
bench-gate: .venv/dev.stamp ## Fail when a call executes more than bench/gate.json allows.
	@$(BIN)/python -m bench.gate $(ARGS)

.PHONY: bench-peers
bench-peers: .venv/dev.stamp ## Install the gateways that make bench compares with.
	@$(BIN)/python -m bench.peers.install $(ARGS)

.PHONY: bench-soak
bench-soak: .venv/dev.stamp $(GHZ) ## Send a million calls and watch the memory.
	@$(BIN)/python -m bench.soak $(ARGS)

.PHONY: proofs
proofs: .venv/dev.stamp ## Prove durability and degradation on real servers; ARGS go to bench.proofs.
	@$(BIN)/python -m bench.proofs $(ARGS)

.PHONY: check-deploy
check-deploy: .venv/dev.stamp $(HELM) ## Check deploy/ by its own tools; needs promtool.
	@$(BIN)/python -m tools.check_deploy

.PHONY: topology
topology: .venv/dev.stamp $(GHZ) ## Run the deployment as processes, and kill and drain replicas.
	@$(BIN)/python -m tools.topology $(ARGS)

.PHONY: tools
tools: $(BUF) $(GHZ) $(GRPCURL) $(PORTKEY) ## Install buf, ghz, grpcurl and Portkey's gateway.

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-package trunkline \
	--custom-compile-command "make lock"

.PHONY: lock
lock: .venv/dev.stamp ## Pin the dependencies anew, keeping pins that still fit. UPGRADE=1 lifts all.
	$(LOCK) $(if $(UPGRADE),--upgrade) --output-file requirements/run.txt \
		pyproject.toml requirements/build.in
	$(LOCK) $(if $(UPGRADE),--upgrade) --output-file requirements/dev.txt --group dev --all-extras \
		--constraints requirements/run.txt pyproject.toml requirements/build.in

.PHONY: clean
clean: ## Remove all that is built, installed or cached here.
	rm -rf .venv $(TOOLS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -rf build dist *.egg-info server/*.egg-info clients/python/*.egg-info .coverage*
	find server clients tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || \
		{ echo "error: Python 3.11 or newer was not found; set PYTHON to one" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; set PYTHON to a newer one" >&2; exit 1; }
	@echo "Creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

# Hashes are demanded of everything that is downloaded; the two packages of this repository
# are then built with what has been installed, so that nothing else is fetched. The file is its own
# constraint because older versions of pip do not hold pkg[extra] to a pin of pkg otherwise, and fail
# on the day a newer pkg is published.
define install
	@echo "Installing $(1)"
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes \
		--requirement $(1) --constraint $(1)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--no-deps --no-build-isolation $(PACKAGES)
	@touch $@
endef

.venv/run.stamp: requirements/run.txt $(PROJECTS) | .venv/bin/python
	$(call install,requirements/run.txt)

.venv/dev.stamp: requirements/dev.txt $(PROJECTS) | .venv/bin/python
	$(call install,requirements/dev.txt)
	@touch .venv/run.stamp

$(BUF): tools/buf/package.json tools/buf/package-lock.json
	@command -v npm >/dev/null || \
		{ echo "error: npm, which installs buf, was not found: install Node.js" >&2; exit 1; }
	@mkdir -p $(TOOLS)/buf && cp $^ $(TOOLS)/buf/
	@npm install --prefix $(TOOLS)/buf --no-save --no-audit --no-fund --ignore-scripts --loglevel error
	@touch $@

# The annotations of HTTP paths, which buf would otherwise fetch from its own registry.
$(GOOGLEAPIS): .venv/dev.stamp tools/googleapis.py
	@$(BIN)/python tools/googleapis.py $(dir $@)
	@touch $@

# The gateway that tests stand before the simulated vendors; they install it by this rule. Newer
# versions of its @hono/node-server have it fail on every stream, so the lock has an older one.
.PHONY: portkey
portkey: $(PORTKEY) ## Install Portkey's gateway under .tools/.

$(PORTKEY): tools/portkey/package.json tools/portkey/package-lock.json
	@command -v npm >/dev/null || \
		{ echo "error: npm, which installs Portkey's gateway, was not found" >&2; exit 1; }
	@mkdir -p $(TOOLS)/portkey && cp $^ $(TOOLS)/portkey/
	@npm ci --prefix $(TOOLS)/portkey --no-audit --no-fund --ignore-scripts --loglevel error
	@touch $@

$(GHZ): Makefile
	$(call go_install,github.com/bojand/ghz/cmd/ghz@$(GHZ_VERSION))

$(HELM): Makefile
	$(call go_install,helm.sh/helm/v3/cmd/helm@$(HELM_VERSION))

$(GRPCURL): Makefile
	$(call go_install,github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION))

$(PROTOC_GEN_GO): Makefile
	$(call go_install,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))

$(PROTOC_GEN_GO_GRPC): Makefile
	$(call go_install,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION))

define go_install
	@command -v go >/dev/null || \
		{ echo "error: go, which builds $(notdir $@), was not found: install Go" >&2; exit 1; }
	@echo "Building $(notdir $@)"
	@GOBIN=$(CURDIR)/$(TOOLS)/bin go install $(1)
	@touch $@
endef
