# Everything runs in an environment of its own; nothing but Python 3.11+ with venv and pip is needed.
#   make demo    find anomalies in real pictures (needs a package registry for the installation, nothing after it)
#   make test    run the tests
#   make lint    ruff and mypy
#   make clean   remove the environments and what the tools left behind

PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
DEMO_ARGS ?=

.PHONY: demo test lint clean

demo: .venv-demo/ready
	.venv-demo/bin/blemish demo $(DEMO_ARGS)

test: .venv-test/ready
	.venv-test/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

.venv-demo/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blemish needs Python 3.11 or newer: make demo PYTHON=python3.12")'
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[demo]'
	touch $@

.venv-test/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blemish needs Python 3.11 or newer: make test PYTHON=python3.12")'
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[parquet,demo,test,dev]'
	touch $@

clean:
	rm -rf .venv-demo .venv-test build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
