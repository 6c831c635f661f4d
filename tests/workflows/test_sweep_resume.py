"""A sweep that was begun and not finished cannot be changed under its name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestration.store.artifacts import Store
from orchestration.store.files import replace_json
from orchestration.store.fingerprint_cache import FingerprintCache
from tests.workflows.films import write_films
from tests.workflows.sweeps import ROWS, Done, Made, begun, config
from workflows.errors import ConfigError
from workflows.sweep.graph import sweep


def test_an_unfinished_sweep_of_this_name_that_searches_something_else_is_told_apart(made: Made, store: Store) -> None:
    begun(made(), store)
    with pytest.raises(ConfigError) as caught:
        made(space={"k": {"choice": [1, 4]}, "distance": {"choice": ["cosine", "euclidean"]}})
    told = str(caught.value)
    assert (
        "sweep 'mine' was started with other contents and is not finished: space.k.choice was [1, 2], is [1, 4]."
        in told
    )
    assert "distance" not in told
    assert caught.value.place == ("name",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"algorithm": "grid", "seed": 3}}, "search.seed was 0, is 3"),
        ({"search": {"algorithm": "random", "trials": 3}}, "search.algorithm was grid, is random"),
        ({"space": {"k": {"choice": [1, 2]}}}, r"space.distance was {'choice': \['cosine', 'euclidean'\].*}, is None"),
        (
            {"space": {"k": {"choice": [1, 2]}}, "settings": {"distance": "euclidean"}},
            "settings.distance was None, is eu",
        ),
        ({"train_size": 4}, "train_size was full, is 4"),
    ],
)
def test_the_difference_to_the_unfinished_sweep_is_named(
    made: Made, store: Store, changes: dict[str, Any], told: str
) -> None:
    begun(made(), store)
    with pytest.raises(ConfigError, match=told):
        made(**changes)


def test_an_unfinished_sweep_on_other_rows_is_told_as_such(
    made: Made, store: Store, base: Path, tmp_path: Path
) -> None:
    begun(made(), store)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model").symlink_to(base / "model")
    write_films(other, ROWS[:30], ROWS[:30])
    with pytest.raises(ConfigError, match="not finished: its rows or its model have changed"):
        made(place=other)


def test_the_same_sweep_another_name_and_a_removed_folder_are_allowed(made: Made, store: Store) -> None:
    folder = begun(made(), store)
    changed = {"space": {"k": {"choice": [1, 4]}}}
    assert made().search.key == made(execution={"executor": "ray"}).search.key
    assert made(name="another", **changed).config.name == "another"
    with pytest.raises(ConfigError, match=f"or remove {folder} to start again"):
        made(**changed)
    shutil.rmtree(folder)
    assert made(**changed).config.name == "mine"


@pytest.mark.parametrize("records", [None, [{"key": "one", "ended": "failed", "validation": None, "curve": []}]])
def test_where_nothing_could_be_trained_there_is_nothing_to_go_on_with(made: Made, store: Store, records: Any) -> None:
    """A time limit that was too short, a learning rate at which all diverge: what is told to be changed may be."""
    pack = begun(made(), store) / "packs" / "one.json"
    pack.unlink()
    if records is not None:
        replace_json(pack, records)
    assert made(search={"algorithm": "grid", "time_limit": 60}).config.search.time_limit == 60


def test_an_edited_method_is_named_as_what_differs(made: Made, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from workflows.methods.knn import Knn\n\n\nclass Near(Knn):\n    name = 'near'\n")
    begun(made(method=str(file)), store)
    file.write_text(file.read_text() + "    # mended\n")
    with pytest.raises(ConfigError, match=r"is not finished: method file was \w{16}, is \w{16}\."):
        made(method=str(file))


def test_a_finished_sweep_is_no_obstacle_to_another_of_its_name(done: Done, base: Path) -> None:
    facts = FingerprintCache(done.store.root / "facts.json")
    assert sweep(config(), base, None, facts, done.store).search.key != done.sweep.search.key


def test_a_finished_sweep_is_not_refused_while_another_of_its_name_is_unfinished(done: Done, base: Path) -> None:
    facts = FingerprintCache(done.store.root / "facts.json")
    folder = begun(sweep(config(), base, None, facts, done.store), done.store)
    try:
        assert sweep(done.sweep.config, base, None, facts, done.store).search.key == done.sweep.search.key
        with pytest.raises(ConfigError, match="not finished"):
            sweep(config(train_size=4), base, None, facts, done.store)
    finally:
        shutil.rmtree(folder)
