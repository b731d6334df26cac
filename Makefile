# Everything runs in an environment of its own; nothing but Python 3.11+ with venv and pip is needed.
#   make demo    find anomalies in real pictures (needs a package registry for the installation, nothing after it)
#   make test    run the tests
#   make lint    ruff, mypy, the import contract
#   make docs    build the documentation in docs/_build/html; warnings are errors
#   make pages   write the generated parts of docs/ again
#   make wheel   build the wheel twice, in different folders, and compare the two byte by byte
#   make lock    lock the dependencies by hash; list them, with their licences (needs PyPI)
#   make clean   remove the environments and what the tools left behind

PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
DEMO_ARGS ?=
TEST_ARGS ?=

.PHONY: demo test lint docs pages wheel lock clean

demo: .venv-demo/ready
	.venv-demo/bin/blemish demo $(DEMO_ARGS)

test: .venv-test/ready
	.venv-test/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(TEST_ARGS)

lint: .venv-test/ready
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports

docs: .venv-docs/ready
	.venv-docs/bin/python docs/generate.py --check
	.venv-docs/bin/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

pages: .venv-test/ready
	.venv-test/bin/python docs/generate.py

# SOURCE_DATE_EPOCH is the date in the archive; hatchling's own default would do as well.
wheel: .venv-release/ready
	rm -rf build dist
	for copy in build/wheel-a build/deep/er/wheel-b; do \
	    mkdir -p $$copy && git ls-files -z src pyproject.toml README.md LICENSE | xargs -0 cp --parents -t $$copy && \
	    SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) .venv-release/bin/python -m pip wheel $(PIP_FLAGS) --no-deps -w $$copy/dist $$copy || exit 1; \
	done
	cmp build/wheel-a/dist/*.whl build/deep/er/wheel-b/dist/*.whl
	mkdir -p dist && cp build/wheel-a/dist/*.whl dist/
	sha256sum dist/*.whl

lock: .venv-release/ready
	.venv-release/bin/python release/lock.py

.venv-release/ready:
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install $(PIP_FLAGS) --upgrade pip uv packaging
	touch $@

.venv-demo/ready: extras = demo
.venv-test/ready: extras = parquet,demo,test,dev
.venv-docs/ready: extras = docs

.venv-%/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blemish needs Python 3.11 or newer: give PYTHON=python3.12")'
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(extras)]'
	touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-docs .venv-release build dist docs/_build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
