# make lab    set up, then open the lessons in JupyterLab    (ARGS=--no-browser prints the address instead)
# make test   set up, then run every check: lint, unit, lessons, browser (each is a target of its own)
# make test-gpu   on a machine with a CUDA GPU and its own torch: the GPU tests, then every lesson, strictly, with the
#                 proof that it trains there   (test-gpu-unit, test-gpu-lessons LESSONS="notebooks/04*": a part of it)
# make wheels     fetch what test-gpu installs, into .wheels, to carry to a GPU machine without a network
# Windows, or no make: pip install -r requirements.txt, then jupyter lab notebooks/00_start_here.ipynb

PYTHON ?= python3
JOBS ?= 2
ARGS ?=
GPU_PYTHON ?= python3
GPU_PYTHON_VERSION ?= 3.12
GPU_JOBS ?= 3
GPU_GIB ?=
LESSONS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
ROOT_FLAG := $(if $(filter 0,$(shell id -u)),--allow-root)

# Checks and stored lessons never see the learner's own answers, nor leave any behind.
OWN_HOME = home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && export MPKIT_HOME="$$home" &&

.PHONY: help setup lab test lint unit lessons browser notebooks bench test-gpu test-gpu-unit test-gpu-lessons \
  wheels clean

help:
	@sed -n 's/^# \{0,1\}//;/./p;/^$$/q' Makefile

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mpkit needs Python 3.11 or newer, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "If you have a newer one, name it: make $(or $(firstword $(MAKECMDGOALS)),lab) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python could not make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	@touch $(STAMP)

lab: $(STAMP)
	@JUPYTER_CONFIG_PATH="$(CURDIR)/tools/jupyter" $(BIN)/jupyter lab $(ROOT_FLAG) $(ARGS)

test: lint unit lessons browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/notebooks.py check

unit: $(STAMP)
	@$(OWN_HOME) $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not browser" tests

# Strict: each stored output must come out again. One worker takes a whole lesson, so its cells stay in order; each
# lesson has a home of its own (conftest.py).
lessons: $(STAMP)
	$(BIN)/python -m pytest -q --nbval --nbval-current-env --nbval-cell-timeout=120 -n $(JOBS) --dist loadscope notebooks

# The last lessons take longest and start first, so that no worker is left alone with one of them.
browser: $(STAMP)
	@$(OWN_HOME) $(BIN)/python -m pytest -q -rs -n $(JOBS) --dist loadfile --no-loadscope-reorder -m browser \
	  $(shell ls -rd tests/*/)

notebooks: $(STAMP)
	$(BIN)/python tools/notebooks.py run $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m mpkit bench $(ARGS)

# The GPU machine's own torch fits its driver, so an environment is laid over that Python's packages and adds the rest.
# (The .pth file, and not --system-site-packages: that Python may be a virtual environment itself.)
GPU_VENV := .venv-gpu
GPU_BIN := $(GPU_VENV)/bin
# Of this Python: with another one it is made again.
GPU_STAMP := $(GPU_VENV)/.setup-stamp$(subst /,-,$(GPU_PYTHON))
FROM := $(if $(wildcard .wheels),--no-index --find-links .wheels)

test-gpu: test-gpu-unit test-gpu-lessons

$(GPU_STAMP): requirements-gpu.txt
	@$(GPU_PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { \
	  echo "make test-gpu needs a Python whose torch sees a CUDA GPU. Name it: make test-gpu GPU_PYTHON=..."; exit 1; }
	$(GPU_PYTHON) -m venv $(GPU_VENV)
	@$(GPU_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(GPU_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
	$(GPU_BIN)/python -m pip install --disable-pip-version-check -q $(FROM) -r requirements-gpu.txt
	@rm -f $(GPU_VENV)/.setup-stamp* && touch $@

test-gpu-unit: $(GPU_STAMP)
	@$(OWN_HOME) PYTHONPATH="$(CURDIR)" $(GPU_BIN)/python -m pytest -q -m gpu tests

# GPU_JOBS lessons at once. GPU_GIB: the most GPU memory, in GiB, that each of them gets (default: all of it).
test-gpu-lessons: $(GPU_STAMP)
	@PYTHONPATH="$(CURDIR)" $(GPU_BIN)/python tools/gpulessons.py --jobs $(GPU_JOBS) $(addprefix --gib ,$(GPU_GIB)) \
	  $(LESSONS)

wheels:
	$(PYTHON) -m pip download --disable-pip-version-check -q -d .wheels --only-binary=:all: \
	  --python-version $(GPU_PYTHON_VERSION) \
	  $(foreach tag,manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 \
	    manylinux1_x86_64,--platform $(tag)) -r requirements-gpu.txt
	rm -f .wheels/numpy-*  # the machine's own is the one that its torch knows

clean:
	rm -rf $(VENV) $(GPU_VENV) .wheels build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
