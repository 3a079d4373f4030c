# `make` lists the targets. Each sets up what it needs in $(VENV); nothing is installed twice.
# PY=python3 uses that interpreter as it is and installs nothing. ARGS="..." goes to pytest, or to the program of a target.
SHELL  := bash
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

ifeq ($(origin PY),undefined)
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
export PATH := $(abspath $(VENV))/bin:$(PATH)
endif
CXX_FILES = $(shell find csrc tests/native benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.DEFAULT_GOAL := help
.PHONY: help setup build test test-exhaustive test-statistical test-zoo test-batteries test-distributed demo demo-distributed bench \
        readme-table docs gpu-check gpu-bundle lint format coverage sass sanitize neon wheel sdist clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-18s %s\n' "$$name" "$$text"; done

setup: $(READY)  ## virtual environment, pinned requirements, editable install

# The package is linked, not built: `build` compiles the module into the source tree, where the link finds it.
$(VENV)/.ready: requirements-dev.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -r requirements-dev.txt
	WEIGHTINIT_NATIVE=0 $(PY) -m pip install --no-build-isolation --no-deps -e .
	touch $@

build: $(READY)  ## compile the native module in place (incremental; for the GPUs here, or one architecture)
	$(PY) setup.py -q build_ext --inplace

test: build  ## the test suite, as CI runs it
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

test-exhaustive: build  ## tests that walk a whole input space
	$(PY) -m pytest -m exhaustive $(ARGS)

test-statistical: build  ## distribution tests on large samples
	$(PY) -m pytest -m statistical $(ARGS)

test-zoo: build  ## constructors as models have them, eager and under deferred(), and how many of each kind are equal
	$(PY) -m pytest -m zoo tests/zoo $(ARGS)

test-batteries: build  ## tests of randomness on every kind of stream, and controls, into benchmarks/results/batteries.json
	$(PY) -m benchmarks.batteries --json benchmarks/results/batteries.json $(ARGS)

test-distributed: build  ## every sharded flow, in worlds of 1, 2, 3, 4 and 8 processes
	$(PY) -m pytest tests/distributed $(ARGS)

coverage: build  ## the test suite with line and branch coverage
	$(PY) -m pytest --cov --cov-report=term-missing $(ARGS)

demo: build  ## initialise GPT-2 and Llama through the drop-in, against torch.nn.init
	$(PY) -m weightinit_cuda demo

demo-distributed: build  ## a Llama of 1.5 billion parameters in one process and in four (6 GB)
	PYTHONPATH=. $(PY) examples/distributed_demo.py

bench: build  ## all benchmarks on this CPU, into benchmarks/results/cpu.json and cpu.html
	$(PY) -m benchmarks --suite all --device cpu --json benchmarks/results/cpu.json --html benchmarks/results/cpu.html

readme-table: $(READY)  ## the tables of docs/ from benchmarks/results/
	$(PY) -m benchmarks readme-table

docs: $(READY)  ## the documentation, build/docs/index.html; warnings and dead links are errors
	rm -rf build/docs build/doctrees
	$(PY) -m sphinx -q -W -n -b html -d build/doctrees docs build/docs

# With $(PYTHON) as it is, and not the virtual environment: needs a torch that sees a GPU, and installs nothing.
OUT     ?= build/gpu-check
SECS    ?= 540
gpu-check:  ## all that a GPU can tell, in SECS seconds, into OUT; exit status 1 if no GPU was seen or anything was lost
	$(PYTHON) -m benchmarks.gpu_check --seconds $(SECS) --out $(OUT) $(ARGS)

gpu-bundle: $(READY)  ## the native module for a machine with a GPU: CPython 3.12 and sm_90, or as ARGS say
	$(PY) -m benchmarks.gpu_check.bundle $(ARGS)

lint: $(READY)  ## ruff, mypy --strict, clang-format, the workflows' schema; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	clang-format --dry-run --Werror $(CXX_FILES)

format: $(READY)  ## apply ruff's fixes and both formatters
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	clang-format -i $(CXX_FILES)

sass: $(READY)  ## what the CUDA kernel costs in machine code, against tools/sass_budget.json; needs nvcc, no GPU
	$(PY) tools/sass_budget.py $(ARGS)

# $(call core_tests,folder,flags): tests/native/core_tests.cpp, built and run without Python.
define core_tests
cmake -S . -B build/$(1) -G Ninja -DWEIGHTINIT_CORE_TESTS=ON -DWEIGHTINIT_WERROR=$(or $(WEIGHTINIT_WERROR),0) $(2)
cmake --build build/$(1)
ctest --test-dir build/$(1) --output-on-failure
endef
NEON := -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64;-L;/usr/aarch64-linux-gnu"

sanitize: $(READY)  ## the core's tests under the address and undefined-behaviour sanitizers
	$(call core_tests,sanitize,-DWEIGHTINIT_SANITIZE=ON)

ifeq ($(and $(shell command -v aarch64-linux-gnu-g++),$(shell command -v qemu-aarch64)),)
neon:
	@echo "neon: skipped, aarch64-linux-gnu-g++ and qemu-aarch64 are not both installed"
else
neon: $(READY)  ## the core's tests cross-compiled for aarch64, under qemu
	$(call core_tests,neon,$(NEON))
endif

wheel: $(READY)  ## dist/*.whl: manylinux, for every CPython found here; ARGS="--machine aarch64" cross-compiles
	$(PY) tools/build_wheels.py $(ARGS)

sdist: $(READY)  ## dist/*.tar.gz, which builds and tests by itself
	$(PY) -m build --sdist

clean:  ## remove what was built; the virtual environment stays
	rm -rf build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache weightinit_cuda/_C*.so
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
