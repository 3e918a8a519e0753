# Two commands: `make demo` and `make test`. Each makes .venv and installs what it needs when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := flarekd-demo

# the tests in three parts of about the same length
ROADS := tests/end_to_end
STAGES := tests/stages tests/training/test_ranks.py

# threads of the test runs would keep each other from the cores while they wait (flarekd.cores)
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-roads test-stages test-rooms lint check clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "flarekd needs Python 3.10 or newer; name one with: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable . --group dev
	touch $@

demo: $(VENV)/.installed
	$(BIN)/flarekd demo --out $(DEMO)

# three processes, for many tests wait for others; what the first two have to say comes when they end
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs 3 --keep-going test-roads test-stages test-rooms

pytest_behind = $(BIN)/python -m pytest -q -o cache_dir=.pytest_cache/$(1) $(2) > .test-$(1).log 2>&1; \
  status=$$?; echo; echo "$(1):"; cat .test-$(1).log; exit $$status

test-roads: $(VENV)/.installed
	@$(call pytest_behind,roads,$(ROADS))

test-stages: $(VENV)/.installed
	@$(call pytest_behind,stages,$(STAGES))

test-rooms: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(ROADS:%=--ignore=%) $(STAGES:%=--ignore=%)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs configs benchmarks docker README.md CHANGELOG.md
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck docker/predict.sh

check: lint test

clean:
	rm -rf $(VENV) $(DEMO) .test-roads.log .test-stages.log .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
