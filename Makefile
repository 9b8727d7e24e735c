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
BIN := $(VENV)/bin
SEARCH = "$(abspath $(BIN)):$$PATH"
# An environment that is there keeps its Python, unless PYTHON=... asks for another.
WANTED := $(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard $(BIN)/python) $(PYTHON)),$(PYTHON))
VERSION := $(shell $(WANTED) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# What is installed: the tools of the build; TensorFlow and lowbit; what tests and linters need.
TOOLS := $(VENV)/python$(VERSION).stamp
ENVIRONMENT := $(VENV)/python$(VERSION)-tf$(TF).stamp
TESTS := $(ENVIRONMENT:.stamp=-test.stamp)
LINTERS := $(ENVIRONMENT:.stamp=-dev.stamp)
# There is no tensorflow-cpu for 64-bit ARM, where tensorflow is for CPUs too.
TENSORFLOW := $(if $(filter x86_64,$(shell uname -m)),tensorflow-cpu,tensorflow)==$(TF)

CXX_FILES = $(shell find cc tests benchmarks packaging \
  -name '*.h' -o -name '*.cc' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh')
SHELL_FILES = $(wildcard .ci/* *.sh)

.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-pythons bench bench-train lint format environment build start \
  kernels cuda-toolkit gpu-test gpu-check gpu-bench clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON=$(PYTHON) TF=$(TF) VENV=$(VENV) DEMO_ARGS= PYTEST_ARGS= BENCH_ARGS= GPU_ARGS='

# The first time, Python compiles what the demo imports while the ops are compiled.
IMPORTED = $(VENV)/imported.stamp
demo: start  ## Train small networks with each quantizer
	@$(CONFIGURE) $(FOR_PYTHON) -DLOWBIT_TF=ON >/dev/null
	@test -e $(IMPORTED) || $(BIN)/python -c 'import keras, matplotlib.pyplot, sklearn.datasets' \
	  2>/dev/null & $(COMPILE) --target lowbit_ops && touch $(IMPORTED)
	$(BIN)/lowbit demo $(DEMO_ARGS)

# A hundred processes of the tests import TensorFlow: it is compiled for the first one only.
unexport PYTHONDONTWRITEBYTECODE

# A file runs in one process, since its tests share what they have built.
PYTEST = $(BIN)/python -m pytest --numprocesses $(PYTEST_JOBS) --dist loadfile
test: build $(TESTS)  ## Run the tests that a change needs: a sample of each product of cases
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

# "rest": but for what make test runs.
TEST_CASES ?= 0
test-all: build $(TESTS)  ## Run every case of every test, also those that take long
	LOWBIT_TEST_CASES=$(TEST_CASES) $(PYTEST) $(PYTEST_ARGS)

# Their ops are those of $(VENV): one build serves every Python, but for lowbit_numpy.
PYTHONS = $(shell .ci/pythons $(VERSION))
OTHERS = $(foreach python,$(PYTHONS),$(VENV)-$(notdir $(python)))
SOME := tests/ops/test_forward.py tests/numpy/test_numpy.py tests/keras/test_layers.py tests/ops/test_errors.py \
  tests/packaging/test_import.py tests/ops/test_quantizers.py
semicolon := ;
empty :=
space := $(empty) $(empty)

# On that of $(VENV), if there is no other.
test-pythons: build  ## Run some tests on the oldest and the newest other Python there is
	@$(foreach python,$(PYTHONS),$(MAKE) --no-print-directory environment PYTHON=$(python) \
	  VENV=$(VENV)-$(notdir $(python)) &&) true
	@$(CONFIGURE) $(FOR_PYTHON) '-DLOWBIT_NUMPY_PYTHON=$(subst $(space),$(semicolon),$(foreach environment,\
	  $(VENV) $(OTHERS),$(abspath $(environment))/bin/python))' >/dev/null
	@$(COMPILE) --target lowbit_numpy
	@$(foreach environment,$(or $(OTHERS),$(VENV)),$(environment)/bin/python -m pytest $(PYTEST_ARGS) \
	  --numprocesses $(PYTEST_JOBS) --dist loadfile -m 'not slow' $(SOME) &&) true

bench: build  ## Time the ops
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

bench-train: build  ## Time training steps
	$(BIN)/python benchmarks/train_step.py $(BENCH_ARGS)

lint: $(LINTERS)  ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/shellcheck $(SHELL_FILES)

format: $(LINTERS)  ## Format all sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

environment: $(TESTS)

build: start  ## Compile what changed
	@$(CONFIGURE) $(FOR_PYTHON) -DLOWBIT_TF=ON -DLOWBIT_QUICK=OFF -DLOWBIT_BUILD_TESTS=ON \
	  '-DLOWBIT_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)' >/dev/null
	@$(COMPILE)

# From nothing, the kernels are compiled while TensorFlow is installed, of which they know nothing.
# The folder is set up for the demo, whose ops run on a CPU, without XLA; once more is wanted there,
# so it stays.
# Ninja would take make's jobs for its own, and does not get them.
COMPILE = PATH=$(SEARCH) MAKEFLAGS= cmake --build $(BUILD)
CONFIGURE = PATH=$(SEARCH) cmake -S . -B $(BUILD) -G Ninja
FOR_PYTHON = -DPython_EXECUTABLE=$(abspath $(BIN))/python
start: $(TOOLS)
	@test -e $(ENVIRONMENT) && test -e $(BUILD)/build.ninja || \
	  $(MAKE) --no-print-directory --jobs=2 $(ENVIRONMENT) kernels
kernels: $(TOOLS)
	@test -e $(BUILD)/build.ninja || \
	  $(CONFIGURE) -DLOWBIT_TF=OFF -DLOWBIT_QUICK=ON >/dev/null
	@$(COMPILE) --target lowbit_cpu_levels

cuda-toolkit: $(ENVIRONMENT)  ## Install a CUDA compiler into the environment
	$(PIP) 'cuda-toolkit[nvcc,cudart,nvvm,crt,cccl]==13.0.2'

gpu-test: build $(TESTS)  ## Run the tests of the ops on a GPU, with TensorFlow
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} LOWBIT_TEST_DEVICE=/GPU:0 \
	  $(BIN)/python -m pytest $(PYTEST_ARGS)

# On a machine with PyTorch, which need not have TensorFlow: $(PYTHON), not the environment's.
gpu-check:  ## Check the GPU kernels, without TensorFlow
	$(PYTHON) benchmarks/check.py $(GPU_ARGS)

gpu-bench:  ## Time the GPU kernels beside PyTorch
	$(PYTHON) benchmarks/bench.py --gpu $(GPU_ARGS)

clean:  ## Remove everything that was built or installed here
	rm -rf build $(VENV) $(VENV)-python3.* python/lowbit.egg-info python/lowbit/_ops python/lowbit_numpy/*.so

$(TOOLS): pyproject.toml setup.py
	@$(WANTED) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  2>/dev/null || { echo 'lowbit needs Python 3.10 to 3.13: make PYTHON=python3.12' >&2; exit 1; }
	@$(WANTED) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(WANTED) has no venv module: apt-get install python3-venv' >&2; exit 1; }
	@command -v $(CXX) >/dev/null || \
	  { echo 'lowbit needs a C++17 compiler: apt-get install g++, or make CXX=...' >&2; exit 1; }
	@rm -f $(VENV)/*.stamp
	@echo 'Setting up $(VENV) with Python $(VERSION) and TensorFlow $(TF), then compiling in $(BUILD):'
	@echo 'on two cores, with a fast network, two minutes for the demo, five for everything'
	@$(BIN)/python -c 'import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' \
	  2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) 'pip>=21.3' 'setuptools>=77' 'cmake>=3.22' ninja 'pybind11>=2.12'
	@touch $@

# Python compiles what it imports, when it does: all of TensorFlow would take 15 s more.
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --no-compile
# CMake is left to the targets that compile.
INSTALL = LOWBIT_SKIP_CMAKE=1 $(PIP) --no-build-isolation '$(TENSORFLOW)'

$(ENVIRONMENT): $(TOOLS)
	@rm -f $(VENV)/*-tf*.stamp
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(TESTS): $(ENVIRONMENT)
	$(INSTALL) --editable '.[demo,test]'
	@touch $@

$(LINTERS): $(ENVIRONMENT)
	$(INSTALL) --editable '.[demo,dev]'
	@touch $@

.PHONY: fuzz
fuzz: build  ## Look for crashes and wrong results by random calls (FUZZ_ARGS=)
	@PATH=$(SEARCH) cmake --build $(BUILD) --target lowbit_fuzz lowbit_fuzz_address lowbit_fuzz_thread
	$(BIN)/python tests/fuzz $(FUZZ_ARGS)
