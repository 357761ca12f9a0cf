# Everything runs in .venv, which the first target that needs it builds from requirements.lock.
#   PYTHON            the Python 3.11 to build .venv with   (default: python3, else python3.11)
#   TORCH_INDEX_URL   take torch from this index first; on Linux without an NVIDIA GPU:
#                     make setup TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
#   PIP_FIND_LINKS    folders with wheels to prefer, as for pip

IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
PYTHON ?= $(shell for p in python3 python3.11; do $$p $(IS_311) 2>/dev/null && echo $$p && exit; done; echo python3)
B := .venv/bin
UV := uv==0.13.9

# One OpenMP thread per process: runs are parallel among themselves, and idle threads must not spin.
# (MPLBACKEND is left alone: with agg, notebooks would store no figures.)
OMP_NUM_THREADS ?= 1
OMP_WAIT_POLICY ?= PASSIVE
export OMP_NUM_THREADS OMP_WAIT_POLICY

LINKS := $(addprefix --find-links=,$(PIP_FIND_LINKS))
# uv takes seconds where pip takes minutes; pip does where uv cannot be had.
INSTALL = $$(test -x $(B)/uv && echo $(B)/uv pip install -q --compile-bytecode -p $(B)/python || echo $(B)/python -m pip install -q) $(LINKS)

.PHONY: help setup study test lab paper bench report docs lock clean

help:  ## print this list (the default)
	@echo "macrodyn: learn macroscopic stochastic dynamics from small simulations"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: .venv/.stamp  ## build .venv from requirements.lock, nothing else

.venv/.stamp: requirements.lock pyproject.toml
	@$(PYTHON) $(IS_311) || { echo "setup: Python 3.11 is needed, '$(PYTHON)' is not one; name it: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== setup: .venv from requirements.lock ($$($(PYTHON) --version))"
	$(PYTHON) -m venv .venv
	@$(B)/python -m pip install -q --disable-pip-version-check "$(UV)" || echo "setup: no $(UV) to be had; pip does the rest, in some minutes"
ifneq ($(TORCH_INDEX_URL),)
	$(INSTALL) --no-deps --index-url "$(TORCH_INDEX_URL)" "$$(grep '^torch==' requirements.lock)"
endif
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -e .
	@touch $@

study: .venv/.stamp  ## every notebook at preset quick, then the report (some 10 minutes on 2 cores)
	$(B)/macrodyn study --preset quick

paper: .venv/.stamp  ## every study at the scale of the paper; can be interrupted and resumed (hours)
	@# a failed run (1) does not keep the studies from running, an interrupt does
	code=0; $(B)/macrodyn sweep papermill_runs/criticality.yaml || code=$$?; \
	[ $$code -le 1 ] || exit $$code; \
	$(B)/macrodyn study --preset paper || code=$$?; \
	exit $$code

report: .venv/.stamp  ## papermill_runs/report.md and report.html from the results at hand
	$(B)/macrodyn report

lab: .venv/.stamp  ## JupyterLab on the notebooks
	$(B)/jupyter lab notebooks

bench: .venv/.stamp  ## the benchmark table: speed ratios measured in one run
	$(B)/python -m benchmarks

docs: .venv/.stamp  ## the notebooks with their stored outputs as HTML, in build/docs
	$(B)/jupyter nbconvert --to html --output-dir build/docs notebooks/*.ipynb

test: .venv/.stamp  ## lint, types, import rules, tests, every notebook at preset smoke (some 13 minutes)
	@echo "== test 1/6: ruff check"
	$(B)/ruff check .
	@echo "== test 2/6: ruff format"
	$(B)/ruff format --check .
	@echo "== test 3/6: mypy"
	$(B)/mypy
	@echo "== test 4/6: import rules"
	$(B)/lint-imports
	@echo "== test 5/6: pytest"
	$(B)/python -m pytest -q
	@echo "== test 6/6: notebooks at preset smoke against their stored outputs"
	MACRODYN_PRESET=smoke MACRODYN_RUNS="$(CURDIR)/build/nbval" TQDM_DISABLE=1 $(B)/python -m pytest -q --nbval --nbval-cell-timeout 300 notebooks
	@echo "== test: all stages passed"

# Keeps the pins that still fit; `make lock UPGRADE=--upgrade` renews them. A pin of torch's CPU build
# cannot be installed from the ordinary registry, and the CUDA packages belong to one build only: both go.
lock: .venv/.stamp  ## compile requirements.lock from pyproject.toml
	$(B)/uv pip compile -q --python-version 3.11 $(LINKS) --extra dev --no-annotate --no-header $(UPGRADE) pyproject.toml -o requirements.lock > /dev/null
	@{ echo "# Python 3.11. Direct dependencies stand in pyproject.toml."; \
	   echo "# Made by: make lock"; \
	   sed -e '/^#/d' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d' -e 's/^\(torch==[^+]*\)+cpu/\1/' requirements.lock; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean:  ## remove build/ and the tools' caches; .venv and results stay
	rm -rf build dask-worker-space .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find macrodyn_lib tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
