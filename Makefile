# Two commands: `make demo` runs the main job, `make test` the checks. Both make .venv when it is not there.
PYTHON ?= python3
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-system test-gpu chaos lint

demo: .venv/installed
	.venv/bin/vocabsem run quickstart.yaml

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

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: about 4 minutes, 2.3 GB"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
