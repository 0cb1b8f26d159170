# Plain git, make and Python >= 3.11 are enough: every target prepares the virtual environment it needs.
# PYTHON names the Python that .venv is made with: PYTHON=python3.12. Programs are called as modules, since a
# script in .venv/bin does not run where the path of the clone has spaces.
PROFILE ?= smoke
EXECUTE ?= changed
RUN := .venv/bin/python -m
ENGINE := $(RUN) book.engine
# Threads that wait sleep: beside other tests, spinning ones make small networks ten times slower.
PYTEST := OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-PASSIVE} $(RUN) pytest
# Each process takes whole files, long ones first. There is one more than there are cores, since tests also wait.
AT_ONCE := --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
NBVAL := --nbval-lax --nbval-current-env $(AT_ONCE)

.PHONY: setup book pdf notebooks test test-portable lint bench clean

setup:  ## the virtual environment, installed into only when the dependencies changed
	@"$${PYTHON:-python3}" .ci/environment.py

book: setup  ## render the book; of the chapters, execute those that changed, or with EXECUTE=all every one
	@$(ENGINE) book --profile '$(PROFILE)' --execute '$(EXECUTE)'

pdf: setup  ## the book, and all of it as one PDF beside its pages
	@$(ENGINE) pdf --profile '$(PROFILE)' --execute '$(EXECUTE)'

notebooks: setup  ## refresh the committed notebooks beside their sources
	@$(ENGINE) notebooks

test: setup  ## every committed notebook against its stored outputs, and the tests
	OMP_NUM_THREADS=1 $(PYTEST) $(NBVAL)

test-portable: setup  ## before a release: the notebooks under the plainest instructions and another number of threads
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 $(PYTEST) $(NBVAL) book/chapters

lint: setup  ## style, formatting and types
	$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy

bench: setup  ## neurons and networks timed beside their ReLU twins and peers
	@$(RUN) snnmlp_edu bench

clean:  ## everything that was built, but for the virtual environment
	rm -rf book/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
