# Needs Python 3.11+ and make, nothing else. `make demo` shows what cachepoint does, `make test` runs every check.
# Environments live in .venv*; a stamp in each says that it is as pyproject.toml and the constraints want it.

PYTHON ?= python3
PIP = -m pip --quiet --disable-pip-version-check
PYTEST = -m pytest --quiet
WORKERS ?= 2

VENV = .venv
LOWEST = .venv-lowest
BARE = .venv-bare
NEWEST = .venv-newest
SOURCES = $(shell $(PYTHON) -c "import pathlib; print(*sorted(p for p in pathlib.Path('src').rglob('*') if p.suffix in ('.py', '.toml')))")

.PHONY: demo test lint types unit test-bare test-lowest test-newest constraints clean

demo: $(VENV)/demo.stamp
	@$(VENV)/bin/cachepoint demo

test: lint types test-bare test-lowest unit

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/dev.stamp
	$(VENV)/bin/mypy

unit: $(VENV)/dev.stamp
	$(VENV)/bin/python $(PYTEST) -n $(WORKERS)

# No extra installed, boto3 at its floor, and the built wheel in place of the source tree.
test-bare: $(BARE)/wheel.stamp
	$(BARE)/bin/python $(PYTEST) -p no:cacheprovider tests/core tests/frame/test_without_extras.py

# Old releases warn of newer ones of what they import, which is not ours to mend. The drop-in test is for today's.
test-lowest: $(LOWEST)/dev.stamp
	$(LOWEST)/bin/python $(PYTEST) -W default -n $(WORKERS) --ignore tests/langchain/drop_in tests/langchain tests/llama_index

# What a user gets today, unpinned; without aiobotocore, which holds boto3 back.
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(PIP) install --upgrade pip
	$(NEWEST)/bin/python $(PIP) install --editable '.[langchain,llama-index,emulator]' --group test --group conformance
	$(NEWEST)/bin/python $(PYTEST) -n $(WORKERS) tests/bedrock tests/langchain tests/llama_index

# Re-pins the tested set to the newest releases that can be installed together.
constraints:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(PIP) install --upgrade pip
	$(NEWEST)/bin/python $(PIP) install --editable '.[all]' --group test --group conformance --group neighbours --group lint
	$(NEWEST)/bin/python $(PIP) freeze --exclude-editable > constraints/newest.txt

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(d, ignore_errors=True) for d in '$(VENV) $(LOWEST) $(BARE) $(NEWEST) dist'.split()]"

# pip is upgraded first: the one that comes with Python 3.11 knows no dependency groups and resolves slowly.
%/pip.stamp:
	$(PYTHON) -m venv $*
	$*/bin/python $(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml constraints/newest.txt
	$(VENV)/bin/python $(PIP) install --editable '.[all]' --constraint constraints/newest.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(VENV)/bin/python $(PIP) install --group test --group conformance --group neighbours --group lint --constraint constraints/newest.txt
	@touch $@

$(LOWEST)/dev.stamp: $(LOWEST)/pip.stamp pyproject.toml constraints/lowest.txt
	$(LOWEST)/bin/python $(PIP) install --editable '.[langchain,llama-index,emulator]' --group test --group conformance --constraint constraints/lowest.txt
	@touch $@

$(BARE)/dev.stamp: $(BARE)/pip.stamp pyproject.toml constraints/lowest-bare.txt
	$(BARE)/bin/python $(PIP) install boto3 genai-prices --group test --constraint constraints/lowest-bare.txt
	@touch $@

$(BARE)/wheel.stamp: $(BARE)/dev.stamp pyproject.toml README.md $(SOURCES)
	$(BARE)/bin/python $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	$(BARE)/bin/python $(PIP) install --no-deps --force-reinstall --no-index --find-links dist cachepoint
	@touch $@

.SECONDARY:
