# make demo: the main job on shipped footage, into out/demo.    make test: what a person runs before a commit.
# make test-all: every check, the slow ones too.
# All set up .venv by themselves, and only once. They need Python 3.11 or newer and make, no compiler.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all lint format clean

demo: $(VENV)/core.stamp
	$(BIN)/spikevrt demo --out out/demo --overwrite

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m 'not slow'

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out .mypy_cache .pytest_cache .ruff_cache

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("spikevrt: Python " + sys.version.split()[0] + "; needed: 3.11 or newer (make PYTHON=python3.12 ...)")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/core.stamp: pyproject.toml constraints.txt | $(VENV)/made.stamp
	$(INSTALL) -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/made.stamp
	$(INSTALL) -e '.[train,dev]'
	touch $@ $(VENV)/core.stamp
