# Each target sets up .venv by itself; the lock files decide what is installed.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test lint study lock

repro: $(READY)
	dvc repro

test: $(READY_TO_TEST)
	pytest

lint: $(READY_TO_TEST)
	ruff check .
	ruff format --check .
	mypy

# make study NAME=paper
study: $(READY)
	python -m stages.core.params $(NAME)

lock: $(READY)
	pip install -q uv
	$(COMPILE) --upgrade -o requirements.lock
	$(COMPILE) --upgrade --extra dev --constraint requirements.lock -o requirements-dev.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.lock
	touch $@

$(READY_TO_TEST): requirements-dev.lock $(READY)
	$(VENV)/bin/pip install --quiet --requirement requirements-dev.lock
	touch $@
