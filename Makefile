# Everything happens in a virtual environment in .venv, made at the first use from any Python of
# 3.11 or newer: `make PYTHON=python3.13 test` chooses one. Nothing else is needed beforehand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COVERED := strep/wire/*,strep/receive/*,pipeline/*

SECONDS ?= 300

.PHONY: help demo test bench fuzz faults lock clean

help:
	@echo 'make demo    place a call on this machine, record it and draw a picture of it'
	@echo 'make test    check style and types, run the tests and measure their coverage'
	@echo 'make bench   measure throughput and cost per packet'
	@echo 'make fuzz    look for inputs that do harm, for SECONDS=300 in all'
	@echo 'make faults  break things, and say what was lost: most of an hour'
	@echo 'make lock    pin what the container installs, by version and hash'
	@echo 'make clean   remove the virtual environment and what tools left behind'

demo: $(READY)
	@$(BIN)/strep demo

test: $(READY)
	@echo '== ruff'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo '== mypy'
	@$(BIN)/mypy
	@echo '== pytest'
	@$(BIN)/coverage erase
	@$(BIN)/pytest -n 2 --cov --cov-report=
	@echo '== branch coverage of the packet path'
	@$(BIN)/coverage report --include='$(COVERED)' --fail-under=95

bench: $(READY)
	@$(BIN)/python -m bench

fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --disable-pip-version-check --quiet 'atheris>=2.3'
	@$(BIN)/python -m fuzz --seconds $(SECONDS)

faults: $(READY)
	@$(BIN)/python -m faults --json build/faults.json --markdown build/faults.md

# Versions are chosen for the container's Python, whichever runs this; what was chosen before stays,
# unless UPGRADE=--upgrade.
lock: $(READY)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	@$(BIN)/uv pip compile $(UPGRADE) --quiet --generate-hashes --no-emit-index-url --universal \
		--python-version 3.13 --no-annotate --custom-compile-command 'make lock' \
		--output-file requirements.lock pyproject.toml
	@echo 'setuptools>=77' | $(BIN)/uv pip compile $(UPGRADE) --quiet --generate-hashes \
		--no-emit-index-url --universal --python-version 3.13 --no-annotate \
		--custom-compile-command 'make lock' --output-file requirements-build.lock -

clean:
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written by the installation alone, so that its absence tells of a failure; what pip
# says is reduced to the names of what it fetches.
$(READY): pyproject.toml setup.py $(wildcard strep_kernel/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or newer is needed, and $(PYTHON) is not: try make PYTHON=python3.13' >&2; \
		exit 1; }
	@rm -f $@
	@echo 'Making $(VENV), which takes a minute or two:'
	@$(PYTHON) -m venv $(VENV)
	@{ PYTHONUNBUFFERED=1 $(BIN)/python -m pip install --disable-pip-version-check \
		--editable '.[dev]' && touch $@; } \
		| sed -n -e 's/^ *Collecting \([A-Za-z0-9._-]*\).*/  \1/p'
	@test -f $@
