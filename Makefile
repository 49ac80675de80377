# What a change has to pass. The tools are those of .venv, where there is one (see .github/CONTRIBUTING.md).
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python)

.PHONY: check test fix

check: ## lint, formatting, types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test: ## all but the slow tests, on two processes; make test ARGS="tests/attacks -k pgd" runs a part, ARGS='-m ""' all
	$(PYTHON) -m pytest -n 2 $(ARGS)

fix: ## apply the formatting, and the corrections that ruff can make
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
