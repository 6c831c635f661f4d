"""A run from its graph to the record it leaves, in this process, with no MLflow to be reached."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestration.errors import Unwritable
from orchestration.graph import folder_of
from orchestration.runs.record import TOLD, runs
from orchestration.store import artifacts as store_module
from orchestration.store.artifacts import Store, open_store
from orchestration.tracking.mlflow_client import default_uri
from orchestration.tracking.tracker import TrackingError
from tests import tiny
from tests.workflows.films import films, write_films
from tests.workflows.results.test_costs import step
from tests.workflows.results.test_model import entry
from tests.workflows.sweeps import QUIET
from workflows.cli.app import app
from workflows.config.yaml_file import read_workflow
from workflows.errors import Interrupted
from workflows.pretrain.graph import Pretrain
from workflows.registry import WORKFLOWS
from workflows.results.model import read_stored
from workflows.results.table import table
from workflows.runtime.engines import open_engine
from workflows.runtime.progress import Say
from workflows.session import RunSummary, open_session, run

DOCUMENT = """\
workflow: compare
models: [model]
tasks: [films.yaml]
methods: [affinity, centroid, linear-probe]
seeds: [0, 1]
search: {trials: 0}
execution: {executor: inline}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def again(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSummary]:
    """Run a small comparison, the first time or once more; `text`: its workflow file, `say`: hears what is said."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    monkeypatch.setattr("workflows.session.fill", away)
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, films(24), films(24))

    def call(text: str = DOCUMENT, say: Say = QUIET) -> RunSummary:
        file = tmp_path / "workflow.yaml"
        file.write_text(text)
        return run(open_session(read_workflow(file, WORKFLOWS), file, store, None, None), say)

    return call


def recorded(store: Store) -> Any:
    (record,) = runs(store)
    return record.read("results.json")


def folder(store: Store, label: str) -> Path:
    """Of the step that the run calls so."""
    (record,) = runs(store)
    (found,) = (one for one in record.read("graph.json")["steps"] if one["label"] == label)
    return store.root / folder_of(found["step"], found["key"])


def lose(store: Store, kind: str, input_kind: str) -> None:
    """Remove what one kind of step made, and damage what it reads, so that it cannot be made again."""
    for folder in (store.root / kind).iterdir():
        shutil.rmtree(folder)
    for shard in (store.root / input_kind).glob("*/part-00000.arrow"):
        shard.write_bytes(shard.read_bytes()[:-100])


def test_a_run_that_fails_now_leaves_the_results_it_had(again: Callable[..., RunSummary], store: Store) -> None:
    first, before = again(), recorded(store)
    assert [line["method"] for line in before] == ["affinity", "centroid", "linear-probe"]
    lose(store, "score", "labels")
    failed = again()
    assert failed.run_id == first.run_id
    assert (failed.counts["failed"] > 0, failed.results) == (True, [])
    assert recorded(store) == before


def test_what_is_made_now_stands_among_what_was_made_before_under_its_name_of_now(
    again: Callable[..., RunSummary], store: Store
) -> None:
    again()
    before = recorded(store)
    basis = next((store.root / "basis").glob("*/part-00000.arrow"))
    basis.write_bytes(basis.read_bytes()[:-100])
    shutil.rmtree(folder(store, "fit model films affinity seed 0"))
    renamed = again(DOCUMENT.replace("linear-probe", "{method: linear-probe, name: probe}"))
    assert [result.method for result, _ in renamed.results] == ["centroid", "probe"]
    after = recorded(store)
    assert after == [*before[:-1], {**before[-1], "method": "probe"}]
    assert [detail.versus.reference for _, detail in read_stored(after) if detail.versus] == ["affinity"] * 2


def test_a_full_disk_does_not_hide_what_ended_the_run(
    again: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        monkeypatch.setattr("orchestration.store.files.stage", full)
        raise KeyboardInterrupt

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workflows.session.run_plan", stopped)
    with pytest.raises(Interrupted):
        again()


def flip(path: Path) -> Path:
    """Change one bit, as a failing disk does; size and time tell nothing. Files read before are read anew."""
    data, found = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    store_module._verified.clear()
    return path


def test_one_flipped_bit_is_told_and_hides_no_result(again: Callable[..., RunSummary], store: Store) -> None:
    again()
    encode = next((store.root / "encode").glob("*/part-00000.arrow"))
    fitted = folder(store, "fit model films linear-probe seed 0") / "fitted.safetensors"
    predicted = fitted.with_name("part-00000.arrow")
    for damaged in (encode, predicted, fitted):
        flip(damaged)
    shutil.rmtree(folder(store, "versus affinity model films centroid"))  # so that something runs
    said: list[str] = []
    report = again(say=said.append)
    assert [result.method for result, _ in report.results] == ["affinity", "centroid", "linear-probe"]
    (cut,) = report.notes
    assert cut.startswith("encode model films t")
    assert f"not known what there is to remark: {encode}: found checksum" in cut
    for damaged, told in ((predicted, "no table of predictions of model films"), (fitted, "no MLflow model of fit ")):
        (line,) = [line for line in said if line.startswith(told)]
        assert f"{damaged}: found checksum" in line
    assert (store.root / "runs" / report.run_id / "report.md").is_file()


@pytest.mark.parametrize(("elsewhere", "shown"), [(True, None), (False, "m1")])
def test_an_mlflow_that_is_away_counts_as_missing_and_gets_no_link_of_another(
    again: Callable[..., RunSummary], store: Store, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, shown: str | None
) -> None:
    lacking = []

    def engine(execution: Any, store: Any, steps: Any, missing: list[str], *others: Any) -> Any:
        lacking.append(len(missing))
        return open_engine(execution, store, steps, missing, *others)

    monkeypatch.setattr("workflows.session.open_engine", engine)
    assert again().mlflow_run_id is None
    (record,) = runs(store)
    uri = "http://elsewhere:5000" if elsewhere else default_uri(store.root)
    record.write(TOLD, {"uri": uri, "run_id": "m1", "page": "#/x"})
    for made in (store.root / "score").iterdir():
        shutil.rmtree(made)
    assert again().mlflow_run_id == shown
    assert lacking == [1, 1]


def test_an_mlflow_that_was_told_of_a_beginning_before_is_asked_again(
    again: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was killed: its server may be gone since."""
    asked: list[Any] = []
    monkeypatch.setattr("workflows.session.fill", lambda *_: asked.append(None))
    monkeypatch.setattr("workflows.session.is_filled", lambda *_: True)
    again()
    assert len(asked) == 1


def test_a_pretrained_models_numbers_are_kept_text_by_text() -> None:
    bits = {text: step("bits") for text in ("held-out", "films")}
    job = Pretrain(None, {}, Path(), step("model"), step("tokenizer"), bits)  # type: ignore[arg-type]
    before = [entry(task="held-out"), entry(task="films")]
    now = entry(task="films", mean=0.25)
    assert job.with_earlier([now], before) == [before[0], now]


def test_an_mlflow_that_is_away_is_one_warning_and_it_comes_with_the_results(again: Callable[..., RunSummary]) -> None:
    said: list[str] = []
    report = again(say=said.append)
    assert [line for line in said if "MLflow" in line] == []
    (warning,) = report.warnings
    assert warning.startswith("MLflow is away. The results are safe in ")


def test_one_who_interrupts_a_run_that_mlflow_lacks_hears_so(
    again: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workflows.session.run_plan", stopped)
    said: list[str] = []
    with pytest.raises(Interrupted):
        again(say=said.append)
    (warning,) = [line for line in said if "MLflow" in line]
    assert warning.endswith("`vocabsem sync` fills MLflow in later.")


def test_what_is_kept_is_told_before_mlflow_hears_of_the_end(
    again: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's cluster gives it seconds to end, and MLflow may take longer."""
    said: list[str] = []

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workflows.session.run_plan", stopped)
    monkeypatch.setattr("workflows.session._break_off", lambda *_: said.append("MLflow hears of it"))
    with pytest.raises(Interrupted) as raised:
        again(say=said.append)
    assert raised.value.said
    assert said[-2:] == [str(raised.value), "MLflow hears of it"]
    assert said[-2].startswith("interrupted: 0 of ")


@pytest.fixture
def only_read(again: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take away the right to write: of the store's files, of the run's record and of what MLflow is told."""

    def refused(*arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(arguments[0]))

    def take_away() -> None:
        for writer in (
            "orchestration.store.files.stage",
            "orchestration.store.files.replace_bytes",
            "orchestration.runs.record.open",
        ):
            monkeypatch.setattr(writer, refused, raising=False)

    return take_away


def test_a_run_that_is_all_cached_in_a_store_that_is_only_read_shows_its_table_and_one_warning(
    again: Callable[..., RunSummary], only_read: Callable[[], None], tmp_path: Path, store: Store
) -> None:
    first = again()
    only_read()
    done = CliRunner().invoke(app, ["run", str(tmp_path / "workflow.yaml"), "--store", str(store.root)])
    assert done.exit_code == 0, done.exception
    assert table(first.results) in done.stdout
    cached = first.counts["ran"]
    assert f"run {first.run_id}: 0 steps ran, {cached} cached, 0 failed" in done.stdout
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert warning.startswith(f"warning: this run is not recorded: {store.root / 'runs' / first.run_id}")
    assert "cannot be written (Permission denied)" in warning


def test_a_store_that_is_only_read_is_told_where_a_step_is_to_run(
    again: Callable[..., RunSummary], only_read: Callable[[], None], store: Store
) -> None:
    again()
    shutil.rmtree(folder(store, "fit model films affinity seed 0"))
    only_read()
    with pytest.raises(Unwritable, match=r"cannot be written \(Permission denied\)"):
        again()
