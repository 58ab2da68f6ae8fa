# Every target sets itself up first; the work is done again when pyproject.toml or constraints.txt change.
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup
STAMP_ALL := $(VENV)/.setup-all
# The first Python that is new enough and has pip, or plain python3, so that the message can say what it lacks.
CANDIDATES := python3 python3.13 python3.12 python3.11 /usr/bin/python3
USABLE := import sys, pip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(USABLE)' 2>/dev/null && echo $$p && exit; done; echo python3)

.PHONY: setup gl test test-all demo doctor weights reports format clean help

setup: $(STAMP)  ## make .venv and install the project with its pinned dependencies

# --without-pip: Debian's python3 has no ensurepip; pip then works on the environment from outside.
$(STAMP): pyproject.toml constraints.txt | gl
	@$(PYTHON) -I vjepa_wm/preflight.py python
	@test -x $(PY) || $(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(PY) install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	@touch $@

gl:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: no python3 found, wanted 3.11 or newer. On Debian or Ubuntu: apt-get install -y python3 python3-pip"; exit 1; }
	@$(PYTHON) -I vjepa_wm/preflight.py gl

# A process per core, of one thread each; tests of one file stay together and share what they made.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

test: setup  ## run the quick tests
	$(PYTEST) -m "not slow"

# What some tests compare with; offline those are skipped.
$(STAMP_ALL): $(STAMP)
	@$(PYTHON) -m pip --python $(PY) install --disable-pip-version-check -q -c constraints.txt -e ".[dev,test-all]" \
	  && touch $@ || echo "make: transformers cannot be installed; the tests beside it are skipped"

test-all: setup $(STAMP_ALL)  ## run every test and the linter
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PYTEST)

demo: setup  ## reach goal images live with the shipped weights
	$(PY) -m demos.reach_goal env=reacher episodes=3
	$(PY) -m demos.reach_goal env=two_rooms episodes=3
	$(PY) -m demos.reach_goal env=push episodes=3
	$(PY) -m demos.success_table

doctor: setup  ## print versions, the OpenGL backend and how fast this machine is
	$(PY) -m vjepa_wm.doctor

weights: setup  ## make weights like the shipped ones, from nothing
	$(PY) -m vjepa_wm.make_weights

reports: setup  ## measure the shipped weights, one HTML report per environment: success, budget, diagnosis, surprise
	$(PY) -m vjepa_wm.make_reports

format: setup  ## format the code and fix what the linter can
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

clean:  ## remove caches and build results; data, runs and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 12
