"""Work that is interrupted within a step goes on from what it saved, and comes to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Store, open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.store.scratch import scratch_folder, told
from tests import tiny
from tests.workflows.films import TASK, films, write_films
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.features.likelihoods import WordScorer
from workflows.compare.graph import comparison
from workflows.config.compare import CompareConfig
from workflows.steps import fit, open_shard


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model and a task."""
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, films(40), films(70)[40:])
    return tmp_path


def run(base: Path, name: str, method: str, trials: int = 0, **execution: Any) -> tuple[Store, list[Step]]:
    """A comparison of one method in a store of this name; its store and steps."""
    config = CompareConfig.model_validate(
        {
            "workflow": "compare",
            "models": ["model"],
            "tasks": ["films.yaml"],
            "methods": [method],
            "seeds": [0],
            "search": {"trials": trials},
            "execution": execution,
        }
    )
    store = open_store(base / name)
    plan = make_plan(
        [cell.score for cell in comparison(config, base, None, FingerprintCache(base / "facts.json"))], store
    )
    outcomes = run_plan(plan, lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
    assert {outcome.state for outcome in outcomes.values()} <= {"ran", "cached"}
    return store, [planned.step for planned in plan]


class Counted:
    """Counts a function's calls; the one after so many is Ctrl-C."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls, self.most = 0, 10**9
        function = getattr(owner, name)

        def called(*given: Any, **named: Any) -> Any:
            if self.calls == self.most:
                raise KeyboardInterrupt
            self.calls += 1
            return function(*given, **named)

        patch.setattr(owner, name, called)

    def begin(self, most: int = 10**9) -> None:
        self.calls, self.most = 0, most


def parts(store: Store, step: Step) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store.root / step.folder).glob("*.arrow"))}


@pytest.mark.parametrize("seconds", [0.0, open_shard.SAVE_SECONDS])
def test_an_encoding_goes_on_from_its_saved_batches_with_the_same_bytes(
    base: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(open_shard, "SAVE_SECONDS", seconds)
    forward = Counted(monkeypatch, Encoder, "states")
    whole, steps = run(base, "whole", "linear-probe", batch_tokens=64)
    encodings = [step for step in steps if step.name == "encode"]
    assert len(encodings) == 2
    needed = forward.calls
    assert needed > 10
    forward.begin(most=5)  # the first is a check of the model
    with pytest.raises(KeyboardInterrupt):
        run(base, "broken", "linear-probe", batch_tokens=64)
    broken = open_store(base / "broken")
    (begun,) = [step for step in encodings if (scratch_folder(broken.root, step.folder) / "open").is_dir()]
    said = told(scratch_folder(broken.root, begun.folder))
    assert said is not None
    saved = sorted((scratch_folder(broken.root, begun.folder) / "open" / "0").iterdir())
    assert said.unit == "rows"
    assert 0 < said.done == int(saved[-1].stem.split("-")[1]) < said.of
    forward.begin()
    run(base, "broken", "linear-probe", batch_tokens=64)
    assert forward.calls == needed - 4
    assert [parts(broken, step) for step in encodings] == [parts(whole, step) for step in encodings]
    assert not scratch_folder(broken.root, begun.folder).exists()


def test_words_are_scored_on_from_the_saved_batches_with_the_same_bytes(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"bad": "film world", "good": "world film"}
    write_films(base, films(40), films(70)[40:], {**TASK, "words": words, "label_tokens": "whole"})
    batches = Counted(monkeypatch, WordScorer, "_scores")
    whole, steps = run(base, "whole", "zero-shot", batch_tokens=64)
    (scored,) = [step for step in steps if step.name == "likelihoods"]
    needed = batches.calls
    assert needed > 6
    batches.begin(most=4)  # the first is a check of the model
    with pytest.raises(KeyboardInterrupt):
        run(base, "broken", "zero-shot", batch_tokens=64)
    batches.begin()
    broken, _ = run(base, "broken", "zero-shot", batch_tokens=64)
    assert batches.calls == needed - 3
    assert parts(broken, scored) == parts(whole, scored)


def test_batches_of_another_size_are_no_part_of_a_shard(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Counted(monkeypatch, Encoder, "states")
    whole, steps = run(base, "whole", "linear-probe", batch_tokens=64)
    forward.begin(most=5)
    with pytest.raises(KeyboardInterrupt):
        run(base, "broken", "linear-probe", batch_tokens=32)
    forward.begin()
    broken, _ = run(base, "broken", "linear-probe", batch_tokens=64)
    encodings = [step for step in steps if step.name == "encode"]
    assert [parts(broken, step) for step in encodings] == [parts(whole, step) for step in encodings]


def test_a_search_goes_on_from_its_finished_packs(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "pack_size", lambda *_: 2)
    packs = Counted(monkeypatch, fit, "try_pack")
    whole, steps = run(base, "whole", "calibration", trials=6)
    search = next(step for step in steps if step.name == "search")
    needed = packs.calls
    assert needed >= 3
    packs.begin(most=2)
    with pytest.raises(KeyboardInterrupt):
        run(base, "broken", "calibration", trials=6)
    said = told(scratch_folder(open_store(base / "broken").root, search.folder))
    assert said is not None
    assert 2 <= said.done < said.of == 6
    packs.begin()
    broken, _ = run(base, "broken", "calibration", trials=6)
    assert packs.calls == needed - 2
    assert (broken.root / search.folder / "trials.json").read_bytes() == (
        whole.root / search.folder / "trials.json"
    ).read_bytes()
