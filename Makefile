# Needs Python 3.11 or newer, and make. Everything else comes from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests wait for servers as much as they work.
PROCESSES := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

DEMO := $(BIN)/harca

.PHONY: help setup demo test coverage lint format lock clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with the pinned versions; harca and alembic are in .venv/bin

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "harca needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The demo has an embedded server of its own, whatever the environment names.
demo clean: export HARCA_HOME := .harca/demo
demo: export HARCA_DATABASE_URL :=
demo: export POSTGRES_CONNECTION_STRING :=
demo: export HARCA_POSTGRES_CONNECTION_STRING :=
demo: export SUPABASE_CONNECTION_STRING :=
demo: setup  ## Migrate examples/ into an embedded PostgreSQL, verify, search
	$(DEMO) inspect examples/store
	@echo
	$(DEMO) migrate examples/store
	@echo
	$(DEMO) verify examples/store
	@echo
	@echo "How do I make sure that my database backups can be restored?"
	$(DEMO) search --vector examples/queries/database-backup.json -k 3
	@echo
	@echo "What makes stars shine and how do they die?"
	$(DEMO) search --vector examples/queries/stars.json -k 3
	@echo
	@echo "The demo has a database of its own; to look at it: HARCA_HOME=$(HARCA_HOME) $(DEMO) status"

test: setup  ## Run every test; on Docker where it answers, else on the embedded server
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal

coverage: setup  ## Run every test, and say which lines and branches none has run
	rm -rf .coverage
	mkdir .coverage
	$(BIN)/python -m coverage run -m pytest --numprocesses $(PROCESSES) --dist worksteal
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: setup  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## Write requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
		--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links \
		--group test --group lint --extra all -o requirements.lock pyproject.toml

clean:  ## Remove the environment and the demo's database
	-$(DEMO) db stop
	rm -rf $(VENV) .harca/demo
