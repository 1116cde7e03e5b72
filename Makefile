# Needs Python 3.11+ and make, nothing else. `make demo` shows what cachepoint does, `make test` checks this source,
# `make test-all` everything.
# Environments live in .venv*; a stamp in each says that it is as pyproject.toml and the constraints want it.

PYTHON ?= python3
PIP = -m pip --quiet --disable-pip-version-check
PYTEST = -m pytest --quiet
WORKERS ?= 2

VENV = .venv
LOWEST = $(VENV)-lowest
BARE = $(VENV)-bare
NEWEST = .venv-newest
SOURCES = $(shell $(PYTHON) -c "import pathlib; print(*sorted(p for p in pathlib.Path('src').rglob('*') if p.suffix in ('.py', '.toml', '.md')))")

.PHONY: demo test test-all test-long test-shuffled test-pythons faults environments checks lint types unit test-bare test-lowest test-newest constraints clean

demo: $(VENV)/demo.stamp
	@$(VENV)/bin/cachepoint demo

# Every check of this source, in less than five minutes on two cores. What only one of them can do at a time is done
# two at a time; pytest's closing line of the whole suite comes last.
test:
	@$(MAKE) --no-print-directory -j 2 environments
	@$(MAKE) --no-print-directory -j 2 checks
	@$(MAKE) --no-print-directory unit

# The same and the rest: what is marked `long`, and the oldest releases that are promised to work.
test-all: test
	@$(MAKE) --no-print-directory test-lowest
	@$(MAKE) --no-print-directory test-long

environments: $(VENV)/dev.stamp $(BARE)/wheel.stamp

checks: lint types test-bare

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/dev.stamp
	$(VENV)/bin/mypy

unit: $(VENV)/dev.stamp
	$(VENV)/bin/python $(PYTEST) -n $(WORKERS) -m "not long"

test-long: $(VENV)/dev.stamp
	$(VENV)/bin/python $(PYTEST) -n $(WORKERS) -m long

# The fault campaign of docs/reliability.md with so many cases; `make test` plays 100.
FAULTS ?= 5000
faults: $(VENV)/dev.stamp
	CACHEPOINT_FAULTS=$(FAULTS) $(VENV)/bin/python -m pytest --timeout 0 tests/faults

# The tests of `make unit` in an order of chance; pytest's first lines print the seed, which SHUFFLE_SEED brings back.
SHUFFLE_SEED ?= default
test-shuffled: $(VENV)/dev.stamp
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m "not long" -p randomly --randomly-seed=$(SHUFFLE_SEED)

# `make test` with every Python from 3.11 on that is found, each in environments of its own.
test-pythons:
	$(PYTHON) .ci/pythons.py "$(MAKE)"

# No extra installed, boto3 at its floor, and the built wheel in place of the source tree.
test-bare: $(BARE)/wheel.stamp
	$(BARE)/bin/python $(PYTEST) -p no:cacheprovider -m "not long" tests/core tests/frame/test_without_extras.py

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
	$(PYTHON) -c "import glob, shutil; [shutil.rmtree(d, ignore_errors=True) for d in '$(VENV) $(LOWEST) $(BARE) $(NEWEST) dist'.split() + glob.glob('.venv-3.*')]"

# pip is upgraded first: the one that comes with Python 3.11 knows no dependency groups and resolves slowly.
%/pip.stamp:
	$(PYTHON) -m venv $*
	$*/bin/python $(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml constraints/newest.txt
	$(VENV)/bin/python $(PIP) install --editable '.[all]' --constraint constraints/newest.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml constraints/newest.txt
	$(VENV)/bin/python $(PIP) install --editable '.[all]' --group test --group conformance --group neighbours --group lint --constraint constraints/newest.txt
	@touch $(VENV)/demo.stamp $@

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

# Do the tests bite? A sample of small mistakes in core, fixed by the seed, and the share of them that tests find.
.PHONY: mutants
SEED ?= 1
MUTANTS ?= 200

mutants: $(VENV)/dev.stamp
	$(VENV)/bin/python benchmarks/mutants.py --seed $(SEED) --count $(MUTANTS) --workers $(WORKERS)

.SECONDARY:
