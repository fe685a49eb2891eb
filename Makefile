# Every target does its own set-up: `make run` and `make test` need Python 3.11+ and make alone.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV := $(VENV)/tools/bin/uv
PEERS := tests/benchmarks/gateways
# With a GPU: make setup LOCK=requirements.gpu.lock
LOCK ?= requirements.cpu.lock

# A CPU build of torch comes from a local folder of wheels where pip is configured with one, else
# from PyTorch's own index, which uv knows by name.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# The overrides of pyproject.toml keep CUDA builds out, whatever the lock says.
BUILDS := $(if $(findstring gpu,$(LOCK)),--no-config)
TORCH := $(if $(findstring cpu,$(LOCK)),$(if $(UV_FIND_LINKS),,--torch-backend=cpu))

# Without bytecode every process that imports vLLM would compile it again.
unexport PYTHONDONTWRITEBYTECODE

CONFIG ?= clusters/local
MINUTES ?= 20
TRACE ?= ../shared/data/traces/azure2023_conv.csv.gz

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.done ## install everything into .venv, from hashed locks

$(UV): requirements.tools.lock
	python3 -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.tools.lock

$(VENV)/.done: $(UV) $(LOCK) pyproject.toml
	$(UV) venv --quiet --allow-existing --python 3.11 $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes $(BUILDS) $(TORCH) -r $(LOCK)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## run the local stack; Ctrl-C stops it
	$(BIN)/orchestrator up --config $(CONFIG)

demo: setup ## saturate the local stack, burst to the cloud, come back; writes a timeline
	$(BIN)/orchestrator demo --config $(CONFIG) $(if $(wildcard $(TRACE)),--trace $(TRACE))

bench: setup ## what the gateway costs, beside its baselines
	$(BIN)/python -m tests.benchmarks

chaos: setup ## the local stack under faults for 20 minutes; writes a report and a timeline
	$(BIN)/python -m tests.benchmarks.chaos --minutes $(MINUTES)

bench-gateways: setup $(VENV)/peers/.done ## the gateway beside LiteLLM, Portkey and vllm-router
	$(BIN)/python -m tests.benchmarks.gateways

$(VENV)/peers/.done: $(UV) $(PEERS)/peers.lock $(PEERS)/package-lock.json
	$(UV) venv --quiet --allow-existing --python 3.11 $(VENV)/peers
	$(UV) pip install --quiet --python $(VENV)/peers/bin/python --require-hashes -r $(PEERS)/peers.lock
	cp $(PEERS)/package.json $(PEERS)/package-lock.json $(VENV)/peers
	@if command -v npm > /dev/null; then npm ci --prefix $(VENV)/peers --ignore-scripts --silent --no-audit --no-fund; \
	else echo "without npm there is no Portkey to compare with"; fi
	@touch $@

test: setup ## every test, real Ray Serve and vLLM included
	$(BIN)/python -m pytest -q -n logical tests/unit tests/property tests/zombies
	# What measures time or starts servers has the machine for itself.
	$(BIN)/python -m pytest -q tests/integration tests/kube
	$(BIN)/python -m pytest -q tests/e2e

test-kube: setup ## the Kubernetes tests, in the cluster of KUBECONFIG or on an API server built here
	@[ -n "$(KUBECONFIG)" ] || tests/kube/build.sh $(VENV)/kube || [ $$? -eq 3 ]
	ORCHESTRATOR_TEST_KUBECONFIG="$(KUBECONFIG)" $(BIN)/python -m pytest -q -m kube tests/kube

nightly: setup ## the property tests with a hundred thousand cases and more
	ORCHESTRATOR_EXAMPLES=20000 $(BIN)/python -m pytest -q --timeout 0 tests/property

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## write the configuration language's reference and schema, and the metrics' page, anew
	$(BIN)/orchestrator schema --out clusters
	$(BIN)/python -m orchestrator.manifests.metrics_page orchestrator/METRICS.md

manifests: setup ## write manifests/ anew, from clusters/
	$(BIN)/orchestrator manifests ship manifests

COMPILE := pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate --no-emit-find-links

lock: $(UV) ## renew the hashed locks from pyproject.toml
	$(UV) $(COMPILE) --extra dev --extra cpu pyproject.toml -o requirements.cpu.lock
	# The overrides of pyproject.toml keep CUDA builds out of the CPU's environment; here they belong.
	$(UV) $(COMPILE) --no-config --extra dev --extra gpu pyproject.toml -o requirements.gpu.lock
	$(UV) $(COMPILE) --no-config $(PEERS)/peers.in -o $(PEERS)/peers.lock
	cd $(PEERS) && { ! command -v npm > /dev/null || npm install --package-lock-only --omit-lockfile-registry-resolved --silent --no-audit --no-fund; }

clean: ## stop the stack and remove what was made here
	-[ ! -x $(BIN)/orchestrator ] || $(BIN)/orchestrator down
	rm -rf $(VENV) .orchestrator .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup run demo bench chaos bench-gateways test test-kube nightly lint docs manifests lock clean
