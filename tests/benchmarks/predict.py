"""New rows from a file to a file with labels, against the bare loop that only encodes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.common import REFERENCE, Case, alternate
from tests.benchmarks.encode import Loops, numbered, texts
from tests.benchmarks.serve import made

ROWS, ROUNDS = 10_000, 2


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """A linear probe on the bundled model."""
    with TemporaryDirectory() as place:
        made(Path(place))
        yield predict_case(Path(place), numbered([text[:200] for text in texts(data_dir)], ROWS), ROUNDS)


def predict_case(place: Path, found: Sequence[str], rounds: int) -> Case:
    """Seconds of the loop, whose model is loaded, over those of what `vocabsem predict` does after its imports."""
    loops, files = Loops(REFERENCE), (_rows(place, found, number) for number in range(rounds))
    loops.ours(found[:100])  # warm up; and what is known of the methods is computed once
    labelled(place, _rows(place, found[:100], rounds))
    wall = alternate({"bare": lambda: loops.ours(found), "predict": lambda: labelled(place, next(files))}, rounds)
    detail = (
        f"bare loop {wall['bare']:.1f} s, predict {wall['predict']:.1f} s (the file read, the model loaded, states and "
        f"predictions stored, the table written) for {len(found):,} rows; median of {rounds} alternating runs"
    )
    return Case("predict", f"{len(found):,} rows against the bare loop", wall["bare"] / wall["predict"], 0.85, detail)


def labelled(place: Path, rows: Path) -> list[dict[str, Any]]:
    """The rows of a file with their labels, by the command's own way."""
    from orchestration.runs.record import runs
    from orchestration.store.artifacts import open_store
    from workflows.kind import Asked
    from workflows.prediction.choice import choose
    from workflows.prediction.predict import predict
    from workflows.prediction.tables import with_predictions, write
    from workflows.runtime.progress import plain_lines

    def quiet(_: Any) -> None: ...

    store, out = open_store(place / "store"), rows.with_name(f"out-{rows.name}")
    classifier = choose(runs(store)[0], store, Asked(), None, quiet, plain_lines)
    predicted = predict(classifier, rows, store, None, quiet, plain_lines)
    write(out, with_predictions(rows, predicted.columns(), out.suffix))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def _rows(place: Path, found: Sequence[str], number: int) -> Path:
    """The same rows in another order, so that nothing of them is cached, in as many tokens."""
    path = place / f"new-{number}.jsonl"
    turned = [*found[number + 1 :], *found[: number + 1]]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in turned), encoding="utf-8")
    return path
