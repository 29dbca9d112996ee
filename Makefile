# Every target sets up what it needs in .venv and can be run again.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo serve test check bench docs clean help

help:
	@echo "make demo    edit the example pictures over several turns"
	@echo "make serve   start the playground on http://127.0.0.1:8000"
	@echo "make test    run all tests"
	@echo "make check   run the linters, formatters, type checkers and the compiler's warnings"
	@echo "make bench   print the headline figures of the shipped weights"
	@echo "make docs    generate the pages of docs/ that come from the code"

demo: .venv/installed
	$(BIN)/python examples/demo.py demo

serve: .venv/installed
	$(BIN)/kontext serve --open

test: .venv/installed-test
	$(BIN)/python scripts/check.py > .venv/check.log 2>&1 & checked=$$!; \
	$(BIN)/python -m pytest -q --durations=10 -n auto --maxprocesses 4 --dist loadfile; tested=$$?; \
	wait $$checked || { cat .venv/check.log; exit 1; }; exit $$tested

check: .venv/installed-test .venv/node
	$(BIN)/python scripts/check.py

bench: .venv/installed-test
	$(BIN)/kontext bench headline

docs: .venv/installed-test
	$(BIN)/python scripts/generate_docs.py

clean:
	rm -rf .venv node_modules demo build dist .pytest_cache .ruff_cache .mypy_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv

BUILT_FROM := pyproject.toml setup.py $(wildcard src/kontext/kernels/*.[ch])

.venv/installed: $(BIN)/python $(BUILT_FROM)
	$(BIN)/pip install -q --no-compile -e .
	touch $@

# The tools for JavaScript, if npm is here and reaches its registry; without them their checks are skipped.
.venv/node: $(BIN)/python package.json
	-npm install --no-audit --no-fund --no-package-lock --silent --fetch-retries 1 --fetch-timeout 30000
	touch $@

.venv/installed-test: $(BIN)/python $(BUILT_FROM)
	$(BIN)/pip install -q --no-compile -e '.[test]'
	-$(BIN)/pip install -q --no-deps blackforest  # it asks for one old release of pillow, and works with the newest
	touch .venv/installed $@
