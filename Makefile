# make demo    trains a byte-level language model on the standard library's source (4 minutes)
# make test    runs the tests (12 minutes, two workers)
# Both create .venv first; they need Python >= 3.11, make and git, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test contract smoke test-all lint types notebooks docs wheel check-kernels install clean

# One stamp per set of extras: installed again when pyproject.toml changes.
install: $(VENV)/base.stamp

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seqjax needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/%.stamp: $(VENV)/base.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

demo: $(VENV)/base.stamp
	$(BIN)/python -m experiments.demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

contract: $(VENV)/test.stamp
	$(BIN)/python scripts/contract.py $(BASE) -n $(WORKERS) --dist worksteal

smoke: $(VENV)/test.stamp
	SEQJAX_TEST_ALL=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/test_*experiments.py tests/test_zoo_learns.py

test-all: $(VENV)/test.stamp
	SEQJAX_TEST_ALL=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp $(VENV)/test.stamp $(VENV)/notebooks.stamp $(VENV)/docs.stamp
	$(BIN)/pyright --pythonpath $(BIN)/python

notebooks: $(VENV)/notebooks.stamp
	$(BIN)/python scripts/run_notebooks.py --save runs/notebooks

# The documentation, in site/; the notebooks in it are those that `make notebooks` executed.
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel in dist/, tried outside of the tree with each version of these Pythons that is there.
PYTHONS ?= $(PYTHON) python3.11 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python)
wheel: $(VENV)/dev.stamp
	scripts/check_wheel.sh $(PYTHONS)

check-kernels:
	PYTHON=$(PYTHON) bash scripts/check_kernels.sh

clean:
	rm -rf $(VENV) .venv-tpu .venv-cuda .cache runs site dist build
