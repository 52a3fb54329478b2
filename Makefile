# Each target makes the virtual environment it needs: a fresh machine needs Python 3.11 or newer, make and git.
PYTHON ?= python3
PYTEST_ARGS ?= -n auto --dist loadgroup

BIN := .venv/bin
STAMP := .venv/.perdure-installed

.PHONY: demo test lint bench venv
.DEFAULT_GOAL := test

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python .dev/typecheck.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks

venv: $(STAMP)

# The dependencies, entry points and folders stand in pyproject.toml, so a change of it installs again.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
