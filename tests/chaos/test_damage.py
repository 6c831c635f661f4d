"""Bits that flip and files that end early, at random places of every kind of artifact: each is found."""

import json
import random
import shutil

import pytest

from orchestration.runs.gc import damages
from orchestration.store.artifacts import Artifact, open_store
from tests import tiny
from tests.integration.workspace import STARTER, cli, write

PLACES = 200
COMPARE = {
    "workflow": "compare",
    "models": ["model"],
    "tasks": ["starter-topics"],
    "methods": ["zero-shot", "affinity", "calibration", "knn"],
    "limit": {"train": 24, "test": 12},
    "seeds": [0],
    "search": {"trials": 2},
    "execution": {"executor": "inline"},
}
SWEEP = {
    "workflow": "sweep",
    "name": "small",
    "model": "model",
    "task": "starter-topics",
    "method": "calibration",
    "limit": {"train": 24, "test": 12},
    "search": {"trials": 2},
    "execution": {"executor": "inline"},
}
PRETRAIN = {
    "workflow": "pretrain",
    "name": "tiny",
    "corpus": {"files": ["corpus.txt"], "held_out": 0.2},
    "vocabulary": 300,
    "model": {"width": 16, "layers": 1, "heads": 2, "context": 32},
    "training": {"tokens": 640, "batch_tokens": 64},
    "execution": {"executor": "inline"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every kind of artifact there is, made by the three workflows."""
    folder = tmp_path_factory.mktemp("kinds")
    tiny.save(folder / "model", tiny.gpt2())
    rows = (STARTER / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    (folder / "corpus.txt").write_text("\n\n".join(json.loads(row)["text"] for row in rows), encoding="utf-8")
    for name, document in (("compare", COMPARE), ("sweep", SWEEP), ("pretrain", PRETRAIN)):
        cli(folder, "run", write(folder, f"{name}.yaml", document), "--store", str(folder / "store"))
    return open_store(folder / "store")


def hurt(path, draw):
    """Flip a bit or cut the file, at a random place."""
    data = bytearray(path.read_bytes())
    if draw.random() < 0.5:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    else:
        del data[draw.randrange(len(data)) :]
    path.write_bytes(bytes(data))


def test_all_of_200_damages_at_random_places_are_found(store, chronicle):
    draw = random.Random(0)
    kinds: dict[str, list[Artifact]] = {}
    for artifact in store.artifacts():
        kinds.setdefault(artifact.folder.parent.name, []).append(artifact)
    assert {
        "texts",
        "labels",
        "encode",
        "head",
        "basis",
        "spectrum",
        "verbalizer",
        "search",
        "fit",
        "score",
    } < kinds.keys()
    assert {"sweep", "corpus", "tokenizer", "tokens", "pretrain"} < kinds.keys()
    names, found, hit = sorted(kinds), 0, set()
    for place in range(PLACES):
        artifact = draw.choice(kinds[names[place % len(names)]])
        path = draw.choice(sorted(path for path in artifact.folder.iterdir() if path.stat().st_size))
        whole = path.read_bytes()
        hurt(path, draw)
        told = [str(damage) for damage in Artifact(artifact.folder).damages(every_byte=True)]
        found += bool(told) and all(str(artifact.folder) in line for line in told)
        hit.add((names[place % len(names)], path.suffix))
        path.write_bytes(whole)
    assert found == PLACES
    assert damages(store) == {}
    chronicle(f"bits flipped and files cut, in {len(names)} kinds of artifacts", PLACES, 0)


def test_a_whole_store_damaged_at_once_is_repaired_and_made_anew(store, tmp_path):
    """A file of every kind: `damages` names those artifacts and no other."""
    other = open_store(shutil.copytree(store.root, tmp_path / "store"))
    draw, expected = random.Random(1), set()
    for kind in sorted({artifact.folder.parent.name for artifact in other.artifacts()}):
        artifact = draw.choice([one for one in other.artifacts() if one.folder.parent.name == kind])
        hurt(draw.choice(sorted(path for path in artifact.folder.iterdir() if path.stat().st_size)), draw)
        expected.add(str(artifact.folder.relative_to(other.root)))
    assert set(damages(other)) == expected
