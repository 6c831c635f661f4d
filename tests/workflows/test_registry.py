"""Each kind of workflow is named once, and says what the others ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.workflows.report.made_up import record_of
from workflows.cli.app import app
from workflows.errors import ConfigError
from workflows.registry import KINDS, WORKFLOWS, kind_of, kind_of_run

SHAPE = {"context": 32, "width": 32, "layers": 2, "heads": 2}
FILES: dict[str, dict[str, Any]] = {
    "compare": {"models": ["reference", "m.yaml"], "tasks": ["trec"], "methods": ["knn", {"method": "mine.py"}]},
    "layers": {"models": ["reference"], "tasks": ["trec", "mine.yaml"]},
    "sweep": {"name": "s", "model": "reference", "task": "trec", "method": "knn"},
    "pretrain": {
        "name": "p",
        "corpus": {"files": ["a.txt"]},
        "model": SHAPE,
        "training": {"tokens": 64, "batch_tokens": 32},
        "evaluation": {"tasks": ["trec", "sst2"]},
    },
}
NAMES = {
    "compare": {
        "models.0": "reference",
        "models.1": "m.yaml",
        "tasks.0": "trec",
        "methods.0": "knn",
        "methods.1": "mine.py",
    },
    "layers": {"models.0": "reference", "tasks.0": "trec", "tasks.1": "mine.yaml"},
    "sweep": {"model": "reference", "task": "trec", "method": "knn"},
    "pretrain": {"evaluation.tasks.0": "trec", "evaluation.tasks.1": "sst2"},
}


def config_of(name: str) -> Any:
    return WORKFLOWS[name].model_validate({"workflow": name, **FILES[name]})


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_names_what_its_file_names_each_with_its_field(name: str) -> None:
    config = config_of(name)
    found = kind_of(config).names(config)
    told = {".".join(map(str, place)): said for place, said in (*found.models, *found.tasks, *found.methods)}
    assert told == NAMES[name]


def test_a_corpus_goes_with_a_job_but_for_what_the_cluster_has(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    config = config_of("pretrain")
    kind = kind_of(config)
    assert list(kind.files(config, tmp_path)) == [tmp_path / "a.txt"]
    far = config.corpus.model_copy(update={"files": ("/elsewhere/a.txt",)})
    assert list(kind.files(config.model_copy(update={"corpus": far}), tmp_path)) == []
    with pytest.raises(ConfigError, match="output: found none"):
        kind.check_submission(config)


def test_a_run_of_a_kind_without_report_is_told_so(tmp_path: Path) -> None:
    record, store = record_of(tmp_path, workflow="workflow: sweep\n")
    assert kind_of_run(record) is KINDS["sweep"]
    done = CliRunner().invoke(app, ["report", record.run_id, "--store", str(store.root)])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == f"run {record.run_id} is a sweep, which has no report. See `vocabsem show`."
