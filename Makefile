# setup, demo, serve, test, perf: each target is one command and needs nothing installed but Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_PERF := $(VENV)/.ready-perf

.PHONY: help setup demo serve test perf clean
.DEFAULT_GOAL := help

# Compiled modules are kept whatever the shell says: tests start servers, and compiling anew takes each of them seconds.
export PYTHONDONTWRITEBYTECODE :=

help:  ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY)  ## Make .venv with everything in it; again only after pyproject.toml has changed

demo: $(READY)  ## A year of flights: hot, cold and after a restart
	$(BIN)/python examples/demo.py

serve: $(READY)  ## Run the server; settings by the environment, see docs/configuration.md
	$(BIN)/flightkalam serve

test: $(READY)  ## Linters, types, layers, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -p no:randomly -n 2 --dist loadfile

perf: $(READY_PERF)  ## Measure against the peers
	$(BIN)/python -m perf.run

clean:  ## Remove .venv and what the tools keep
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "FlightKalam needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[dev,demo]'
	touch $@

$(READY_PERF): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[dev,demo,perf]'
	touch $@
