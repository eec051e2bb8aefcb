# `make run` and `make test` need Python >= 3.11 and nothing else; `make help` lists the rest.

PYTHON ?= python3
# Where to get torch, if not from pip's configured index: PyTorch's own index of CPU builds spares
# several gigabytes of CUDA libraries on a machine without a GPU.
TORCH_INDEX_URL ?=
# Test files run side by side in so many processes, each with databases of its own.
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

setup: $(INSTALLED) ## Make .venv with the pinned versions; does nothing the second time.

# The stamp comes last: a setup that was interrupted or failed runs again.
$(INSTALLED): pyproject.toml constraints.txt tools/client/pyproject.toml tools/ops/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or later is needed, and PYTHON=$(PYTHON) is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV); the first time takes some minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/ops/requirements.py pyproject.toml > $(REQUIREMENTS)
	@$(PIP_INSTALL) $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) torch
	@$(PIP_INSTALL) -r $(REQUIREMENTS)
	@$(PIP_INSTALL) --no-build-isolation -e tools/client
	@touch $@

run: $(INSTALLED) ## Start everything, transcribe a sample, serve on PORT (8080) until Ctrl-C.
	@exec $(BIN)/python -m tools.cli.serve

test: $(INSTALLED) ## Every test: real processes, sockets, databases and the demo model.
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

check: $(INSTALLED) ## Format, lint, types and tidiness.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_docs.py

format: $(INSTALLED) ## Let ruff format and fix what it can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Measure, each figure beside its reference of the same run.
	@exec $(BIN)/python -m tools.lab.bench

loadtest: $(INSTALLED) ## Verified sessions on a stack of its own; options in ARGS="-c 200 -d 60s".
	@exec $(BIN)/python -m tools.lab.loadtest --out bench-results $(ARGS)

chaos: $(INSTALLED) ## Hurt two systems of its own in the commonest ways, and check every word.
	@exec $(BIN)/python -m tools.lab.chaos --jobs 2 $(ARGS)

chaos-full: $(INSTALLED) ## Every fault at every moment, on three systems side by side: half an hour.
	@exec $(BIN)/python -m tools.lab.chaos --full --jobs 3 $(ARGS)

constraints: $(INSTALLED) ## Write constraints.txt from what .venv holds.
	$(BIN)/python tools/ops/requirements.py --pin constraints.txt pyproject.toml

clean: ## Remove what tools made, but neither .venv nor .data.
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build bench-results
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
