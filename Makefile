# What a developer does here. Nothing but Python 3.11 and make is needed: `setup` brings the rest.
PYTHON ?= python3

.PHONY: help setup check test test-long bench docs format

help:       ## list these
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/ ·/'

setup:      ## make .venv and install the project with everything its tests need
	$(PYTHON) scripts/test.py --setup

check:      ## what CI runs: all tests, lint, types
	.ci/run

test:       ## all tests; some: make test ARGS="-k append"
	$(PYTHON) scripts/test.py $(ARGS)

test-long:  ## all tests, with fault, fuzz and model runs at their full length
	$(PYTHON) scripts/test.py --long $(ARGS)

bench: setup       ## measure, and write docs/BENCHMARKS.md
	.venv/bin/python -m pip install --quiet --editable '.[bench]'
	.venv/bin/python -m benchmarks --write $(ARGS)

docs: setup        ## regenerate what is generated (the JSON Schemas) and run every example of the docs
	.venv/bin/python -m holdfast.schema
	.venv/bin/python -m pytest tests/test_docs.py tests/test_schema.py

format: setup      ## put the code in its form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
