# Every target first makes its own environment in .venv; a second call finds it ready.
#
#   PYTHON=python3.12   another interpreter, 3.11 or newer     (default: python3)
#   STACK=colab         Colab's library versions, in .venv-colab
#   RECIPE=offline      a recipe's name or file                (course)
#   DATA=my.json        your own instruction data              (course)

PYTHON ?= python3
STACK ?= newest
RECIPE ?= offline
DATA ?=

ifeq ($(STACK),newest)
VENV := .venv
CONSTRAINTS := constraints.txt
else ifeq ($(STACK),colab)
VENV := .venv-colab
CONSTRAINTS := constraints-colab.txt
else
$(error STACK=$(STACK) is not a stack of this course: use STACK=newest or STACK=colab)
endif

# A PYTHON that the user names must be the environment's; the default one need not be.
SETUP := sh .ci/setup $(VENV) $(CONSTRAINTS) "$(PYTHON)" $(if $(filter command line environment,$(origin PYTHON)),asked,default)
RUN := $(VENV)/bin/python
DATA_OPTION := $(if $(DATA),--data "$(DATA)")

.PHONY: help setup course test faults notebooks base-model bench clean

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [STACK=colab] [RECIPE=offline] [DATA=my.json]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

setup: ## install everything into .venv
	@$(SETUP)

course: setup ## run the whole course: data -> model -> judgment, then print the report
	@$(RUN) notebooks/run.py --recipe "$(RECIPE)" $(DATA_OPTION)

test: setup ## run the tests
	@$(RUN) -m pytest

faults: setup ## kill the course at many places and check that nothing is lost (slow)
	@FAULTS=all $(RUN) -m pytest tests/faults tests/test_batch.py

notebooks: setup ## execute the notebooks' sources and write the Korean and English editions
	@$(RUN) notebooks/build.py

base-model: setup ## pretrain assets/tiny-gemma-ko again (about an hour)
	@$(RUN) -m course_utils.offline.pretrain

bench: setup ## run the benchmarks and put their figures into the READMEs
	@set -e; for script in $(filter-out %/readme.py,$(wildcard tests/benchmarks/*.py)) tests/benchmarks/readme.py; \
	do echo "== $$script"; $(RUN) "$$script"; done

clean: ## remove environments and caches; runs/ stays, it holds paid replies and trained models
	rm -rf .venv .venv-colab build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
