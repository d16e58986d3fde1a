# make demo   environment, install, and the embedded first run
# make test   environment, install, then lint, types and all tests
# make check  lint, types and all tests in the environment that is there
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two test processes on two cores: torch and tokenizers must not start threads of their own.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_FLAGS ?= -n 2 --dist worksteal

.PHONY: demo test check lint types tests install clean

demo: install
	$(BIN)/python -m mftrun

test: install
	$(MAKE) check

check: lint types tests

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

tests:
	$(TEST_ENV) $(BIN)/python -m pytest $(TEST_FLAGS)

install: $(VENV)/.installed

# The stamp is written last, so that an install that was cut short is repeated.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
