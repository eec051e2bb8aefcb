# `make run` and `make test` need only Python >= 3.11. `make help` lists all targets. Without make:
# `python3 tools/ops/setup.py && .venv/bin/asr serve`.

PYTHON ?= python3
# Build of PyTorch: cpu or cuda. By default what is installed, or else cpu.
DEVICE ?=
# Index of PyTorch's CPU builds; by default PyTorch's own. pip's index has the CUDA build.
TORCH_INDEX_URL ?=
# Number of processes that run test files in parallel, each with its own databases.
TEST_PROCESSES ?= 2

VENV := .venv
BIN := $(VENV)/bin
SETUP := $(PYTHON) tools/ops/setup.py $(if $(DEVICE),--device $(DEVICE)) $(if $(TORCH_INDEX_URL),--index $(TORCH_INDEX_URL))

# Images often set it. Then each process compiles all modules that it imports, at each start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup installed run test check lint types format bench loadtest chaos chaos-full constraints clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

setup: ## Install the pinned versions into .venv, unless they are there.
	@$(SETUP) --for test

installed: # What the system needs to run.
	@$(SETUP)

run: installed ## Start the system, transcribe samples, serve on PORT (8080) until Ctrl-C.
	@exec $(BIN)/asr serve

test: setup ## Run all tests, with real processes, sockets, databases and the demo model.
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

check: setup ## Check format, lint, types and tidiness.
	@$(MAKE) --jobs 2 --output-sync types lint

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_docs.py

types:
	$(BIN)/mypy

format: setup ## Format the code, and fix what ruff can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure performance, each figure with its reference of the same run.
	@exec $(BIN)/python -m tools.lab.bench

loadtest: setup ## Measure a new system under verified sessions; options in ARGS="-c 200 -d 60s".
	@ASR_URL= exec $(BIN)/asr loadtest --out bench-results $(ARGS)

chaos: setup ## Inject the most common faults into two systems, and check every word.
	@exec $(BIN)/python -m tools.lab.chaos --jobs 2 $(ARGS)

chaos-full: setup ## Inject all faults at all moments into three systems; takes half an hour.
	@exec $(BIN)/python -m tools.lab.chaos --full --jobs 3 $(ARGS)

constraints: setup ## Write constraints.txt from the packages in .venv.
	$(BIN)/python tools/ops/requirements.py --pin constraints.txt pyproject.toml

clean: ## Remove generated files, except .venv and .data.
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build bench-results
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
