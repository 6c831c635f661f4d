"""Artifacts and runs by what a person types: the first digits of a key, `step/digits`, a run id, `latest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from orchestration.errors import NotFound, StoreError
from orchestration.graph import KEY_CHARACTERS
from orchestration.runs.record import RUNS, RunRecord, runs
from orchestration.store.artifacts import Artifact, Store

LATEST = "latest"
_LEAST = 4  # digits
_SHOWN = 8  # candidates of an ambiguous prefix


def find_run(text: str, store: Store) -> RunRecord:
    """A run by the first digits of its id, or `latest`: the one that last came to results.

    Raises StoreError where none or several match.
    """
    known = runs(store)
    if text == LATEST:
        return _brought(_latest(known, store))
    by_place = {f"{RUNS}/{record.run_id}": record for record in known}
    return _brought(by_place[_match(text, list(by_place), "run", store)])


def find_artifact(text: str, store: Store) -> Artifact:
    """An artifact by the first digits of its key, or step/digits. Raises StoreError where none or several match."""
    artifacts = by_folder(store)
    return _whole_key(text, artifacts[_match(text, list(artifacts), "artifact", store)])


def find_either(text: str, store: Store) -> Artifact | RunRecord:
    """An artifact or a run. Raises StoreError where none or several match."""
    if text == LATEST:
        return find_run(text, store)
    artifacts = by_folder(store)
    records = {f"{RUNS}/{record.run_id}": record for record in runs(store)}
    place = _match(text, [*artifacts, *records], "artifact or run", store)
    return _brought(records[place]) if place in records else _whole_key(text, artifacts[place])


def by_folder(store: Store) -> Mapping[str, Artifact]:
    """Every committed artifact by its folder below the store."""
    return {str(artifact.folder.relative_to(store.root)): artifact for artifact in store.artifacts()}


def _match(text: str, places: Sequence[str], kind: str, store: Store) -> str:
    """The one place (step/digits) that a text means."""
    step, _, digits = text.lower().rpartition("/")
    if len(digits) < _LEAST:
        raise NotFound(f"{text!r} is too short; expected at least the first {_LEAST} characters of a key or run id")
    found = [
        place
        for place in places
        if place.partition("/")[2].startswith(digits[:KEY_CHARACTERS]) and step in ("", place.partition("/")[0])
    ]
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise NotFound(f"{text!r} means several: {', '.join(found[:_SHOWN])}{more}; give more digits")
    if not found:
        raise NotFound(f"no {kind} {text!r} in {store}{_hint(step, digits, places)}")
    return found[0]


def _latest(known: Sequence[RunRecord], store: Store) -> RunRecord:
    if found := next((record for record in known if record.has_results), None):
        return found
    if known:
        raise StoreError(
            f"{store}: no run has results yet; the last that was started, {known[0].run_id}, is running, interrupted "
            "or failed. Run its workflow again to resume, or give the id of another run."
        )
    raise StoreError(f"{store}: no run yet; run a workflow first")


def _brought(record: RunRecord) -> RunRecord:
    """With all its documents here."""
    record.download()
    return record


def _hint(step: str, digits: str, places: Sequence[str]) -> str:
    of_step = [place for place in places if place.startswith(f"{step}/")] or places
    starts = {place.partition("/")[2][: len(digits)]: place for place in of_step}
    near = [starts[start] for start in get_close_matches(digits, list(starts), n=3, cutoff=0.8)]
    return f"; the nearest: {', '.join(near)}" if near else ""


def _whole_key(text: str, artifact: Artifact) -> Artifact:
    """A folder's name is a part of the key: digits beyond it are compared with the whole."""
    digits, key = text.lower().rpartition("/")[2], artifact.manifest["key"]
    if not key.startswith(digits):
        raise NotFound(f"no artifact {text!r}; the nearest is {artifact.folder.parent.name}/{key}")
    return artifact
