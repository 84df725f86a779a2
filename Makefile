# make demo       create the environment, run the digits grid on this machine, and draw its envelope
# make test       create the environment, and run the test suite on two cores
# make test-slow  tests of more than half a minute, and more randomized kill tests
# make check      format, lint, types and import rules, then both, with branch coverage
# make slurm-up, test-slurm, slurm-down   the tests on a real SLURM; see tests/slurm/slurm.mk
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ON_TWO_CORES := --numprocesses 2 --dist worksteal

.PHONY: demo test test-slow check lint clean constraints

demo: $(VENV)/installed
	$(BIN)/python -m pipeline.launch grid=digits cluster=local
	$(BIN)/python -m analysis.envelope grid=digits

test: $(VENV)/installed
	$(BIN)/python -m pytest $(ON_TWO_CORES) $(COVERAGE)

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest $(ON_TWO_CORES) -m slow

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

clean:
	rm -rf $(VENV)

include tests/slurm/slurm.mk
