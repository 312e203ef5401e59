# `make` alone explains itself. Everything below works in a clean clone: what it needs, it installs into .venv first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo up test bench train eval lint format schemas lock clean

help: ## Show this list
	@echo "InMail Responses"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found: install one, or name it with make PYTHON=..."; exit 1; }
	@echo "Setting up .venv with $(PYTHON) (once; some minutes on a slow line) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## Make .venv, where the command is .venv/bin/inmail

demo: $(STAMP) ## Play real traffic through a real Kafka and Postgres, show what happened, verify it
	@$(BIN)/inmail demo

up: $(STAMP) ## Start everything on this machine and keep it up
	@$(BIN)/inmail up

test: $(STAMP) ## Run all tests, on a real Kafka and Postgres that the suite starts itself
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup $(PYTEST_ARGUMENTS)

bench: $(STAMP) ## Measure throughput, latency and memory beside other ways to do the same
	@$(BIN)/inmail bench

train: $(STAMP) ## Train the classifier from the texts in the repository, bit for bit reproducible
	@$(BIN)/python -m services.classification.model.training

eval: $(STAMP) ## Measure the classifier on texts by authors it has never seen
	@$(BIN)/python -m services.classification.model.evaluation

lint: $(STAMP) ## Check style, types, generated files and the lock
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m shared.events.generate --check
	@$(BIN)/python -m deploy.grafana.generate --check
	@deploy/check-lock

format: $(STAMP) ## Put the code into its canonical form
	@$(BIN)/ruff check --fix-only . ; $(BIN)/ruff format .

schemas: $(STAMP) ## Write the JSON Schemas and the AsyncAPI document anew
	@$(BIN)/python -m shared.events.generate

lock: $(STAMP) ## Pin what pyproject.toml asks for, with hashes; newer versions with UPGRADE=--upgrade
	@$(BIN)/uv pip compile --quiet $(UPGRADE) --generate-hashes --universal --python-version 3.11 --all-extras \
		--no-emit-index-url --no-header pyproject.toml -o requirements.lock

clean: ## Remove the environment and what a local stack has kept
	@rm -rf .venv .run build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
