# Everything a developer or operator does here has a target; `make help` lists them.
SHELL := /bin/sh
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Everything downloaded or written stays inside this directory.
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export TMPDIR := $(CURDIR)/.cache/tmp
export UV_LINK_MODE := hardlink
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: requirements.lock pyproject.toml
	@mkdir -p .cache/tmp
	@$(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Fairlead needs Python 3.11 or newer; set PY=python3.x")'
	$(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: $(VENV)/.ready  ## Build the environment in .venv from the locked, hashed requirements

.PHONY: lock
# Without the extra `local`: torch alone is several GB, and which build fits is the machine's affair.
lock:  ## Refresh requirements.lock (and the lock of uv itself)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev --extra embedded --extra train pyproject.toml requirements-build.in -o requirements.lock
	echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header - -o requirements-uv.lock

.PHONY: check
check: setup  ## Everything quick: format, lint, types, import contracts, drift of generated documents
	$(BIN)/ruff format --check --diff --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports --no-cache > .cache/tmp/imports.txt || { cat .cache/tmp/imports.txt; exit 1; }
	$(BIN)/python -m cli.main contracts --check

.PHONY: kafka
kafka:  ## Fetch Apache Kafka's jars for the tests (needs Java 17 and Maven)
	@mkdir -p .cache/tmp
	mvn -B -q -f tests/kafka/pom.xml -Dmaven.repo.local=$(CURDIR)/.cache/m2 package

# Apache Kafka is tested wherever Java and Maven are; the tests say so where they are not.
.PHONY: kafka-if-possible
kafka-if-possible:
	@if command -v java >/dev/null && command -v mvn >/dev/null; then $(MAKE) --no-print-directory kafka; else \
	  echo "Java or Maven is missing: tests on Apache Kafka will be skipped"; fi

.PHONY: test
test: check kafka-if-possible  ## Everything CI runs: checks, unit, integration on both brokers, acceptance
	$(BIN)/pytest -n 2 --dist loadscope

.PHONY: format
format: setup  ## Format the code and apply the safe fixes of the linter
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

.PHONY: contracts
contracts: setup  ## Write the JSON Schemas, AsyncAPI and OpenAPI documents in docs/
	$(BIN)/python -m cli.main contracts

.PHONY: clean
clean:  ## Remove the environment, caches and state in this directory
	rm -rf .venv .cache .fairlead .pytest_cache .ruff_cache .hypothesis build *.egg-info

.PHONY: demo
demo: setup  ## Play a conversation on a system of its own and break a model in the middle
	$(BIN)/fairlead demo

.PHONY: up
up: setup  ## Run everything on this machine until Ctrl-C
	$(BIN)/fairlead up

.PHONY: doctor
doctor: setup  ## Say what is missing or out of reach, and how to mend it
	$(BIN)/fairlead doctor

.PHONY: bench
bench: setup  ## Measure beside peers and limits (minutes); docs/performance.md says what and why
	$(BIN)/python -m benchmarks

.PHONY: chaos
chaos: setup kafka-if-possible  ## Let everything fail under 10,000 turns, and processes die at each named place (an hour)
	$(BIN)/python -m tests.chaos.run --turns 10000 --kills 300 --freezes 150 --rounds 6 --json .cache/chaos.json
	$(BIN)/python -m tests.chaos.crash_points --turns 50 --json .cache/crash-points.json
