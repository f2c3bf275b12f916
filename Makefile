# Two commands need nothing but Python >= 3.11 and make:
#   make run    the main job on the bundled table
#   make test   the tests
# Both make their own environment in .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test lint types check bench clean

run: $(READY)
	$(BIN)/gpuseg load examples/gluon_train.parquet ml_datasets.gluon_train
	$(BIN)/gpuseg run --config examples/gluon_train.yml

test: $(READY)
	$(BIN)/python -m pytest -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

bench: $(READY)
	$(BIN)/python -m bench --quick

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("gpuseg needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,kernels]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
