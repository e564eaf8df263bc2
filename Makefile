# Everything a newcomer needs: `make demo` and `make test`. Both set themselves up; Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODULES := anchor fhir_adapters bridge

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean constraints

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/'

# Stamps: the environment is remade when what it is made from changes.
$(VENV)/.run-stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Yiqiao needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ... / 需要 Python 3.11 或更高版本")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Yiqiao into $(VENV) ..." >&2
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test-stamp: $(VENV)/.run-stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	@echo "installing the test tools ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group test
	@touch $@

$(VENV)/.bench-stamp: $(VENV)/.test-stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

demo: $(VENV)/.run-stamp ## Run the main job for real: a three-node consortium on this machine
	$(BIN)/yiqiao demo $(DEMO_ARGS)

test: $(VENV)/.test-stamp ## Run the tests (TEST_ARGS="..." for pytest)
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: $(VENV)/.test-stamp ## Check style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test-stamp ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench-stamp ## Measure beside the named peers (BENCH_ARGS="..." for yiqiao bench)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean: ## Remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

constraints: ## Remake constraints.txt from the newest releases that pyproject.toml allows
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/constraints/bin/python -m pip install --quiet '.[postgres]' --group test
	{ echo "# Exact versions for reproducible installs (pip install -c constraints.txt). Remade by: make constraints"; \
	  build/constraints/bin/python -m pip freeze --exclude yiqiao --exclude pip; } > constraints.txt
	rm -rf build/constraints
