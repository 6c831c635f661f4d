"""A run from its graph to the record it leaves, in this process, with no MLflow to be reached."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.runs import runs
from orchestration.store import Store, open_store
from orchestration.tracking import TrackingError
from tests import tiny
from tests.workflows.films import films, write_films
from tests.workflows.sweeps import QUIET
from tests.workflows.test_costs import step
from tests.workflows.test_results import entry
from workflows.pretrain import Pretrain
from workflows.results import read_stored
from workflows.session import WORKFLOWS, Report, open_session, run
from workflows.yaml_file import read_workflow

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
def again(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Run a small comparison, the first time or once more; `text`: its workflow file."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    monkeypatch.setattr("workflows.session.fill", away)
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, films(24), films(24))

    def call(text: str = DOCUMENT) -> Report:
        file = tmp_path / "workflow.yaml"
        file.write_text(text)
        return run(open_session(read_workflow(file, WORKFLOWS), file, store, None, None), QUIET)

    return call


def recorded(store: Store) -> Any:
    (record,) = runs(store)
    return record.read("results.json")


def lose(store: Store, kind: str, input_kind: str) -> None:
    """Remove what one kind of step made, and damage what it reads, so that it cannot be made again."""
    for folder in (store.root / kind).iterdir():
        shutil.rmtree(folder)
    for shard in (store.root / input_kind).glob("*/part-00000.arrow"):
        shard.write_bytes(shard.read_bytes()[:-100])


def test_a_run_that_fails_now_leaves_the_results_it_had(again: Callable[..., Report], store: Store) -> None:
    first, before = again(), recorded(store)
    assert [line["method"] for line in before] == ["affinity", "centroid", "linear-probe"]
    lose(store, "score", "labels")
    failed = again()
    assert failed.run_id == first.run_id
    assert (failed.counts["failed"] > 0, failed.results) == (True, [])
    assert recorded(store) == before


def test_what_is_made_now_stands_among_what_was_made_before_under_its_name_of_now(
    again: Callable[..., Report], store: Store
) -> None:
    again()
    before = recorded(store)
    basis = next((store.root / "basis").glob("*/part-00000.arrow"))
    basis.write_bytes(basis.read_bytes()[:-100])
    for place in (store.root / "fit").iterdir():
        if "affinity" in (place / "identity.json").read_text():
            shutil.rmtree(place)
    renamed = again(DOCUMENT.replace("linear-probe", "{method: linear-probe, name: probe}"))
    assert [result.method for result, _ in renamed.results] == ["centroid", "probe"]
    after = recorded(store)
    assert after == [*before[:-1], {**before[-1], "method": "probe"}]
    assert [detail.versus.reference for _, detail in read_stored(after) if detail.versus] == ["affinity"] * 2


def test_a_full_disk_does_not_hide_what_ended_the_run(
    again: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        monkeypatch.setattr("orchestration.files.stage", full)
        raise KeyboardInterrupt

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workflows.session.run_plan", stopped)
    with pytest.raises(KeyboardInterrupt):
        again()


def test_a_pretrained_models_numbers_are_kept_text_by_text() -> None:
    bits = {text: step("bits") for text in ("held-out", "films")}
    job = Pretrain(None, {}, Path(), step("model"), step("tokenizer"), bits)  # type: ignore[arg-type]
    before = [entry(task="held-out"), entry(task="films")]
    now = entry(task="films", mean=0.25)
    assert job.with_earlier([now], before) == [before[0], now]
