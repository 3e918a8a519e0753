# Two commands: `make demo` and `make test`. Each makes .venv and installs what it needs when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := flarekd-demo

# tests that run the program itself, in processes of its own
ROADS := tests/end_to_end tests/docker tests/training/test_ranks.py \
  $(patsubst %,tests/stages/test_%.py,bench check_folders export import_nnunet road)

# threads of the two test runs would keep each other from the cores while they wait (flarekd.cores)
test-roads test-rooms: export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-roads test-rooms lint check clean

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

# two processes, for many tests wait for others; what the first has to say comes when it ends
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs 2 --keep-going test-roads test-rooms

test-roads: $(VENV)/.installed
	@$(BIN)/python -m pytest -q -o cache_dir=.pytest_cache/roads $(ROADS) > .test-roads.log 2>&1; \
	  status=$$?; echo; echo "$(ROADS):"; cat .test-roads.log; exit $$status

test-rooms: $(VENV)/.installed
	$(BIN)/python -m pytest -q $(ROADS:%=--ignore=%)

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
	rm -rf $(VENV) $(DEMO) .test-roads.log .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
