"""`vocabsem predict` killed in the middle goes on with the shards that are there."""

import json
import signal
from pathlib import Path

from tests import tiny
from tests.integration.workspace import cli, cli_begun, write
from tests.workflows.films import films, write_films

ROWS = 9000  # nine shards
WORKFLOW = {
    "workflow": "compare",
    "models": ["model"],
    "tasks": ["films.yaml"],
    "methods": ["linear-probe"],
    "seeds": [0],
    "execution": {"executor": "inline"},
}


def states_of(store: Path) -> dict[Path, int]:
    """The committed shards of the new rows' states, with their times."""
    folders = [folder for folder in store.glob("encode/*") if len(list(folder.glob("part-*.json"))) > 1]
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.glob("part-*.json")}


def predicted(folder: Path, out: str) -> list[dict]:
    return [json.loads(line) for line in (folder / out).read_text().splitlines()]


def test_killed_in_the_middle_it_goes_on_with_the_shards_that_are_there(tmp_path):
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, films(40), films(12))
    write(tmp_path, "workflow.yaml", WORKFLOW)
    cli(tmp_path, "run", "workflow.yaml")
    rows = [{"text": f"a film number {number}"} for number in range(ROWS)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = tmp_path / ".vocabsem" / "store"
    words = ["predict", "latest", "--data", "new.jsonl", "--executor", "inline", "--out"]

    command = cli_begun(tmp_path, *words, "out.jsonl")
    command.wait_for(lambda: len(states_of(store)) >= 2)
    command.send(signal.SIGKILL)
    assert command.end().returncode == -signal.SIGKILL
    kept = states_of(store)
    assert 2 <= len(kept) < ROWS // 1024 + 1
    assert not (tmp_path / "out.jsonl").exists()

    cli(tmp_path, *words, "out.jsonl")
    found = states_of(store)
    assert {path: found[path] for path in kept} == kept
    assert len(found) == ROWS // 1024 + 1
    whole = predicted(tmp_path, "out.jsonl")
    assert [row["text"] for row in whole] == [row["text"] for row in rows]

    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[-5:]))
    cli(tmp_path, *words, "few-out.jsonl", "--data", "few.jsonl")
    few = predicted(tmp_path, "few-out.jsonl")
    assert [row["prediction"] for row in few] == [row["prediction"] for row in whole[-5:]]
