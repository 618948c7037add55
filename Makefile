# `make` lists the targets. Everything runs in .venv, which the first target that needs it sets up.
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12) python3.11)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

EXP ?= ivat_planted
STUDY ?= planted_smoke
ARGS ?=

.PHONY: help setup run study test check bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'
	@echo
	@echo '  make run EXP=ivat_imdb ARGS="--method.epsilon=2 --seed_everything=3"'

setup: $(READY) ## create .venv and install (the other targets do it by themselves)

# torch first and pinned: an open requirement would pull gigabytes of another build.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Expected $(PYTHON) on the PATH; give another one (3.11 or 3.12) with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(READY) ## train, test and record an experiment: EXP=<name of experiments/*.yaml> ARGS="--any.option=value"
	@$(BIN)/python -m attn_lightning fit --config experiments/$(EXP).yaml $(ARGS)

study: $(READY) ## run, resume and tabulate a study: STUDY=<name of experiments/studies/*.yaml> ARGS="--jobs 2"
	@$(BIN)/python -m attn_lightning study experiments/studies/$(STUDY).yaml $(ARGS)

# One thread per process: two workers that start two threads each would wait for one another.
test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

check: $(READY) ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## measure speed: step time of every method, encoder, data (ratios count, not times)
	@for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file $(ARGS) || exit 1; done

clean: ## remove caches and build products; runs/ and .venv stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
