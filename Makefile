# Each target sets up .venv by itself; the lock file decides what is installed.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test lint study lock

repro: $(READY)
	dvc repro

test: $(READY)
	pytest

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy

# make study NAME=paper
study: $(READY)
	python -m stages.core.params $(NAME)

lock: $(READY)
	pip install -q uv
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --upgrade -o requirements.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.lock
	touch $@
