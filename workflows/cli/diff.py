"""Two runs side by side: which steps differ and in what, and what that did to the results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.runs.plan import differences
from orchestration.runs.record import RunRecord
from workflows.cli.inspect import changes_document, changes_text
from workflows.results.model import sized
from workflows.results.wording import score

_PAYLOAD = ("step", "version", "identity", "inputs")
_CELL = ("model", "task", "method", "train_size")
_FOUND = ("model", "method", "train_size", "metric", "mean", "n_test", "seeds", "settings", "labels", "confusion")


def diff_document(old: RunRecord, new: RunRecord) -> dict[str, Any]:
    """Steps and results of two runs: a step is the same by its key, whatever it is called; the others go by label."""
    a, b = _steps(old), _steps(new)
    names = {step["key"]: label for label, step in a.items()}
    keys = {step["key"] for step in b.values()}
    same = [label for label, step in b.items() if step["key"] in names]
    rest_a = {label: step for label, step in a.items() if step["key"] not in keys}
    rest_b = {label: step for label, step in b.items() if step["key"] not in names}
    return {
        "runs": [old.run_id, new.run_id],
        "same": same,
        "renamed": [
            {"a": before, "b": label} for label in same if (before := names[b[label]["key"]]) not in (label, *same)
        ],
        "only_a": [label for label in rest_a if label not in rest_b],
        "only_b": [label for label in rest_b if label not in rest_a],
        "changed": [
            {"label": label, "changes": _changes(rest_a[label], step, a, b)}
            for label, step in rest_b.items()
            if label in rest_a
        ],
        "results": _results(old.read("results.json") or [], new.read("results.json") or []),
    }


def _steps(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Steps by label, numbered where one label stands for several."""
    seen: Counter[str] = Counter()
    found = {}
    for step in record.steps():
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
    """Side by side; a task that has another name in the new run goes by that name."""
    a, b = ({_place(line): line for line in lines} for lines in (old, new))
    names = _renamed(a, b)
    a = {(model, names.get(task, task), *rest): line for (model, task, *rest), line in a.items()}
    rows = []
    for cell in dict.fromkeys([*a, *b]):
        numbers = [{n: side[cell][n] for n in ("mean", "low", "high")} if cell in side else None for side in (a, b)]
        means = [found["mean"] for found in numbers if found is not None]
        row = dict(zip(_CELL, cell, strict=True))
        rows.append(
            {**row, "a": numbers[0], "b": numbers[1], "difference": means[1] - means[0] if len(means) == 2 else None}
        )
    return rows


def _renamed(a: Mapping[tuple[Any, ...], Any], b: Mapping[tuple[Any, ...], Any]) -> dict[str, str]:
    """Tasks of A alone whose every prediction counts the same under a name of B alone -> that name."""
    names_a, names_b = ({task for _, task, *_ in side} for side in (a, b))
    found = {_content(line): line["task"] for line in b.values() if line["task"] not in names_a}
    return {
        line["task"]: found[content]
        for line in a.values()
        if line["task"] not in names_b and line.get("confusion") and (content := _content(line)) in found
    }


def _content(line: Mapping[str, Any]) -> str:
    """What a result says, without the name of its task."""
    return json.dumps([line.get(name) for name in _FOUND], sort_keys=True)


def _place(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a result from the others of its run."""
    return tuple(line[name] for name in _CELL)


def diff_text(document: Mapping[str, Any]) -> str:
    """The comparison of two runs for a person to read."""
    a, b = document["runs"]
    renamed = f", {count} of them under another name" if (count := len(document["renamed"])) else ""
    lines = [f"A = run {a}", f"B = run {b}", f"{len(document['same'])} steps are the same{renamed}"]
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
            lines.append(f"input {change['new']} differs")
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
    return score(**numbers) if numbers else "none"
