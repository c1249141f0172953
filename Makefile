# Two commands for everyone: `make search` and `make test`. Each sets itself up on a bare machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A folder of wheels (PIP_FIND_LINKS) may hold the CPU build of torch; otherwise uv picks CPU or CUDA by what the machine has.
TORCH := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS),--torch-backend auto)

.PHONY: search test check ui requirements schema lock clean

search: $(READY)  ## run the default search on this machine
	@$(BIN)/python search/run.py --space spaces/condor.yaml --profile laptop $(ARGS)

test: check  ## lint, types, guards and the whole CPU test suite
	@$(BIN)/python -m pytest -q $(ARGS)

check: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

ui: $(READY)  ## open MLflow on the newest run: make ui [RUN=runs/...]
	@$(BIN)/python -m analysis.ui $(RUN)

requirements: $(READY)  ## which requirement ids a passing test proves (from the last `make test`)
	@$(BIN)/python -m tests.requirements

schema: $(READY)  ## write spaces/schema.json from the models
	@$(BIN)/python -m tests.guards.schema

lock: $(READY)  ## resolve constraints.txt anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --extra dev --no-header --no-annotate --python-version 3.11 -o constraints.txt -q \
	  $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) && sed -i 's/^torch==\([0-9.]*\)+.*/torch==\1/' constraints.txt

clean:
	@rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(TORCH) -c constraints.txt -r pyproject.toml --extra dev
	@$(BIN)/python -m trainables.compilation
	@touch $(READY)
