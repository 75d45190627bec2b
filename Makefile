# Everything runs in .venv, which `make` fills on first use; a Python of 3.11 or newer is all that must be there.

PYTHON ?= python3
JOBS ?= 3
BIN := .venv/bin
READY := .venv/.ready
DOCS_READY := .venv/.docs-ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs clean

help: ## say what can be made
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile

setup: $(READY) ## fill .venv: wellfit, torch and the tools of development (about a minute and 5 GB)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "wellfit needs Python 3.11 or newer, and $(PYTHON) is older; name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv; the first time torch and its parts are fetched"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## fit the built-in digits within a minute and say where the report is
	$(BIN)/wellfit fit digits --budget 40s --out "runs/demo-$$(date +%Y-%m-%d-%H%M%S)"

test: lint ## lint, then every test
	@scripts/postgresql
	@scripts/chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY) ## style, types, and the floors that may import each other
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## bring the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(DOCS_READY): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

docs: $(DOCS_READY) ## build the documentation with its executed gallery into docs/_build/html (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "open docs/_build/html/index.html"

clean: ## remove what can be made again; runs/ is kept
	rm -rf .venv build dist docs/_build docs/auto_gallery src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
