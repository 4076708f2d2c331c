# make            says what there is
# Needs python3 (3.11 or newer), make and git; everything else goes into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet
PIP_EXISTS := $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
CHECKED := $(wildcard taskqueue cli tests benchmarks demo.py worker)

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# The environment has to run and be new enough, whoever made it; otherwise it is made again.
ifneq ($(shell $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && echo works),works)
.PHONY: $(VENV)/pyvenv.cfg
endif

##@ Use
.PHONY: help demo
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed ## Install into .venv and run the demonstration (needs no server, leaves nothing behind)
	@$(BIN)/python demo.py

##@ Develop
.PHONY: test test-mysql soak lint bench chaos clean
test: lint ## Lint, check types and run every test; CI=true makes a missing database server a failure
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(PYTEST)

test-mysql: $(VENV)/.installed-dev ## Run the tests of drivers and faults on MySQL itself (fetches its Debian package)
	@$(BIN)/python -m tests.servers.mysql $(PYTEST)

soak: $(VENV)/.installed-dev ## Run mixed load for an hour and see that the node holds what it held before (SOAK="--minutes 5")
	@$(BIN)/python -m tests.soak $(SOAK)

lint: $(VENV)/.installed-dev ## Check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CHECKED)

bench: $(VENV)/.installed-dev ## Measure on this machine
	@$(BIN)/python -m benchmarks $(BENCH)

chaos: $(VENV)/.installed-dev ## Kill, pause and cut nodes and databases under load, and check that nothing is lost
	@$(BIN)/python -m tests.chaos $(CHAOS)

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for users, one for developers; a change of pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml $(VENV)/pyvenv.cfg
	@echo "Installing taskqueue into $(VENV)"
	@$(PIP_EXISTS)
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/pyvenv.cfg
	@echo "Installing taskqueue and its development tools into $(VENV)"
	@$(PIP_EXISTS)
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/pyvenv.cfg:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
			"$$python" -m venv --clear $(VENV) && exit 0; \
			echo "make: '$$python -m venv' failed; on Debian and Ubuntu 'apt install python3-venv' helps" >&2; exit 1; \
		fi; \
	done; \
	echo "make: Python 3.11 or newer is needed, $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1);" \
		"install one, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1
