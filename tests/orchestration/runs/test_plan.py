"""A plan says of each step what will happen and because of which field."""

import dataclasses
import re
import shutil

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, total


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def run(store, *targets):
    quiet = lambda *_: None  # noqa: E731
    run_plan(make_plan(targets, store), lambda: InlineEngine(store, quiet), quiet)


def plan(store, *targets):
    return {entry.step.label: (entry.state, entry.why) for entry in make_plan(targets, store)}


def test_on_an_empty_store_everything_will_run(store):
    assert plan(store, total(number(2))) == {"number 2": ("run", "never made"), "total": ("run", "never made")}


def test_after_the_run_everything_is_cached(store):
    run(store, total(number(2)))
    assert plan(store, total(number(2))) == {"number 2": ("cached", ""), "total": ("cached", "")}


def test_a_changed_field_is_named_with_old_and_new_value_and_nothing_else_reruns(store):
    run(store, total(number(2), number(3)))
    changed = plan(store, total(number(2), number(3), factor=2.5))
    assert changed == {
        "number 2": ("cached", ""),
        "number 3": ("cached", ""),
        "total x 2.5": ("run", "factor 1.0 -> 2.5"),
    }


def test_what_depends_on_a_changed_step_reruns_because_of_it(store):
    run(store, total(number(2), number(3)))
    changed = plan(store, total(number(2), number(4)))
    assert changed["number 2"] == ("cached", "")
    assert changed["number 4"][0] == "run"
    assert "value" in changed["number 4"][1]
    assert changed["total"] == ("run", "input number 4 will run")


def test_a_step_whose_folder_was_removed_names_the_run_that_had_made_it(store):
    target = total(number(3))
    record = open_run(store, [target], "workflow: x\n")
    run_plan(make_plan([target], store), lambda: InlineEngine(store, record.event), record.event)
    shutil.rmtree(store.root / target.folder)
    gone = f"its folder {target.folder} is gone; run {record.run_id} had made it"
    assert plan(store, target) == {"number 3": ("cached", ""), "total": ("run", gone)}


def test_many_differing_fields_are_counted_not_listed(store):
    few, many = total(number(1)), total(*(number(count) for count in range(2, 9)))
    run(store, few)
    _, why = plan(store, many)["total"]
    assert re.fullmatch(r"never made; from the nearest total: (input number \d will run; ){3}4 more", why)


def test_a_raised_code_version_is_a_reason(store):
    run(store, number(2))
    assert plan(store, dataclasses.replace(number(2), version=2)) == {"number 2": ("run", "version 1 -> 2")}


def test_a_damaged_artifact_blocks_itself_and_names_the_file(store):
    run(store, total(number(2)))
    (store.root / number(2).folder / "part-00000.arrow").write_bytes(b"short")
    state, why = plan(store, total(number(2)))["number 2"]
    assert state == "blocked"
    assert "part-00000.arrow: found 5 bytes, expected" in why


def test_what_needs_a_blocked_step_is_blocked_unless_it_is_cached(store):
    run(store, total(number(2)))
    (store.root / number(2).folder / "part-00000.arrow").write_bytes(b"short")
    states = plan(store, total(number(2)), total(number(2), factor=3.0))
    assert states["number 2"][0] == "blocked"
    assert states["total"] == ("cached", "")
    assert states["total x 3.0"] == ("blocked", "needs number 2, which is blocked")


def test_code_that_changed_under_the_same_version_is_a_warning_not_a_rerun(store):
    step = dataclasses.replace(number(2), sources=("tests.orchestration.steps",))
    run(store, step)
    assert plan(store, step) == {"number 2": ("cached", "")}
    artifact = store.find(step)
    manifest = artifact.folder / "manifest.json"
    digest = artifact.manifest["sources"]["tests.orchestration.steps"]
    manifest.write_text(manifest.read_text().replace(digest, "0" * len(digest)))
    from orchestration.store import files

    (artifact.folder / "COMMITTED").write_text(files.checksum(manifest) + "\n")
    state, why = plan(store, step)["number 2"]
    assert state == "cached"
    assert why == "code changed since, version 1 kept: tests.orchestration.steps"


def of(model, **identity):
    return dataclasses.replace(number(2), identity={"value": 2, "model": model * 64, **identity})


def test_a_model_never_seen_is_told_as_that_without_its_digest_or_what_else_differs(store):
    run(store, of("a"))
    assert plan(store, of("b", rows=3)) == {"number 2": ("run", "never made for this model")}


def test_all_contents_never_seen_together_are_named(store):
    run(store, of("a", tokenizer="c" * 64))
    never = plan(store, of("b", tokenizer="d" * 64))
    assert never == {"number 2": ("run", "never made for this model and tokenizer")}


def test_the_nearest_is_one_of_the_same_model_even_where_more_settings_differ(store):
    run(store, of("a", layers=1, rows=1))
    run(store, of("b", layers=2, rows=1))
    assert plan(store, of("a", layers=2, rows=2))["number 2"] == ("run", "layers 1 -> 2; rows 1 -> 2")


def test_a_digest_that_only_one_side_has_is_shown_in_short(store):
    run(store, number(2))
    assert plan(store, of("a"))["number 2"] == ("run", "model (absent) -> aaaaaaaa…")
