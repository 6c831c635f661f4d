"""A fit as MLflow's model: loaded by MLflow it gives the labels of its run, and the registry has it under a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner, Result

from orchestration.tracking.mlflow_client import default_uri, save_model
from tests.workflows.films import TASK
from tests.workflows.prediction.conftest import Finished, finished
from workflows.cli.app import app
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column

TRAINED = ["lora", "ia3", "full"]
PORTABLE = [
    *("semantic-prior", "calibration", "calibration-paper", "calibration-paper-centred"),
    *("linear-probe", "folded", "deep", "centroid"),
]


def texts(run: Finished) -> list[str]:
    return [json.loads(line)["text"] for line in (run.folder / "test.jsonl").read_text().splitlines()]


def model_of(run: Finished, method: str) -> Any:
    """What the tracker is given of a method's fit."""
    candidate: Any = run.choose(method=method).candidate
    return candidate.entry.model.served(candidate.fit, run.store)


@pytest.mark.parametrize("method", [*PORTABLE, *TRAINED])
def test_a_loaded_model_labels_the_runs_own_test_rows_as_the_run_did(
    compared: Finished, tmp_path: Path, method: str
) -> None:
    model = mlflow.pyfunc.load_model(str(save_model(model_of(compared, method), tmp_path)))
    expected = read_column(compared.choose(method=method).fit, "prediction").tolist()
    assert model.predict(texts(compared)) == [("bad", "good")[number] for number in expected]
    assert model.metadata.signature is not None
    example = model.input_example
    assert example is not None
    assert set(model.predict(example)) <= {"bad", "good"}


def test_all_weights_that_were_trained_stay_where_they_are(compared: Finished, tmp_path: Path) -> None:
    folder = save_model(model_of(compared, "full"), tmp_path)
    assert not list(folder.rglob("*.safetensors"))
    nowhere = {"model": str(compared.folder / "model"), "fitted": str(tmp_path / "nowhere")}
    with pytest.raises(ConfigError, match=r"what was fitted is not at .*nowhere"):
        mlflow.pyfunc.load_model(str(folder), model_config=nowhere)


@pytest.mark.parametrize("method", ["knn", "zero-shot", "icl", "after-rows"])
def test_what_needs_more_than_its_fit_has_no_model(compared: Finished, method: str) -> None:
    assert model_of(compared, method) is None


def call(run: Finished, *words: Any) -> Result:
    line = ["export-model", "latest", *map(str, words), "--store", str(run.store.root)]
    found = CliRunner().invoke(app, line)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_a_registered_model_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path, TASK, methods=["centroid", "knn"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := default_uri(run.store.root))
    done = call(run, "--method", "centroid", "--register", "films")
    assert "centroid (as asked) is models:/films/1: mlflow.pyfunc.load_model('models:/films/1')" in done.stderr
    assert "INFO" not in capfd.readouterr().err
    assert "models:/films/1" in call(run, "--method", "centroid", "--register", "films").stderr  # nothing doubles
    (version,) = MlflowClient(uri).search_model_versions("name = 'films'")
    model = mlflow.pyfunc.load_model(f"models:/films/{version.version}")
    expected = read_column(run.choose(method="centroid").fit, "prediction").tolist()
    assert model.predict(texts(run)) == [("bad", "good")[number] for number in expected]
    with pytest.raises(ConfigError, match="method 'knn' has no MLflow model"):
        call(run, "--method", "knn", "--register", "films")
    with pytest.raises(ConfigError, match="name a folder to make, or a model of MLflow"):
        call(run, "--method", "knn")
    with pytest.raises(Exception, match=r"MLflow at .*name"):
        call(run, "--method", "centroid", "--register", "a/b")


def test_two_fields_are_a_table_of_two_columns(tmp_path: Path) -> None:
    task = {**TASK, "template": "{text} and {more}\n sentiment:"}
    task["source"] = {**task["source"], "columns": {"text": "text", "more": "text"}}
    run = finished(tmp_path, task, methods=["centroid"])
    (tmp_path / "made").mkdir()
    model = mlflow.pyfunc.load_model(str(save_model(model_of(run, "centroid"), tmp_path / "made")))
    rows = texts(run)
    expected = read_column(run.choose().fit, "prediction").tolist()
    found = model.predict(pandas.DataFrame({"text": rows, "more": rows}))
    assert found == [("bad", "good")[number] for number in expected]
    with pytest.raises(Exception, match="more"):
        model.predict(pandas.DataFrame({"text": rows}))
