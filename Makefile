# Each target sets up .venv by itself; the lock files decide what is installed.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BENCH := .venv-bench
AUDIT := .venv-audit
READY_TO_TEST := $(VENV)/.ready-to-test
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# parts of the tests, the longest first
PARTS := test-of-studies test-of-demo test-of-files test-of-training test-of-folders

.PHONY: repro explore test test-fast test-of-studies test-of-demo test-of-files test-of-training test-of-folders lint study sweep bench soak audit sbom lock

repro: $(READY)
	dvc repro

# a page on this machine, to try edits of the finished study by hand; without a study, it is first run as far as needed
explore: $(VENV)/.ready-to-explore
	test -e data/selection || dvc repro select_sae
	python -m stages.studies.explore

# five parts on two cores: the next starts when one has ended; what they print is mixed
test: $(READY_TO_TEST)
	@$(MAKE) --no-print-directory --jobs 2 $(PARTS)

test-of-studies: $(READY_TO_TEST)
	pytest -m studies

# trains the demo CLIP at the size of the default study, which its bounds are about
test-of-demo: $(READY_TO_TEST)
	pytest -m "not studies" tests/planted

# trains SAEs at the size that their bounds are about
test-of-training: $(READY_TO_TEST)
	pytest -m "not studies" tests/training

# the rest: tests/test_*.py, then the other folders
test-of-files: $(READY_TO_TEST)
	pytest -m "not studies" tests/test_*.py

test-of-folders: $(READY_TO_TEST)
	pytest -m "not studies" --ignore tests/planted --ignore tests/training --ignore-glob 'tests/test_*.py'

# what a change is tried with first: no toy study, no training, no process
test-fast: $(READY_TO_TEST)
	pytest -m "not studies and not slow"

lint: $(READY_TO_TEST)
	ruff check .
	ruff format --check .
	mypy

# make study NAME=paper
study: $(READY)
	python -m stages.studies.apply $(NAME)

# the default study over planted bias and seeds, as DVC experiments, then the table of stages/studies/README.md;
# two runs take some 13 minutes on two cores. More runs: make sweep BIASES=0.0 SEEDS='6 7 8'
BIASES := 0.0 0.3 0.6 0.9
SEEDS := 1 2 3 4 5
JOBS := 2
sweep: $(READY)
	for bias in $(BIASES); do for seed in $(SEEDS); do name=bias$$bias-seed$$seed; \
		dvc exp list --all-commits --name-only | grep -qx $$name || dvc exp run --queue --name $$name \
			-S compute.threads=1 -S check_stability.n_other_seeds=0 -S demo.bias=$$bias \
			-S demo.seed=$$seed -S world.seed=$$seed -S train_sae.seed=$$seed || exit 1; \
	done; done
	dvc exp run --run-all --jobs $(JOBS)
	python -m stages.studies.sweep

# our SAE trainer beside SAELens' and dictionary-learning's, heatmaps, controls and extraction beside bare forward passes,
# a store of 20 GiB beside plain files (43 GB of temporary disk); in an environment of its own, some 50 minutes
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m tests.bench.speed
	$(BENCH)/bin/python -m tests.bench.recovery
	$(BENCH)/bin/python -m tests.bench.heatmaps
	$(BENCH)/bin/python -m tests.bench.extract
	$(BENCH)/bin/python -m tests.bench.scale

# sixty kills, each with a run that mends it, take some sixteen minutes on two cores; then damaged inputs, and the memory
# that stages take, for which the default study has to be there
soak: $(READY_TO_TEST)
	python -m tests.soak.kill
	python -m tests.soak.fuzz
	python -m tests.soak.memory

# known vulnerabilities of what requirements.lock installs; where nobody can be asked, that is said and is no failure
audit:
	@if $(MAKE) --silent $(AUDIT)/.ready; then $(AUDIT)/bin/python .ci/audit.py; \
		else echo "Not audited: pip-audit cannot be installed here"; fi

# its bill of materials (CycloneDX); not kept in git, because it says nothing that requirements.lock does not, and comes
# out the same whenever it is made
sbom: $(AUDIT)/.ready
	$(AUDIT)/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.json requirements.lock

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
	$(VENV)/bin/pip install --quiet --no-deps --requirement requirements-dev.lock  # the lock is complete
	touch $@

$(VENV)/.ready-to-explore: requirements-dev.lock $(READY)
	$(VENV)/bin/pip install --quiet --constraint requirements-dev.lock flask
	touch $@

$(BENCH)/.ready: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet uv
	$(BENCH)/bin/uv pip install --quiet --upgrade --python $(BENCH)/bin/python -r pyproject.toml --extra bench
	touch $@

$(AUDIT)/.ready: requirements.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --upgrade --retries 1 pip-audit cyclonedx-bom
	touch $@
