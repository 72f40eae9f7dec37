# Every target makes its own virtual environment when it is missing. Needs Python 3.11+, git, make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

# Where it is set, each of a thousand processes would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check fix bench soak docs peers lock clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/demo.stamp  ## Serve a model, ask it, release a bad version and a good one, by hand and over MQTT
	$(BIN)/python examples/digits/demo.py

test: $(VENV)/dev.stamp  ## Run every test, four files at a time
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

check: $(VENV)/dev.stamp  ## Format, lint, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/dev.stamp  ## Mend format and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp  ## Measure against in-process runs and FastAPI; writes docs/performance.md
	$(BIN)/python -m benchmarks.run

soak: $(VENV)/dev.stamp  ## Long runs: load, swaps and bad clients for SOAK_S seconds (default 600)
	$(BIN)/python -m pytest tests/soak -m soak --timeout=0 -s
	EVERY_ROW=1 $(BIN)/python -m pytest --timeout=0 -k "kill or http_faults or store_faults or \
		agent_attacks or active_away or memory_stays_flat" tests/unit/agent tests/unit/edge_runtime/store \
		tests/integration

docs: $(VENV)/dev.stamp  ## Regenerate the generated documents
	$(BIN)/python docs/generate.py

peers: $(VENV)-triton/stamp $(VENV)-kserve/stamp $(VENV)-perf/stamp  ## Real clients for the conformance tests

lock: $(VENV)/dev.stamp  ## Resolve the dependencies anew
	$(LOCK) --upgrade pyproject.toml requirements/build.in --extra dev -o requirements/dev.txt
	$(LOCK) pyproject.toml requirements/build.in -c requirements/dev.txt -o requirements/base.txt
	$(LOCK) pyproject.toml requirements/build.in --extra fleet --extra demo \
		-c requirements/dev.txt -o requirements/demo.txt

clean:  ## Remove environments, caches and build products
	rm -rf $(VENV) $(VENV)-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian keeps venv apart from Python; half an environment would pass for a whole one next time.
make-venv = $(PYTHON) -m venv $(1) || { rm -rf $(1); \
	echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 4; }

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 ..."; exit 4; }
	$(call make-venv,$(VENV))

$(VENV)/base.stamp: requirements/base.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/base.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/demo.stamp: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/base.stamp

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/base.stamp $(VENV)/demo.stamp

# perf_analyzer is inside this old wheel; what the wheel names as its dependencies is not needed.
# It links libb64, a system package (apt-get install libb64-0d).
$(VENV)-perf/stamp: requirements/peers-perf.in
	$(call make-venv,$(VENV)-perf)
	$(VENV)-perf/bin/python -m pip --disable-pip-version-check -q install --no-deps -r $<
	@touch $@

$(VENV)-%/stamp: requirements/peers-%.in
	$(call make-venv,$(VENV)-$*)
	$(VENV)-$*/bin/python -m pip --disable-pip-version-check -q install -r $<
	@touch $@
