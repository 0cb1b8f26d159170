# Plain git, make and Python >= 3.11 are enough: every target prepares the virtual environment it needs.
PYTHON ?= python3
PROFILE ?= smoke
BIN := .venv/bin
READY := .venv/.ready
# Each process runs whole chapters, and most of a chapter keeps one core busy.
AT_ONCE := --numprocesses auto --maxprocesses 4 --dist loadfile
NBVAL := --nbval-lax --nbval-current-env $(AT_ONCE) book/chapters
# Threads that wait sleep: on a busy machine, spinning ones make small networks ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup book notebooks test test-portable lint bench clean

setup: $(READY)  ## the virtual environment, rebuilt only when the dependencies changed

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("snnmlp-edu needs Python 3.11 or newer, and $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'Installing into .venv; the first time this takes some minutes.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

book: setup  ## execute the chapters that changed and render the book
	@$(BIN)/python -m book.engine book --profile $(PROFILE)

notebooks: setup  ## refresh the committed notebooks beside their sources
	@$(BIN)/python -m book.engine notebooks

test: setup  ## the tests, then every committed notebook against its stored outputs
	$(BIN)/python -m pytest $(AT_ONCE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(NBVAL)

test-portable: setup  ## before a release: the notebooks under the plainest instructions and another number of threads
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 $(BIN)/python -m pytest $(NBVAL)

lint: setup  ## style, formatting and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup  ## neurons and networks timed beside their ReLU twins and peers
	@$(BIN)/snnmlp bench

clean:  ## everything that was built, but for the virtual environment
	rm -rf book/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
