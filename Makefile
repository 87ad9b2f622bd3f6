# make serve   run the daemon here, with what it needs installed into .venv
# make demo    recorded hosts, Prometheus and Alertmanager: everything without a GPU, until ^C
# make test    lint, types and all tests, with real Prometheus, Alertmanager and systemd tools
# CONFIG=FILE  configuration for `make serve`; ARGS="--poll.interval 1" for more flags

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?=
ARGS ?=

.PHONY: serve demo demo-check test lint bench format generate lock clean gpu-smoke e2e-llama

serve: $(VENV)/.run
	$(BIN)/deepseek-exporter serve $(if $(CONFIG),--config.file=$(CONFIG)) $(ARGS)

demo: $(VENV)/.run demo-packages
	@$(BIN)/python demo/run.py

demo-check: $(VENV)/.run demo-packages  # one incident from its beginning to its end
	@$(BIN)/python demo/run.py --check

test: $(VENV)/.dev system-packages lint
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev system-packages
	$(BIN)/python benchmarks/against_node_exporter.py
	$(BIN)/python benchmarks/headers.py
	$(BIN)/python benchmarks/page.py

generate: $(VENV)/.dev
	$(BIN)/python rules/generate.py
	$(BIN)/python dashboards/generate.py
	$(BIN)/python -m exporter.exposition.document > docs/METRICS.md

e2e-llama: $(VENV)/.dev  # builds llama.cpp once into a cache folder
	cache=$$(PYTHON=$(BIN)/python sh tests/llama/build.sh) && EXPORTER_GGUF_PART=$$cache/header.gguf \
	  $(BIN)/pytest -m llama tests/llama tests/checkpoint

gpu-smoke: $(VENV)/.dev  # needs a real NVIDIA GPU
	$(BIN)/pytest -m gpu tests/gpu

# uv resolves for every Python and architecture at once; the lock names no registry.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml requirements/build.in -o requirements/run.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev pyproject.toml requirements/build.in -o requirements/dev.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV) || (echo "the venv module is missing: apt-get install python3-venv" >&2; exit 1)

$(VENV)/.run: $(VENV)/bin/python requirements/run.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements/dev.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@ $(VENV)/.run

.PHONY: system-packages demo-packages
system-packages:
	@sh requirements/system.sh

demo-packages:
	@sh requirements/system.sh demo
