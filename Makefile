# Two commands need nothing but Python >= 3.11 and make:
#   make run    the main job on the bundled table
#   make test   the tests
# Both make their own environment in .venv, once. On a machine with an NVIDIA GPU:
#   make gpu-check          all that only a GPU can check; makes .venv-cuda13 (5 GB), once
#   make gpu-check GPU_EXTRA=cuda12      for a driver older than 580
#   make gpu-check GPU_PYTHON=python     in the present environment (conda); needs '.[dev]'
#   make gpu-check QUICK=1               with small benchmarks

PYTHON ?= python3
# each takes up to 1.5 GB of memory
TEST_PROCESSES ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

GPU_EXTRA ?= cuda13
GPU_VENV := .venv-$(GPU_EXTRA)

.PHONY: run test lint types check bench gpu-driver gpu-check clean

run: $(READY)
	$(BIN)/gpuseg load examples/gluon_train.parquet ml_datasets.gluon_train
	$(BIN)/gpuseg run --config examples/gluon_train.yml

test: $(READY)
	$(BIN)/python -m pytest -q -n auto --maxprocesses $(TEST_PROCESSES) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

bench: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,kernels,bench]'
	$(BIN)/python -m bench --quick

ifdef GPU_PYTHON
gpu-check: gpu-driver
else
GPU_PYTHON := $(GPU_VENV)/bin/python
gpu-check: gpu-driver $(GPU_VENV)/.ready
endif
	$(GPU_PYTHON) bench/gpu_check.py $(if $(QUICK),--quick)

# before anything is installed; needs nothing but Python
gpu-driver:
	@$(PYTHON) bench/gpu_check.py --only-driver

$(GPU_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(GPU_VENV)/bin/python -m pip install --quiet --editable '.[dev,$(GPU_EXTRA)]'
	@touch $@

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("gpuseg needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,kernels]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-cuda12 .venv-cuda13 build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
