# Plain git, make and Python >= 3.11 are enough: every target prepares the virtual environment it needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup book notebooks test lint bench clean

setup: $(READY)  ## the virtual environment, rebuilt only when the dependencies changed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else "Python " + v + " is too old: snnmlp-edu needs 3.11 or newer, for example: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

book: setup  ## execute the chapters that changed and render the book
	@$(BIN)/python -m book.engine book

notebooks: setup  ## refresh the committed notebooks beside their sources
	@$(BIN)/python -m book.engine notebooks

test: setup  ## the tests, then every committed notebook against its stored outputs
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env book/chapters

lint: setup  ## style, formatting and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup  ## seconds of one training step's forward pass, smallest preset
	$(BIN)/snnmlp bench

clean:  ## everything that was built, but for the virtual environment
	rm -rf book/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
