"""Which rows a split has: a part of one file, and what a limit keeps of each label."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.inputs.row_choice import chosen_rows, digest_and_count, digest_of
from workflows.inputs.tables import Part, Split, SplitFile

NAMES = ["bad", "good"]


def part(split: Split, share: float = 0.2, seed: int = 0) -> SplitFile:
    return SplitFile(Path("a.csv"), {"text": "text"}, "label", None, Part(share, seed, split))


def table(count: int, every: int = 2) -> dict[str, list]:
    """Rows of which every so-many-th is good."""
    return {"text": [f"row {n}" for n in range(count)], "label": [NAMES[n % every == 0] for n in range(count)]}


def test_a_split_is_whole_stratified_seeded_and_the_same_in_any_order() -> None:
    columns = table(100, every=4)
    train, test = (chosen_rows(part(split), columns, NAMES, split, None) for split in ("train", "test"))
    assert sorted(train + test) == list(range(100))
    assert sum(columns["label"][row] == "good" for row in test) == 5
    assert len(test) == 20
    backwards = {name: values[::-1] for name, values in columns.items()}
    assert sorted(99 - row for row in chosen_rows(part("test"), backwards, NAMES, "test", None)) == test
    assert chosen_rows(part("test", seed=1), columns, NAMES, "test", None) != test


@given(st.lists(st.integers(0, 5), min_size=4, max_size=30))
def test_equal_texts_are_on_one_side(texts: list[int]) -> None:
    columns: dict[str, list] = {"text": [str(n) for n in texts], "label": [NAMES[n % 2] for n in range(len(texts))]}
    test = set(chosen_rows(part("test"), columns, NAMES, "test", None))
    sides = {(text, row in test) for row, text in enumerate(columns["text"])}
    assert len(sides) == len(set(columns["text"]))


def test_a_limit_on_training_rows_keeps_two_of_every_label() -> None:
    columns: dict[str, list] = {"text": [f"row {n}" for n in range(500)], "label": ["bad"] * 497 + ["good"] * 3}
    file = SplitFile(Path("a.csv"), {"text": "text"}, "label", None)
    kept = chosen_rows(file, columns, NAMES, "train", 10)
    assert len(kept) == 10
    assert sum(columns["label"][row] == "good" for row in kept) >= 2


def test_the_choice_is_in_the_key_only_where_labels_have_a_say(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"row {n},{NAMES[n % 2]}\n" for n in range(40)))
    whole, facts = SplitFile(path, {"text": "text"}, "label", None), FingerprintCache(tmp_path / "facts.json")
    assert digest_and_count(whole, NAMES, "train", None, facts) is None
    assert digest_and_count(whole, NAMES, "test", 5, facts) is None
    assert digest_and_count(whole, NAMES, "train", 30, facts) is None, "a plain limit that keeps two of each anyway"
    halves = [SplitFile(path, {"text": "text"}, "label", None, Part(0.2, seed, "test")) for seed in (0, 1)]
    first, second = (digest_and_count(half, NAMES, "test", None, facts) for half in halves)
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    columns = table(40)
    kept = chosen_rows(halves[0], columns, NAMES, "test", None)
    assert first == (digest_of(kept), len(kept)) == digest_and_count(halves[0], NAMES, "test", None, facts)
    assert (first[1], len(columns["text"])) == (8, 40)
