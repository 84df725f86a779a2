# make demo       create the environment, run the digits grid on this machine, and draw its envelope
# make test       create the environment, and run the test suite on two cores
# make test-slow  tests that take more than half a minute, and randomized kill tests
# make gpu-wheels  wheels for python -m benchmarks.gpu on a machine without network
# make check      format, lint, types and import rules, then both test targets, with branch coverage
# make slurm-up, test-slurm, slurm-down   the tests on a real SLURM; see tests/slurm/slurm.mk
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ON_TWO_CORES := --numprocesses 2 --dist worksteal

.PHONY: demo test test-slow check lint clean constraints gpu-wheels

demo: $(VENV)/installed
	$(BIN)/python -m pipeline.launch grid=digits cluster=local
	$(BIN)/python -m analysis.envelope grid=digits

test: $(VENV)/installed
	$(BIN)/python -m pytest $(ON_TWO_CORES) $(COVERAGE)

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest $(ON_TWO_CORES) -m slow tests/test_extending.py tests  # the longest first

check: lint
	$(MAKE) test COVERAGE='--cov --cov-report=term'
	$(MAKE) test-slow

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The environment is recreated whenever its inputs change.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

constraints: $(VENV)/installed
	head -n 2 constraints.txt > $(VENV)/constraints
	$(BIN)/python -m pip freeze --exclude-editable | grep -viE '^(nvidia|cuda|triton)' >> $(VENV)/constraints
	mv $(VENV)/constraints constraints.txt

# Packages that a GPU machine with torch, pandas, scipy and pyarrow may lack, for its Python 3.12 and no network:
# python3 -m pip install --no-index --no-deps --target SITE build/gpu-wheels/*.whl && export PYTHONPATH=SITE
GPU_PACKAGES := annotated-types hydra-core omegaconf plotly pydantic pydantic-core submitit typing-inspection
gpu-wheels: $(VENV)/installed
	rm -rf build/gpu-wheels
	$(BIN)/python -m pip download --quiet --no-deps --constraint constraints.txt --only-binary=:all: --python-version 3.12 \
	    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest build/gpu-wheels $(GPU_PACKAGES)
	$(BIN)/python -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir build/gpu-wheels antlr4-python3-runtime
	du -sh build/gpu-wheels

clean:
	rm -rf $(VENV)

include tests/slurm/slurm.mk
