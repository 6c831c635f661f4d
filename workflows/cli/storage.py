"""Commands that care for the store: what it holds, what is damaged, what nobody needs, and runs as archives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from workflows.cli.options import AsJson, KeptRuns, OneRun, StorePlace, open_store, path_given, read_store
from workflows.cli.progress import progress_lines
from workflows.errors import ConfigError

_SECONDS = {"d": 86400, "h": 3600, "m": 60}


def list_artifacts(store: StorePlace = None, as_json: AsJson = False) -> None:
    """List the artifacts and the runs in the store, the newest first."""
    from orchestration.runs.gc import labels
    from orchestration.runs.record import runs

    opened = read_store(store)
    names = labels(opened)
    recorded = [{"run_id": record.run_id, "started": record.read("graph.json")["started"]} for record in runs(opened)]
    rows = [
        {
            "step": artifact.folder.parent.name,
            "key": artifact.folder.name,
            "rows": artifact.rows,
            "bytes": sum(entry["bytes"] for entry in artifact.manifest["files"].values()),
            "finished": artifact.json("provenance.json")["finished"],
            "label": names.get(f"{artifact.folder.parent.name}/{artifact.folder.name}"),
        }
        for artifact in opened.artifacts()
    ]
    if as_json:
        print(json.dumps({"artifacts": rows, "runs": recorded}))
        return
    for row in rows:
        place, name = f"{row['step']}/{row['key']}", row["label"] or "in no run"
        print(f"{place:31}  {row['rows']:>9,} rows  {row['bytes']:>13,} bytes  {row['finished']}  {name}")
    print(f"{len(rows)} artifacts, {sum(row['bytes'] for row in rows):,} bytes")
    for entry in recorded:
        print(f"run         {entry['run_id']}  started {entry['started']}")


def verify(
    store: StorePlace = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged artifacts; the next run recomputes them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every byte of the store with the checksums. Exit status 1 if anything remains damaged."""
    from orchestration.runs.gc import damages, labels, remove_damaged

    opened = read_store(store)
    artifacts = len(opened.artifacts())
    with progress_lines("verify", "folders") as progress:
        found = damages(opened, progress)
    removed = list(remove_damaged(opened, found)) if repair else []
    names = labels(opened)
    if as_json:
        told = [vars(damage) for lines in found.values() for damage in lines]
        gone = [{"folder": place, "label": names.get(place)} for place in removed]
        print(json.dumps({"checked": artifacts, "damaged": told, "removed": gone}))
    else:
        for damage in (damage for lines in found.values() for damage in lines):
            print(f"damaged  {damage}")
        for place in removed:
            print(f"removed  {place}   the next run recomputes it: {names.get(place, 'no recorded run uses it')}")
        print(f"{artifacts} artifacts checked, {sum(map(len, found.values()))} files damaged, {len(removed)} removed")
        if found and not repair:
            print("`vocabsem verify --repair` removes them; the next run recomputes only them.")
        elif len(removed) < len(found):
            print("The rest is being written by another run; verify again when that run has ended.")
    if len(removed) < len(found):
        raise typer.Exit(1)


def gc(
    keep: KeptRuns = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Remove only what is older: 30d, 12h or 45m, for example."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, without removing it.")
    ] = False,
    store: StorePlace = None,
    as_json: AsJson = False,
) -> None:
    """Remove artifacts that no run uses (with --keep: none of the named runs), and leftovers of killed processes.

    Records of runs and their results are always kept. What an active run uses or writes is never removed.
    """
    from orchestration.runs.gc import garbage, remove
    from orchestration.runs.lookup import find_run

    opened, age = read_store(store), _age(older_than)
    kept = [find_run(name, opened) for name in keep] if keep else None
    found = garbage(opened, kept, age)
    gone = found if dry_run else list(remove(opened, found))
    freed = sum(one.bytes for one in gone)
    if as_json:
        print(json.dumps({"removed": [vars(one) for one in gone], "bytes": freed, "dry_run": dry_run}))
        return
    for one in gone:
        print(f"{one.kind:10}  {one.bytes:>13,} bytes  {one.place}")
    print(f"{len(gone)} {'would be removed' if dry_run else 'removed'}, {freed:,} bytes")


def export_run(
    run: OneRun,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The .tar archive to write.", show_default=False, callback=path_given),
    ],
    store: StorePlace = None,
    as_json: AsJson = False,
) -> None:
    """Write a run and every artifact it uses to one archive."""
    from orchestration.runs.archive import export_run as export
    from orchestration.runs.lookup import find_run

    opened = read_store(store)
    with progress_lines("export", "artifacts checked") as progress:
        moved = export(opened, find_run(run, opened), file, progress)
    for label in moved.missing if not as_json else ():
        print(f"missing: {label}")
    _tell(moved, f"run {moved.run_id}: {moved.artifacts} artifacts, {moved.bytes:,} bytes in {file}", as_json)


def import_run(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Archive written by `export`.", show_default=False, callback=path_given),
    ],
    store: StorePlace = None,
    as_json: AsJson = False,
) -> None:
    """Import an exported run into the store, after checking every byte. Imports everything or nothing."""
    from orchestration.runs.archive import import_run as download

    with progress_lines("import", "files") as progress:
        moved = download(open_store(store), file, progress)
    text = f"run {moved.run_id}: {moved.artifacts} artifacts imported, {moved.known} were already there"
    _tell(moved, text, as_json)


def _tell(moved: Any, text: str, as_json: bool) -> None:
    print(json.dumps(vars(moved)) if as_json else text)


def _age(text: str | None) -> float:
    """Seconds of an age as it is typed. Raises ConfigError for what is none."""
    if text is None:
        return 0.0
    found = re.fullmatch(r"(\d+)([dhm])", text)
    if found is None:
        raise ConfigError(f"--older-than {text!r}: expected a number and d, h or m, such as 30d")
    return float(found[1]) * _SECONDS[found[2]]
