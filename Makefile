# Needs Python 3.11 or newer with pip, and make; no root. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SERVE := $(if $(filter-out 0,$(ONCE)),--once)
QUICKLY := $(if $(filter-out 0,$(QUICK)),--quick)

.DEFAULT_GOAL := help
.PHONY: help demo test lint proto readme bench report clean

help:  ## what can be made
	@awk -F ':.*## +' '/^[a-z]+:.*## /{printf "  make %-6s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.made-demo  ## train sample models, serve them, compare their scores, serve on (ONCE=1: stop after the comparison)
	$(BIN)/python bench/demo.py train
	$(BIN)/python bench/demo.py serve $(SERVE)

test: $(VENV)/.made-test  ## every test (ARGS="-k name": some of them)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.made-test  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

proto: $(VENV)/.made-test  ## generate meshserve/protocol/pb from proto/
	$(BIN)/python proto/generate.py

readme: $(VENV)/.made-test  ## write the README's config reference from meshserve/config
	$(BIN)/python bench/readme.py

bench: $(VENV)/.made-test  ## every benchmark, beside its peers (h2load: Debian package nghttp2-client; QUICK=1: minutes, fails on regressions)
	$(BIN)/python bench/suite.py $(QUICKLY) $(ARGS)

report: $(VENV)/.made-test  ## write bench/results into charts and the README
	$(BIN)/python bench/report.py

clean:  ## remove everything that was made
	rm -rf $(VENV) .venv-peers build dist models *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made-demo: EXTRAS := demo
$(VENV)/.made-test: EXTRAS := test,lint
$(VENV)/.made-demo $(VENV)/.made-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS)]"
	@touch $@

# Debian's Python may lack ensurepip: then its own pip installs one into the environment. Older pips take minutes to resolve what newer
# ones resolve in seconds.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("meshserve needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV) || \
	{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25"
