"""Keys of whole workflows, as they were written down: moving or rewording code must not change one of them.

A key that changes on purpose (a step's version was raised) is written down again:
`python -m tests.test_golden_keys`, and the commit says why.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.integration.workspace import REPOSITORY, write
from workflows.cli.app import app
from workflows.inputs import precision

GOLDEN = Path(__file__).parent / "golden" / "keys.json"
WORDS = {
    "trec": ("abbreviation", "description", "entity", "human", "location", "number"),
    "subj": ("objective", "subjective"),
    "agnews": ("business", "sports", "technology", "world"),
}
SWEEP: dict[str, Any] = {
    "workflow": "sweep",
    "name": "golden",
    "model": "reference-1m",
    "task": "trec",
    "method": "calibration",
    "search": {"algorithm": "random", "trials": 16},
}
PRETRAIN: dict[str, Any] = {
    "workflow": "pretrain",
    "name": "golden",
    "corpus": {"files": ["text.txt"], "held_out": 0.1},
    "vocabulary": 300,
    "model": {"width": 8, "layers": 1, "heads": 2, "context": 16},
    "training": {"tokens": 64, "batch_tokens": 32},
    "evaluation": {"tasks": ["subj"], "rows": 5},
}
ABLATION: dict[str, Any] = {
    "workflow": "compare",
    "models": ["reference"],
    "tasks": ["trec", "subj", "agnews"],
    "reference_method": "basis",
    "methods": [
        {"method": "calibration", "name": name, "settings": {"targets": targets, "centre": "none", "shrinkage": 0}}
        for name, targets in (
            ("basis", "basis"),
            ("head-rows", "head"),
            ("embedding-rows", "embedding"),
            ("class-means", "class-means"),
            ("random-orthogonal", "random"),
            ("learned", "learned"),
        )
    ],
    "seeds": [0, 1, 2],
    "search": {"trials": 6},
    "encoding": {"layers": ["all", "all:mean"]},
    "limit": {"train": 2000},
}
DEMONSTRATIONS: dict[str, Any] = {
    "workflow": "compare",
    "models": ["reference-1m"],
    "tasks": ["subj"],
    "methods": [
        "zero-shot",
        {"method": "zero-shot", "name": "calibrated", "settings": {"contextual": True}},
        {"method": "icl-bm25", "trials": 0},
        {"method": "icl-dense", "trials": 0},
        {"method": "linear-probe", "name": "palp", "demonstrations": "random"},
        {"method": "linear-probe", "name": "deep", "layer": "all", "folds": 5},
        {"method": "full", "trials": 2},
    ],
    "encoding": {"layers": ["all", "all:mean"]},
    "reference_method": "zero-shot",
    "train_size": [4, "full"],
    "seeds": [0, 1],
}


def make_workspace(folder: Path) -> dict[str, str]:
    """Small data and the workflow files; what each is called -> its file."""
    for task, labels in WORDS.items():
        (folder / "data" / task).mkdir(parents=True)
        for split, count in (("train", 24), ("test", 12)):
            rows = [{"text": f"{split} text {n} of {task}", "label": labels[n % len(labels)]} for n in range(count)]
            lines = "\n".join(json.dumps(row) for row in rows) + "\n"
            (folder / "data" / task / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    text = "\n\n".join(f"Paragraph {n}, {'and so on ' * (n % 7)}." for n in range(40))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    shutil.copy(REPOSITORY / "workflows" / "catalog" / "templates" / "bundled.yaml", folder)
    shutil.copy(REPOSITORY / "docs" / "small-models.yaml", folder)
    documents = {"ablation": ABLATION, "sweep": SWEEP, "pretrain": PRETRAIN, "demonstrations": DEMONSTRATIONS}
    for name, document in documents.items():
        write(folder, f"{name}.yaml", document)
    return {path.stem: path.name for path in sorted(folder.glob("*.yaml"))}


def keys(folder: Path) -> dict[str, list[str]]:
    """Workflow -> the keys of its steps, sorted."""
    found = {}
    with pytest.MonkeyPatch.context() as patched:  # where bfloat16 is fast, keys of training say that it was used
        patched.setattr(precision, "tried_out", lambda: precision.Machine(False, False, False))
        for name, file in make_workspace(folder).items():
            paths = [str(folder / file), "--store", str(folder / "store"), "--data-dir", str(folder / "data")]
            done = CliRunner().invoke(app, ["plan", *paths, "--json"], catch_exceptions=False)
            found[name] = sorted(step["key"][:16] for step in json.loads(done.stdout)["steps"])
    return found


def test_no_key_changed(tmp_path: Path) -> None:
    assert keys(tmp_path) == json.loads(GOLDEN.read_text(encoding="utf-8"))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(keys(Path(place)), indent=1) + "\n", encoding="utf-8")
    print(yaml.safe_dump({name: len(found) for name, found in json.loads(GOLDEN.read_text()).items()}), file=sys.stderr)
