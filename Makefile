# Every target first makes its own environment in .venv; a second call finds it ready.
#
#   PYTHON=python3.12   another interpreter, 3.11 or newer     (default: python3)
#   STACK=colab         Colab's image, and the course on top of it, in .venv-colab
#   RECIPE=offline      a recipe's name or file                (course)
#   DATA=my.json        your own instruction data              (course)
#   GPU=T4              T4, L4, G4, A100 or H100               (colab)
#   REPO=owner/name     the repository it is published as      (release)
#   TAG=vX.Y.Z          and the version                        (release)

PYTHON ?= python3
STACK ?= newest
RECIPE ?= offline
DATA ?=
GPU ?= T4
REPO ?=
TAG ?=

ifeq ($(STACK),newest)
VENV := .venv
CONSTRAINTS := constraints.txt
else ifeq ($(STACK),colab)
VENV := .venv-colab
CONSTRAINTS := constraints-colab.txt
IMAGE := tests/colab/image.txt
else
$(error STACK=$(STACK) is not a stack of this course: use STACK=newest or STACK=colab)
endif

# A PYTHON that the user names must be the environment's; the default one need not be.
SETUP := sh .ci/setup $(VENV) $(CONSTRAINTS) "$(PYTHON)" $(if $(filter command line environment,$(origin PYTHON)),asked,default) $(IMAGE)
RUN := $(VENV)/bin/python
DATA_OPTION := $(if $(DATA),--data "$(DATA)")

.PHONY: help setup course test structure faults lab notebooks base-model open-models teacher real-check bench colab release site site-test jupyter-test clean

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [STACK=colab] [RECIPE=offline] [DATA=my.json]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

setup: ## install everything into .venv
	@$(SETUP)

course: setup ## run the whole course: data -> model -> judgment, then print the report
	@$(RUN) -m tools.notebooks.run --recipe "$(RECIPE)" $(DATA_OPTION)

lab: setup ## open the notebooks in JupyterLab, Korean first
	@$(RUN) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/ko/01_preprocess.ipynb \
	$(if $(filter 0,$(shell id -u)),--allow-root)

test: setup .venv-site/ready ## run the tests, two files at a time
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

structure: setup ## hold the package's shape: arrows, homes of names, budgets of lines (part of test)
	@$(RUN) -m pytest -q tests/test_structure.py

faults: setup ## kill, starve and corrupt the course, check that nothing is lost, fill the READMEs' table (slow)
	@FAULTS=all $(RUN) -m pytest tests/faults tests/sources/test_batch.py tests/scale/test_parallel.py --deselect tests/faults/test_readme.py
	@$(RUN) -m tests.faults.readme

notebooks: setup ## execute the notebooks' sources and write the Korean and English editions
	@$(RUN) -m tools.notebooks.build

base-model: setup ## pretrain assets/tiny-gemma-ko again (about an hour)
	@$(RUN) -m tools.base_model.pretrain

open-models: setup ## fetch two small open models into models/: Gemma 3 270M, Qwen2.5-Coder 1.5B (1.9 GB)
	@$(RUN) -m pip install -q -c $(CONSTRAINTS) -e ".[open-models]" || { echo "llama.cpp was not built (above, why): it \
	takes a C++ compiler, on Debian 'apt-get install g++ cmake', on macOS 'xcode-select --install'." >&2; exit 1; }
	@$(RUN) -m tools.open_models

teacher: ## serve Qwen2.5-Coder at http://127.0.0.1:8000/v1, for TEACHER=local and JUDGE=local
	@$(RUN) -m llama_cpp.server --model models/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf \
	--model_alias qwen2.5-coder-1.5b-instruct --n_ctx 8192 --n_threads 2 --n_threads_batch 2 \
	--flash_attn false --host 127.0.0.1 --port 8000

real-check: setup ## compute what is quoted of the recorded real models again, without a model
	@$(RUN) tests/benchmarks/real.py

bench: setup ## run the benchmarks and put their figures into the READMEs
	@set -e; for script in $(filter-out %/readme.py,$(wildcard tests/benchmarks/*.py)); \
	do echo "== $$script"; $(RUN) "$$script"; done
	@$(RUN) -m tests.benchmarks.readme

colab: ## measure 01 to 03 on a GPU of Colab; needs a Google account: make colab GPU=T4
	@$(PYTHON) tools/colab/run.py --gpu "$(GPU)"

release: setup ## set every badge, install line and link: make release REPO=owner/name TAG=vX.Y.Z
	@$(RUN) -m tools.notebooks.release "$(REPO)" "$(TAG)"

# The site has an environment of its own: the tools that render it disturb no stack.
.venv-site/ready: tools/site/requirements.txt
	@echo "Installing the site's tools into .venv-site (once, half a minute) ..."
	@$(PYTHON) -m venv .venv-site
	@.venv-site/bin/python -m pip install --disable-pip-version-check --no-input -r $< \
	>.venv-site/setup.log 2>&1 || { echo "site: pip failed, see .venv-site/setup.log" >&2; exit 1; }
	@touch $@

site: .venv-site/ready ## render notebooks, README and guide, both languages, into build/site
	@.venv-site/bin/python -m tools.site.render

site-test: setup .venv-site/ready ## look at every page of the site in a headless Chromium
	@SITE=all $(RUN) -m pytest tests/tools/test_site.py

jupyter-test: setup ## "Restart and run all" in JupyterLab: every notebook, both languages (20 minutes)
	@JUPYTER=all $(RUN) -m pytest tests/notebooks/test_jupyter.py -k run_all

clean: ## remove environments and caches; runs/ stays, it holds paid replies and trained models
	rm -rf .venv .venv-colab .venv-image .venv-site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
