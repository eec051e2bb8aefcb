# `make run` and `make test` need only Python >= 3.11. `make help` lists all targets.

PYTHON ?= python3
# Index from which torch is installed; by default, pip's own. On a machine without a GPU, PyTorch's
# index of CPU builds saves several gigabytes of CUDA libraries.
TORCH_INDEX_URL ?=
# Number of processes that run test files in parallel, each with its own databases.
TEST_PROCESSES ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REQUIREMENTS := $(VENV)/requirements.txt
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
PACKAGES := asr_worker broker examples gateway persistence runtime tests tools wire

.PHONY: help setup run test check format bench loadtest chaos chaos-full constraints clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

setup: $(INSTALLED) ## Install the pinned versions into .venv, unless that is up to date.

# The stamp is written last, so that an interrupted or failed setup is repeated.
$(INSTALLED): pyproject.toml constraints.txt tools/client/pyproject.toml tools/ops/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or later is needed, but PYTHON=$(PYTHON) is " + sys.version.split()[0] + ": set PYTHON to another one" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV); the first time takes some minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/ops/requirements.py pyproject.toml > $(REQUIREMENTS)
	@$(PIP_INSTALL) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	@$(PIP_INSTALL) -r $(REQUIREMENTS)
	@$(BIN)/python tools/ops/requirements.py --alone pyproject.toml > $(REQUIREMENTS)
	@$(PIP_INSTALL) --no-deps -r $(REQUIREMENTS)
	@$(PIP_INSTALL) --no-build-isolation -e tools/client
	@touch $@

run: $(INSTALLED) ## Start the system, transcribe samples, serve on PORT (8080) until Ctrl-C.
	@exec $(BIN)/asr serve

test: $(INSTALLED) ## Run all tests, with real processes, sockets, databases and the demo model.
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

check: $(INSTALLED) ## Check format, lint, types and tidiness.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_docs.py

format: $(INSTALLED) ## Format the code, and fix what ruff can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Measure performance, each figure with its reference of the same run.
	@exec $(BIN)/python -m tools.lab.bench

loadtest: $(INSTALLED) ## Measure a new system under verified sessions; options in ARGS="-c 200 -d 60s".
	@exec $(BIN)/asr loadtest --out bench-results $(ARGS)

chaos: $(INSTALLED) ## Inject the most common faults into two systems, and check every word.
	@exec $(BIN)/python -m tools.lab.chaos --jobs 2 $(ARGS)

chaos-full: $(INSTALLED) ## Inject all faults at all moments into three systems; takes half an hour.
	@exec $(BIN)/python -m tools.lab.chaos --full --jobs 3 $(ARGS)

constraints: $(INSTALLED) ## Write constraints.txt from the packages in .venv.
	$(BIN)/python tools/ops/requirements.py --pin constraints.txt pyproject.toml

clean: ## Remove generated files, except .venv and .data.
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build bench-results
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
