# Everything runs from .venv, which is made from requirements.lock and made again when that file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := legrad pipeline jobs benchmarks docs
# What one process has compiled the next one reads, also where the environment says otherwise: nothing is compiled by
# the install, and the tests start dozens of processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-on-ray test-elsewhere long chaos chaos-on-ray chaos-elsewhere lint bench published clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv and install requirements.lock.

# The .pth file puts this folder on .venv's path, so that `python jobs/annotate.py` finds the packages without an install.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python 3.10 or newer is needed; '$(PYTHON)' is not. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing the packages of requirements.lock into $(VENV), once: a few minutes and some GB"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	@$(BIN)/python -c 'import os, sysconfig; print(os.getcwd(), file=open(sysconfig.get_path("purelib") + "/this_repository.pth", "w"))'
	@touch $@

demo: $(READY) ## Annotate the bundled demo shards with the bundled demo model.
	$(BIN)/python jobs/annotate.py

test: $(READY) ## Lint, check types, run the tests.
	@$(MAKE) --no-print-directory -j3 lint test-on-ray test-elsewhere

# One thread: the tests' tensors are tiny, and threads that wait for each other starve on a busy machine. Tests on Ray
# share one and mostly wait for it, so that the others run beside them, and no file without such tests is even read.
test-on-ray: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "ray and not long" $$(grep -rlF --include='*.py' mark.ray tests)

# One process more than cores, for some tests wait for servers, pauses and signals.
test-elsewhere: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not ray" \
		-n $$($(BIN)/python -c 'import os; print(min(os.cpu_count() + 1, 4))') \
		--dist loadfile --no-loadscope-reorder

long: $(READY) ## The tests that `make test` leaves out.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

chaos: $(READY) ## Some 660 faults at random moments: hours. Goes on where it was stopped.
	@$(MAKE) --no-print-directory -j2 chaos-on-ray chaos-elsewhere
	$(BIN)/python -m tests.chaos --results chaos.jsonl --table

# Both append to one file, and mostly wait.
chaos-on-ray: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --results chaos.jsonl --ray yes

chaos-elsewhere: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --results chaos.jsonl --ray no

# To write a cache takes mypy a fifth of its time, and where CI is set nobody reads it.
lint: $(READY) ## ruff and mypy.
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy $(if $(CI),--cache-dir=/dev/null) $(PACKAGES) tests

bench: $(READY) ## Time LeGrad against the published package.
	$(BIN)/python benchmarks/run.py legrad

published: $(READY) ## Install the published package where `make bench` looks for it, outside this folder.
	$(BIN)/python benchmarks/run.py published

clean: ## Remove .venv and the tools' caches.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
