# Two commands: `make demo` and `make test`. Both set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := environments datasets models algorithms stages pipeline

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench lint types imports clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "omrl needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps d4rl==1.1
	@touch $@

$(VENV)/.slow: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dask]'
	@touch $@

demo: $(VENV)/.runtime ## the whole gridworld pipeline, from data to report
	$(BIN)/omrl run gridworld

test: $(VENV)/.dev lint types imports ## everything that CI checks
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-fail-under=90

test-slow: $(VENV)/.slow ## crash batteries, servers and trainings too
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.dev ## every stage beside a plain loop; writes docs/performance.md
	$(BIN)/omrl bench --write

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy --strict over the packages
	$(BIN)/mypy

imports: $(VENV)/.dev ## who may import whom
	$(BIN)/lint-imports

clean: ## remove the virtual environment and caches; artefacts in runs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
