"""Two runs side by side: which steps differ and in what, and what that did to the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.plan import differences
from orchestration.runs import RunRecord
from workflows.inspect import changes_document, changes_text
from workflows.results import sized

_PAYLOAD = ("step", "version", "identity", "inputs")
_CELL = ("model", "task", "method", "train_size")


def diff_document(old: RunRecord, new: RunRecord) -> dict[str, Any]:
    """Steps by label and results by cell, of two runs."""
    a, b = _steps(old), _steps(new)
    shared = [label for label in b if label in a]
    return {
        "runs": [old.run_id, new.run_id],
        "same": [label for label in shared if a[label]["key"] == b[label]["key"]],
        "only_a": [label for label in a if label not in b],
        "only_b": [label for label in b if label not in a],
        "changed": [
            {"label": label, "changes": _changes(a[label], b[label], a, b)}
            for label in shared
            if a[label]["key"] != b[label]["key"]
        ],
        "results": _results(old.read("results.json") or [], new.read("results.json") or []),
    }


def _steps(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Steps by label, numbered where one label stands for several."""
    seen: Counter[str] = Counter()
    found = {}
    for step in record.read("graph.json")["steps"]:
        seen[step["label"]] += 1
        number = seen[step["label"]]
        found[step["label"] if number == 1 else f"{step['label']} ({number})"] = step
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Any]:
    """Differing fields; an input is named by its label, since its own entry says how it differs."""
    labels = {step["key"]: label for steps in (a, b) for label, step in steps.items()}
    payloads = [{name: step[name] for name in _PAYLOAD} for step in (old, new)]
    found = changes_document(differences(*payloads))
    return [
        {name: labels.get(value, value) if name != "field" else value for name, value in change.items()}
        if change["field"].startswith("inputs.")
        else change
        for change in found
    ]


def _results(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    a, b = ({_place(line): line for line in lines} for lines in (old, new))
    rows = []
    for cell in dict.fromkeys([*a, *b]):
        numbers = [{n: side[cell][n] for n in ("mean", "low", "high")} if cell in side else None for side in (a, b)]
        means = [found["mean"] for found in numbers if found is not None]
        row = dict(zip(_CELL, cell, strict=True))
        rows.append(
            {**row, "a": numbers[0], "b": numbers[1], "difference": means[1] - means[0] if len(means) == 2 else None}
        )
    return rows


def _place(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a result from the others of its run. A record of an older version names no training size."""
    return tuple({"train_size": "full", **line}[name] for name in _CELL)


def diff_text(document: Mapping[str, Any]) -> str:
    """The comparison of two runs for a person to read."""
    a, b = document["runs"]
    lines = [f"A = run {a}", f"B = run {b}", f"{len(document['same'])} steps are the same"]
    for name, steps in (("only in A", document["only_a"]), ("only in B", document["only_b"])):
        lines += [name, *(f"  {label}" for label in steps)] if steps else []
    if document["changed"]:
        lines.append("changed, A -> B")
    for step in document["changed"]:
        lines += [f"  {step['label']}", *(f"    {line}" for line in _named(step["changes"]))]
    return "\n".join([*lines, *_table(document["results"])])


def _named(changes: list[dict[str, Any]]) -> list[str]:
    """An input that differs under one and the same label is another artifact of it."""
    lines = []
    for change in changes:
        if change["field"].startswith("inputs.") and change.get("old") == change.get("new"):
            lines.append(f"input {change['new']} is another")
        else:
            lines += changes_text([change])
    return lines


def _table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    if not results:
        return ["no results to compare"]
    names = [" / ".join([row["model"], row["task"], row["method"], *sized(row["train_size"])]) for row in results]
    width = max(len(name) for name in names)
    head = f"{'model / task / method':{width}}   {'A':22}   {'B':22}   B - A"
    lines = [
        f"{name:{width}}   {_score(row['a']):22}   {_score(row['b']):22}   "
        + (f"{row['difference']:+.3f}" if row["difference"] is not None else "")
        for name, row in zip(names, results, strict=True)
    ]
    return ["", head, *(line.rstrip() for line in lines)]


def _score(numbers: Mapping[str, float] | None) -> str:
    return f"{numbers['mean']:.3f} ({numbers['low']:.3f} to {numbers['high']:.3f})" if numbers else "none"
