# Every command that a person or the CI needs; each one sets up its own environment first.
#   make demo     the first five minutes: a simulated genome, a model, a report
#   make test     the test suite            make check    format, lint, types, tests, documentation
#   make install  only the environment      make format   let ruff rewrite the code
#   make docs     the site, in site/        make docs-test  run every block and notebook of the documents
# PYTHON=python3.12 chooses the interpreter, ARGS="..." is passed on (make demo ARGS="--quick").

PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1 && echo $$name && break; done)
VENV ?= .venv
ARGS ?=
STAMP := $(VENV)/.longstrand-installed
BIN := $(VENV)/bin
# Compiled code is kept (PYTHONDONTWRITEBYTECODE=), since tests start many processes.
TESTS = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
SOURCES := longstrand tests perf tools recipes examples
TYPED := -p longstrand.genome -p longstrand.tokenization -p longstrand.models -p longstrand.inference -p longstrand.evaluation -p longstrand.questions -m longstrand.config -m longstrand.errors -m longstrand.runtime

.PHONY: help install demo test slow check format lint types docs docs-test perf clean

help:
	@sed -n '2,7s/^# \{0,3\}//p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml tools/bootstrap.py
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(VENV) $(STAMP)

demo: $(STAMP)
	@$(BIN)/longstrand demo $(ARGS)

test: $(STAMP)
	@$(TESTS) -m "not slow and not gpu and not docs" $(ARGS)

slow: $(STAMP)
	@MPLBACKEND=Agg $(BIN)/python -m pytest -m "slow" $(ARGS)

check: lint types test

lint: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(STAMP)
	$(BIN)/mypy $(TYPED)

docs: $(STAMP)
	@$(BIN)/python tools/api_page.py
	@OMP_NUM_THREADS=1 MPLBACKEND=Agg NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet $(ARGS) && echo "open site/index.html"

docs-test: $(STAMP)
	@$(TESTS) tests/test_readme.py tests/test_guide.py tests/test_examples.py $(ARGS)

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

perf: $(STAMP)
	@for script in $(filter-out perf/gpu.py,$(wildcard perf/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
