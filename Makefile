# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. Everything is installed into $(VENV) and compiled in $(BUILD).
PYTHON ?= python3
TF ?= 2.21.0
VENV ?= .venv
# Of the kernels built here: what a wheel holds takes a minute longer.
CUDA_ARCHITECTURES ?= 75-real;80-real;90-real;120
# Test processes: each takes up to 2 GB of memory, and 10 GB for the largest tensors where 16 are free.
PYTEST_JOBS ?= 2
BUILD := build/tf$(TF)
ENVIRONMENT := $(VENV)/tf$(TF).stamp
BIN := $(VENV)/bin
SEARCH = "$(abspath $(BIN)):$$PATH"

CXX_FILES = $(shell find cc tests/cc benchmarks packaging \
  -name '*.h' -o -name '*.cc' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh')
SHELL_FILES = .ci/run $(wildcard *.sh)

.DELETE_ON_ERROR:
.PHONY: help demo test bench lint format build cuda-toolkit gpu-test gpu-check gpu-bench clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON=$(PYTHON) TF=$(TF) VENV=$(VENV) DEMO_ARGS= PYTEST_ARGS= BENCH_ARGS= GPU_ARGS='

demo: build  ## Train small networks with each quantizer
	$(BIN)/python -m lowbit demo $(DEMO_ARGS)

# A file runs in one process, since its tests share what they have built.
test: build  ## Run the tests
	$(BIN)/python -m pytest --numprocesses $(PYTEST_JOBS) --dist loadfile $(PYTEST_ARGS)

bench: build  ## Time the ops
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

lint: $(ENVIRONMENT)  ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/shellcheck $(SHELL_FILES)

format: $(ENVIRONMENT)  ## Format all sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

build: $(ENVIRONMENT)  ## Compile what changed
	@PATH=$(SEARCH) cmake -S . -B $(BUILD) -G Ninja -DLOWBIT_BUILD_TESTS=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  '-DLOWBIT_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)' >/dev/null
	@PATH=$(SEARCH) cmake --build $(BUILD)

cuda-toolkit: $(ENVIRONMENT)  ## Install a CUDA compiler into the environment
	$(BIN)/pip install --quiet 'cuda-toolkit[nvcc,cudart,nvvm,crt,cccl]==13.0.2'

gpu-test: build  ## Run the tests of the ops on a GPU, with TensorFlow
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} LOWBIT_TEST_DEVICE=/GPU:0 \
	  $(BIN)/python -m pytest $(PYTEST_ARGS)

# On a machine with PyTorch, which need not have TensorFlow: $(PYTHON), not the environment's.
gpu-check:  ## Check the GPU kernels, without TensorFlow
	$(PYTHON) benchmarks/gpu/check.py $(GPU_ARGS)

gpu-bench:  ## Time the GPU kernels beside PyTorch
	$(PYTHON) benchmarks/gpu/bench.py $(GPU_ARGS)

clean:  ## Remove everything that was built or installed here
	rm -rf build $(VENV) python/lowbit.egg-info python/lowbit/_ops python/lowbit_numpy/*.so

# The editable install compiles in $(BUILD), so that the target build continues there.
$(ENVIRONMENT): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  2>/dev/null || { echo 'lowbit needs Python 3.10 to 3.13: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) has no venv module: apt-get install python3-venv' >&2; exit 1; }
	@command -v $(CXX) >/dev/null || \
	  { echo 'lowbit needs a C++17 compiler: apt-get install g++, or make CXX=...' >&2; exit 1; }
	@rm -f $(VENV)/tf*.stamp
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet 'tensorflow-cpu==$(TF)' 'setuptools>=77' 'cmake>=3.22,<4' ninja \
	  'pybind11>=2.12'
	PATH=$(SEARCH) LOWBIT_BUILD_DIR=$(BUILD) \
	  CMAKE_ARGS='-DLOWBIT_BUILD_TESTS=ON "-DLOWBIT_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)"' \
	  $(BIN)/pip install --quiet --no-build-isolation --editable '.[demo,test,dev]' \
	  'tensorflow-cpu==$(TF)'
	@touch $@
