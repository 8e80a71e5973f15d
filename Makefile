# Every task a person runs. Each target makes .venv by itself when it is missing or requirements.lock changed.
#   make train-mnist ARGS="--training.epochs 3"    more flags
#   make train-mnist SETTINGS=searches/mnist-cnn/latest/best.json    what a search found best
#   make PYTHON=python3.12 test                    another interpreter
#   make EXTRA=gpu train-mnist                     with CUDA

PYTHON ?= python3
EXTRA ?=
ARGS ?=
RUN ?=
SETTINGS ?=
WORKERS ?= 2
WITH_SETTINGS = $(if $(SETTINGS),--settings $(SETTINGS))

VENV := .venv
BIN := $(VENV)/bin
# The stamp's name has the interpreter and the extra: another PYTHON= or EXTRA= makes the environment again.
READY := $(VENV)/.ready-$(subst /,_,$(PYTHON))$(addprefix -,$(EXTRA))
# The tools of the targets test, lint and docs, which other targets do not need.
TOOLS := $(READY)-dev
# uv is several times faster than pip. Where it can't be installed, or can't reach the registry, pip does it.
UV := $(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null && UV_SYSTEM_CERTS=1 $(BIN)/python -m uv pip install --quiet --python $(BIN)/python
LOCK := $(BIN)/python -m uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## print the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 30

train-mnist: $(READY) ## train the digit classifier (mnist-cnn)
	$(BIN)/python -m recipes train mnist-cnn $(WITH_SETTINGS) $(ARGS)

train-mnist-workers: $(READY) ## the same with WORKERS=2 processes of this machine, as a cluster of machines would
	$(BIN)/python -m recipes workers $(WORKERS) mnist-cnn $(WITH_SETTINGS) $(ARGS)

train-lm: $(READY) ## train the character language model (lm-transformer) and print a sample
	$(BIN)/python -m recipes train lm-transformer $(WITH_SETTINGS) $(ARGS)

generate: $(READY) ## complete a prompt with the latest lm-transformer run (or RUN=...): make generate ARGS='--prompt "ROMEO:"'
	@$(BIN)/python -m recipes generate $(or $(RUN),runs/lm-transformer/latest) $(ARGS)

tune-mnist: $(READY) ## search batch size and learning rate of mnist-cnn, six minutes at most
	$(BIN)/python -m tuning search mnist-cnn --workers 2 --training.epochs 3 --trials 16 --seconds 360 $(ARGS)

tune-lm: $(READY) ## search batch size and learning rate of lm-transformer on a tenth of its training, twenty minutes at most
	$(BIN)/python -m tuning search lm-transformer --workers 2 --training.epochs 3 --training.steps-per-epoch 100 \
		--trials 16 --seconds 1200 $(ARGS)

export-mnist: $(READY) ## publish the latest mnist-cnn run (or RUN=...) as models/mnist/VERSION
	$(BIN)/python -m serving export $(or $(RUN),runs/mnist-cnn/latest) $(ARGS)

export-lm: $(READY) ## publish the latest lm-transformer run (or RUN=...) as models/lm/VERSION
	$(BIN)/python -m serving export $(or $(RUN),runs/lm-transformer/latest) $(ARGS)

serve: $(READY) ## serve every model in models/: gRPC on 8500, REST and the demo page on 8501
	@ls -d models/*/ >/dev/null 2>&1 || { echo "There is no model in models/ yet: make export-mnist or make export-lm" >&2; exit 2; }
	@{ echo "model_config_list {"; for model in models/*/; do name=$$(basename $$model); \
		echo "  config { name: \"$$name\" base_path: \"$(CURDIR)/models/$$name\" model_platform: \"tensorflow\" }"; \
		done; echo "}"; } > models/models.config
	$(BIN)/python -m serving serve --model_config_file=models/models.config --rest_api_port=8501 \
		--enable_batching=true $(ARGS)

demo: $(READY) ## open the demo page: draw a digit or generate text; trains and exports mnist-fast if there is no model yet
	@ls -d models/*/ >/dev/null 2>&1 || { $(BIN)/python -m recipes train mnist-fast && $(BIN)/python -m serving export runs/mnist-fast/latest; }
	@echo "The page: http://localhost:8501"
	@{ for second in $$(seq 60); do sleep 1; \
		$(BIN)/python -c 'import socket; socket.create_connection(("localhost", 8501), 1)' 2>/dev/null && break; done; \
		$(BIN)/python -m webbrowser http://localhost:8501; } >/dev/null 2>&1 &
	@$(MAKE) --no-print-directory serve

serve-container: ## serve models/ with the TensorFlow Serving container
	@docker info >/dev/null 2>&1 || { echo "No Docker engine answers here. The embedded server needs none: make serve" >&2; exit 2; }
	@serving/deploy/release sync
	docker compose --file serving/deploy/compose.yaml up $(ARGS)

predict: $(READY) ## classify docs/digit.png, or other images: make predict ARGS="digit.png"
	@$(BIN)/python -m serving predict $(or $(ARGS),docs/digit.png)

bench: $(READY) ## measure the tables of docs/results (hours, with real MNIST in TFDS_DATA_DIR)
	$(BIN)/python -m benchmarks.mnist $(ARGS)
	$(BIN)/python -m benchmarks.language_model
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.pruning weights
	$(BIN)/python -m benchmarks.pruning units
	$(BIN)/python -m benchmarks.pruning language

bench-quick: $(READY) ## check the order of magnitude of every table of docs/results, in minutes and without a network
	$(BIN)/python -m benchmarks.quick

docs: $(TOOLS) ## build the documentation into docs/_build/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build $(ARGS)
	@echo "docs/_build/index.html"

test: $(TOOLS) ## run the fast tests
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal $(ARGS)

lint: $(TOOLS) ## ruff, mypy, import-linter, schemas of the manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec serving/deploy/compose.yaml
	$(BIN)/kubernetes-validate --strict \
		$(filter-out %kustomization.yaml,$(wildcard serving/deploy/kubernetes/*.yaml serving/deploy/embedded/*.yaml)) \
		$(wildcard tuning/deploy/*.yaml)

lock: $(READY) ## pin the newest versions that pyproject.toml allows into the three lock files
	$(UV) --upgrade uv
	$(LOCK) --upgrade pyproject.toml --output-file requirements.lock
	$(LOCK) --upgrade --extra dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(LOCK) --upgrade --constraint requirements.lock serving/deploy/embedded/requirements.in \
		--output-file serving/deploy/embedded/requirements.lock

clean: ## remove the environment, the built documentation and caches (never runs/, searches/ or models/)
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "keras-recipes needs Python 3.11 or newer. Received: $$($(PYTHON) --version 2>&1 | head -n 1); choose one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "Installing TensorFlow and Keras into $(VENV) (once, half a minute to two minutes) ..."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(UV) --require-hashes --requirement requirements.lock 2>/dev/null || $(PIP) --require-hashes --requirement requirements.lock
	@$(if $(EXTRA),$(UV) --constraint requirements.lock --requirement pyproject.toml --extra $(EXTRA))
	@touch $@

$(TOOLS): $(READY) requirements-dev.lock
	@echo "Installing the tools of test, lint and docs into $(VENV) (once) ..."
	@$(UV) --require-hashes --requirement requirements-dev.lock 2>/dev/null || $(PIP) --require-hashes --requirement requirements-dev.lock
	@touch $@

.PHONY: help train-mnist train-mnist-workers train-lm tune-mnist tune-lm generate export-mnist export-lm serve demo serve-container predict bench docs test lint lock clean bench-quick
