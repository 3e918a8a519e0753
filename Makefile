# Two commands: `make demo` and `make test`. Each makes .venv and installs what it needs when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := flarekd-demo

.PHONY: demo test lint check clean

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

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q

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
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
