# Python 3.11+ and make are all that this file assumes.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready

.PHONY: setup demo live test test-long test-peers check proof clean help lock docs page fuzz audit sbom

help:
	@echo "make demo   the whole platform on the built-in simulator (Ctrl-C stops it)"
	@echo "make live   the whole platform on the real exchanges"
	@echo "make test   set up and run the tests"
	@echo "make test-long   the tests that take longer: every fault alone, 60 kills at random"
	@echo "make test-peers  the tests with real peers: Prometheus, Alertmanager, root (docs/ARCHITECTURE.md names them)"
	@echo "make check  lint, types, import rules and documentation tests"
	@echo "make fuzz SECONDS=300    look for inputs that break decoders, the store's HTTP side, the API (TARGETS=... only these)"
	@echo "make audit  known vulnerabilities, licences, committed secrets, bill of materials (make sbom writes that anew)"
	@echo "make proof CAPTURES=DIR   recorded traffic through the whole pipeline, compared with its known truth"
	@echo "make page   build the web page anew from page/ (needs node and npm)"
	@echo "make setup  only set up .venv;  make clean  remove what was built and the demo's data"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "K2 needs Python 3.11 or newer; this is %d.%d. Name another with: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(RUN): $(BIN)/python requirements.lock pyproject.toml
	@echo "==> installing what K2 runs on (locked versions; about a minute the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "==> installing what the tests use (locked versions)"
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-dev.lock
	@touch $@

setup: $(RUN)
	@echo "==> ready: $(BIN)/k2 --help"

demo: $(RUN)
	@$(BIN)/k2 demo $(ARGS)

live: $(RUN)
	@$(BIN)/k2 up $(ARGS)

test: $(DEV)
	@echo "==> running the tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-long: $(DEV)
	@echo "==> running the long tests: every fault alone, 60 kills at random (about ten minutes)"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not peers" $(ARGS)

test-peers: $(DEV)
	@echo "==> running the tests with real peers"
	@$(BIN)/python -m pytest -n 1 -m peers $(ARGS)

check: $(DEV)
	@echo "==> ruff";            $(BIN)/ruff check src tests && $(BIN)/ruff format --check src tests
	@echo "==> mypy --strict";   $(BIN)/mypy
	@echo "==> import rules";    $(BIN)/lint-imports
	@echo "==> documentation";   $(BIN)/python -m pytest tests/docs -n 0

SECONDS ?= 60
fuzz: $(DEV)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-fuzz.lock
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

# The audit fails, too, when the source of advisories did not answer, unless UNASKED=allowed.
audit: $(DEV)
	@$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements-audit.lock
	@$(BIN)/python -m tests.security $(CHECKS) || { test $$? = 3 && test "$(UNASKED)" = allowed; }

sbom: $(DEV)
	@$(BIN)/python -m tests.security --write sbom

proof: $(DEV)
	@test -n "$(CAPTURES)" || { echo "say where the recorded sets are: make proof CAPTURES=DIR"; exit 2; }
	@$(BIN)/python tests/proof/prove.py "$(CAPTURES)"

docs: $(RUN)
	@$(BIN)/python -m k2.reference docs

# The page that `k2 web` serves: needs node 20+ and npm, here only; what it makes is committed.
page:
	@cd page && npm ci --no-audit --no-fund --loglevel=error && npm run -s check && npm run -s build

lock: $(DEV)
	@$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header -q pyproject.toml build.in -o requirements.lock
	@$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header -q pyproject.toml build.in --group dev -o requirements-dev.lock
	@for group in fuzz audit; do $(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header -q \
	  --python-version 3.11 --group pyproject.toml:$$group -c requirements-dev.lock -o requirements-$$group.lock; done
	@$(BIN)/python -m tests.security --write sbom

clean:
	rm -rf $(VENV) k2-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
