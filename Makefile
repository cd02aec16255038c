# Everything from a clean clone; `make help` lists the targets. Needs Linux, python >= 3.10, a C++20 compiler and make.
#
#   VENV=.venv       the environment to make or use
#   PYTHON=python3   the interpreter to make it with; if that has torch >= 2.10, its torch is used
#   TORCH=...        another torch to install, "torch==2.12.0"
#   FASTDIFF_OPS_CUDA=0|1, TORCH_CUDA_ARCH_LIST, MAX_JOBS   as in setup.py

VENV ?= .venv
PYTHON ?= python3
TORCH ?=
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
# Few architectures compile quickly; `make wheel` compiles the full list of setup.py unless told otherwise.
WHEEL_ARCHS := $(TORCH_CUDA_ARCH_LIST)
TORCH_CUDA_ARCH_LIST ?= 8.0;9.0
export TORCH_CUDA_ARCH_LIST
export PATH := $(abspath $(VENV))/bin:$(PATH)

PY := $(abspath $(VENV))/bin/python
STAMPS := $(VENV)/stamps
SETUP = @tools/bootstrap.sh "$(VENV)" "$(PYTHON)" "$(TORCH)"

.PHONY: help demo cpp test lint format build bench gpu-check ptxas wheel clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@sed -n 's/^#   \([A-Z]\)/    \1/p' $(firstword $(MAKEFILE_LIST))

$(STAMPS)/environment: pyproject.toml tools/bootstrap.sh
	$(SETUP) build run
	@mkdir -p $(@D) && touch $@

$(STAMPS)/%: $(STAMPS)/environment
	$(SETUP) $*
	@touch $@

# An editable install, so that the console script and imports work from everywhere.
$(STAMPS)/package: $(STAMPS)/environment setup.py
	@mkdir -p build
	@echo "Compiling (log: build/install.log)"
	@$(PY) -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e . > build/install.log 2>&1 \
	    || { tail -60 build/install.log; echo "error: the build failed; all of its output is in build/install.log"; exit 1; }
	@touch $@

build: $(STAMPS)/package  ## compile the extension modules, what changed only
	@$(PY) setup.py build_ext --inplace > build/build.log 2>&1 \
	    || { tail -60 build/build.log; echo "error: the build failed; all of its output is in build/build.log"; exit 1; }

demo: build $(STAMPS)/demo  ## generate pictures with the shipped model; writes demo/
	$(PY) -m fastdiff_ops demo

# What the tests load and run of C++; they build it themselves otherwise.
cpp: $(STAMPS)/test
	@echo "Compiling the C++ tests and the emulated kernels (build/cmake)"
	@PYTHONPATH=tests $(PY) -c "import cpp_build; cpp_build.build()"

test: build cpp  ## every test: Python, C++, emulated CUDA under sanitizers, packaging
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(JOBS) --dist loadgroup --doctest-modules tests python/fastdiff_ops

lint: $(STAMPS)/lint  ## formatting, style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	git ls-files '*.h' '*.cpp' '*.cu' | xargs $(VENV)/bin/clang-format --dry-run --Werror

format: $(STAMPS)/lint  ## lay out every source as `make lint` wants it
	$(VENV)/bin/ruff format .
	git ls-files '*.h' '*.cpp' '*.cu' | xargs $(VENV)/bin/clang-format -i

bench: build $(STAMPS)/bench  ## measure against peers, half an hour (4 minutes with ARGS=--quick); writes bench/results/
	$(PY) -m bench $(ARGS)

gpu-check: build $(STAMPS)/test  ## everything that needs a GPU: tests, compute-sanitizer, benchmarks
	$(PY) tools/gpu_check.py

ptxas: $(STAMPS)/environment  ## registers and spills of every CUDA kernel; writes build/ptxas.txt
	$(PY) tools/ptxas_report.py

wheel: $(STAMPS)/environment  ## a wheel in dist/
	@rm -rf build/lib*  # it may hold modules that are gone
	TORCH_CUDA_ARCH_LIST="$(WHEEL_ARCHS)" $(PY) -m pip wheel --disable-pip-version-check --no-build-isolation \
	    --no-deps --wheel-dir dist .

clean:  ## remove what was built; the environment stays
	rm -rf build dist demo python/*.egg-info python/fastdiff_ops/*.so $(STAMPS)/package
