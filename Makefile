# `make quickstart` needs Python >= 3.10 and make, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
QUICK := not slow and not product
CHECKED := recipes modules datamodules callbacks tests benchmarks

.PHONY: quickstart test test-product test-slow test-lowest lint format

quickstart: .venv/installed
	$(BIN)/recipes fit -c digits/supervised

test: .venv/installed-dev
	$(BIN)/pytest -n 2 -m "$(QUICK)" --dist loadfile --durations 10

# Minutes more: every technique with every partner and option, resumed everywhere.
test-product: .venv/installed-dev
	$(BIN)/pytest -n 2 -m product

# Minutes more: the wheel in an empty environment.
test-slow: .venv/installed-dev
	$(BIN)/pytest -n 2 -m "not product" --dist loadfile

# The quick tests with the oldest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet -c constraints-lowest.txt -e ".[dev]"
	.venv-lowest/bin/pytest -n 2 -m "$(QUICK)" --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/python tests/plain_english.py
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
