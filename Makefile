# `make train` and `make test` set up everything they need. `make help` lists the rest.

PYTHON ?= python3
CONFIG ?= configs/glm-130b.yaml

# The commands of .venv come first, whatever environment is active.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONUNBUFFERED := 1

SETUP := .venv/.complete
DEMO := data/demo
TEXTS := $(foreach name,english code chinese,$(DEMO)/text/$(name).jsonl)
CORPORA := $(foreach name,english code chinese facts,$(DEMO)/corpora/$(name)/validation.origins)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup system-packages train test test-full check docs plan ablations golden demo-data clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

setup: $(SETUP) ## make .venv with every package at its pinned version; PYTHON=python3.11 chooses the interpreter

system-packages: ## Debian's Slurm, munge and Chromium, which some of the long tests need; as root
	bash tools/system_packages.sh

train: demo-data ## train the tiny GLM on this machine, 8 processes, then let it fill blanks; again: continue it
	DS_ACCELERATOR=cpu deepspeed --num_accelerators 8 launch/pretrain.sh configs/tiny.yaml
	DS_ACCELERATOR=cpu glm130b generate runs/tiny --temperature 0.6 --top-k 8 --max-tokens 24 \
	    --prompt "If the argument is not given, [MASK] is returned." --prompt "The function returns[gMASK]"

test: check ## check, then every test but the long ones
	pytest -m "not full and not gpu" --ignore tests/architecture

test-full: $(SETUP) system-packages ## the tests that are too long for `make test`
	pytest -m full || test $$? -eq 5 # 5: there are none

check: $(SETUP) ## formatter, linter, types, import contract, budgets
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-logo
	pytest --quiet tests/architecture

docs: $(SETUP) ## write the configuration reference anew and build docs/ into site/, warnings as errors
	python tools/config_reference.py
	mkdocs build --strict --site-dir site

plan: $(SETUP) ## show what CONFIG=configs/....yaml would run: grid, parameters, schedule
	glm130b plan $(CONFIG)

ablations: demo-data ## train the GLM-130B paper's two ablations at tiny size, a table and a plot each; again: continue
	DS_ACCELERATOR=cpu python tools/ablation.py configs/ablations/norms
	DS_ACCELERATOR=cpu python tools/ablation.py configs/ablations/positions-and-ffn

golden: $(SETUP) ## record the golden losses anew: make golden REASON="why the numbers may move"
	python tools/golden_losses.py --reason "$$REASON"

demo-data: $(CORPORA) ## make the demo's texts, tokenizer and corpora in data/demo

clean: ## remove what these targets made, except runs/
	rm -rf .venv $(DEMO) build site glm130b.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	    echo "make: $(PYTHON) is not Python 3.10, 3.11 or 3.12; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[clean,dev,docs,report,tools]'
	touch $@

# The environment comes first, but a newer one does not make the data old: hence the bar.
$(TEXTS) $(DEMO)/text/facts.jsonl &: $(wildcard tools/demo*.py tools/demo/*) | $(SETUP)
	python tools/demo_corpus.py $(DEMO)/text

$(DEMO)/tokenizer.model: $(TEXTS) | $(SETUP)
	glm130b tokenizer train --output $@ --pieces 4088 --character-coverage 0.9999 $^

$(DEMO)/corpora/facts/validation.origins: FLAGS := --instructions
$(DEMO)/corpora/%/validation.origins: $(DEMO)/text/%.jsonl $(DEMO)/tokenizer.model | $(SETUP)
	glm130b prepare $(FLAGS) --validation-share 0.05 --tokenizer $(DEMO)/tokenizer.model --output $(@D) $<
