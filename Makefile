# Every task a person runs. Each target makes .venv by itself when it is missing or requirements.lock changed.
#   make train-mnist ARGS="--training.epochs 3"    more flags
#   make PYTHON=python3.12 test                    another interpreter

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# One stamp an interpreter, so that a new PYTHON= makes the environment again.
READY := $(VENV)/.ready-$(subst /,_,$(PYTHON))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## print the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

train-mnist: $(READY) ## train the digit classifier (mnist-cnn)
	$(BIN)/python -m recipes train mnist-cnn $(ARGS)

test: $(READY) ## run the fast tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(READY) ## pin the newest versions that pyproject.toml allows into requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--all-extras pyproject.toml --output-file requirements.lock --quiet

clean: ## remove the environment and caches (never runs/ or models/)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "keras-recipes needs Python 3.11 or newer. Received: $$($(PYTHON) --version 2>&1); choose one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "Installing into $(VENV) (once, a minute or two) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch $@

.PHONY: help train-mnist test lint lock clean
