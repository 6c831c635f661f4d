"""What a report says, computed from the results: the headline, averages over tasks, what ran, what it ran with."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import folder_of
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from workflows.errors import ConfigError
from workflows.results.answers import Answer, answers, sentences
from workflows.results.budgets import budget_note, usual_budget
from workflows.results.model import Found, Result, Versus, largest, read_stored
from workflows.results.verdicts import comparisons, ranked
from workflows.results.wording import looks_contradictory


@dataclass(frozen=True)
class Average:
    """A mean over tasks. Their test rows are independent, so the half-widths of intervals add up as squares (ours)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Block:
    """The results of one model at the largest training size, by method and task.

    Attributes:
        methods: the highest mean over tasks first; those that miss a task last.
        notes: method -> how its budget falls short of the others'.
    """

    model: str
    tasks: list[str]
    methods: list[str]
    found: dict[tuple[str, str], Found]
    notes: dict[str, str]

    def on(self, task: str) -> list[Found]:
        """Of one task, the highest score first."""
        return ranked(found for (_, of), found in self.found.items() if of == task)

    def of(self, method: str) -> list[Found]:
        return [self.found[method, task] for task in self.tasks if (method, task) in self.found]

    def average(self, method: str) -> Average | None:
        """Of the scores, or None where a task is missing."""
        results = [result for result, _ in self.of(method)]
        return _average(results) if len(results) == len(self.tasks) else None

    def average_lead(self, method: str) -> Average | None:
        """Of the leads over the reference."""
        leads = [detail.versus for _, detail in self.of(method) if detail.versus is not None]
        return _average(leads) if len(leads) == len(self.tasks) else None

    @property
    def metrics(self) -> str:
        return " or ".join(dict.fromkeys(result.metric.replace("_", "-") for result, _ in self.found.values()))


def by_size(sizes: Iterable[int | str]) -> list[int | str]:
    """Training sizes, each once, the smallest first and `full` last."""
    return sorted(set(sizes), key=lambda size: math.inf if isinstance(size, str) else size)


@dataclass(frozen=True)
class Contents:
    """All that a report shows.

    Attributes:
        results: of every training size.
        blocks: one a model.
        reference: the method the others are tested against, "" where there is no other.
        workflow: the workflow file's text.
        answers: which method wins, one per model and task.
        tested: how many pairs of methods were tested.
        steps: kind of step -> (in the graph, computed the last time that the run computed any).
        versions: distinct sets of versions that the results were made with, with how many steps have each.
    """

    run_id: str
    started: str
    results: list[Found]
    blocks: list[Block]
    reference: str
    answers: list[Answer]
    tested: int
    workflow: str
    steps: dict[str, tuple[int, int]]
    versions: list[tuple[dict[str, str], int]]

    @property
    def comparisons(self) -> list[Versus]:
        return [detail.versus for block in self.blocks for _, detail in block.found.values() if detail.versus]

    @property
    def pairs(self) -> Iterator[tuple[Result, Versus]]:
        """Every comparison with the reference method, then those with the best method that are others."""
        found = [one for block in self.blocks for task in block.tasks for one in block.on(task)]
        yield from ((result, detail.versus) for result, detail in found if detail.versus)
        for result, detail in found:
            if (one := detail.to_best) and self.reference not in (one.reference, result.method):
                yield result, one

    @property
    def contradictory(self) -> bool:
        """Whether a verdict needs the footnote on intervals without 0."""
        return any(looks_contradictory(versus) for _, versus in self.pairs)

    def at_sizes(self, model: str) -> dict[int | str, Block]:
        """The results of a model at each training size, the smallest first."""
        mine = [found for found in self.results if found[0].model == model]
        sizes = by_size(result.train_size for result, _ in mine)
        return {size: _blocks([found for found in mine if found[0].train_size == size])[0] for size in sizes}

    @property
    def size(self) -> int | str:
        return largest(self.results)

    @property
    def test_rows(self) -> str:
        """How many each task has."""
        rows = {result.task: result.n_test for result, _ in self.results}
        return ", ".join(f"{task} {count:,}" for task, count in rows.items())

    def headline(self) -> list[str]:
        """The best on average over tasks, the answer for each task, and a sentence on all comparisons."""
        answered = {(answer.best[0].model, answer.best[0].task) for answer in self.answers}
        lines = [
            line
            for block in self.blocks
            if len(block.tasks) > 1 or (block.model, block.tasks[0]) not in answered
            if (line := _best(block))
        ]
        for answer in self.answers:
            result, _ = answer.best
            model = f" with model {result.model}" if len(self.blocks) > 1 else ""
            lines.append(f"{result.task}{model}: {' '.join(sentences(answer))}")
        if self.reference:
            counts = Counter(versus.verdict for versus in self.comparisons)
            none = counts["no difference shown"]
            lines.append(
                f"Of {len(self.comparisons)} comparisons with {self.reference}, the other method is better in "
                f"{counts['better']} and worse in {counts['worse']}; {none} show no difference."
            )
        return lines


def read_contents(record: RunRecord, store: Store) -> Contents:
    """Of a comparison. Raises ConfigError for a run that has no results."""
    results = read_stored(record.read("results.json") or [])
    if not results:
        raise ConfigError(f"run {record.run_id} has no results yet; run its workflow again")
    return contents_of(record, store, results)


def contents_of(record: RunRecord, store: Store, results: Sequence[Found]) -> Contents:
    """The same, of results that are at hand; at least one."""
    workflow = (record.folder / "workflow.yaml").read_text(encoding="utf-8")
    graph = record.read("graph.json")
    made = set(record.made_last())
    counts = Counter(step["step"] for step in graph["steps"])
    ran = Counter(step["step"] for step in graph["steps"] if step["key"] in made)
    shown = [found for found in results if found[0].train_size == largest(results)]
    reference = next((detail.versus.reference for _, detail in shown if detail.versus), "")
    return Contents(
        record.run_id,
        graph["started"],
        list(results),
        _blocks(shown),
        reference,
        answers(results),
        comparisons(shown),
        workflow,
        {name: (count, ran[name]) for name, count in counts.items()},
        _versions(graph["steps"], store),
    )


def _blocks(shown: Sequence[Found]) -> list[Block]:
    usual = usual_budget(shown)
    blocks = []
    for model in dict.fromkeys(result.model for result, _ in shown):
        mine = [found for found in shown if found[0].model == model]
        notes: dict[str, str] = {}
        for method in dict.fromkeys(result.method for result, _ in mine):  # tasks may differ in what it was given
            told = [budget_note(r, d, usual) for r, d in mine if r.method == method]
            notes[method] = "; ".join(dict.fromkeys(filter(None, told)))
        tasks, methods = (list(dict.fromkeys(getattr(r, part) for r, _ in mine)) for part in ("task", "method"))
        block = Block(model, tasks, methods, {(r.method, r.task): (r, d) for r, d in mine}, notes)
        blocks.append(replace(block, methods=_by_score(block)))
    return blocks


def _by_score(block: Block) -> list[str]:
    """The methods, the best first."""
    return sorted(block.methods, key=lambda method: _order(block, method))


def _order(block: Block, method: str) -> tuple[int, float]:
    results = [result for result, _ in block.of(method)]
    return -len(results), -_average(results).mean


def _average(parts: Sequence[Result] | Sequence[Versus]) -> Average:
    mean = sum(part.mean for part in parts) / len(parts)
    below, above = (
        math.sqrt(sum((getattr(part, end) - part.mean) ** 2 for part in parts)) / len(parts) for end in ("low", "high")
    )
    return Average(mean, mean - below, mean + above)


def _best(block: Block) -> str:
    averages = {method: found for method in block.methods if (found := block.average(method))}
    if not averages:
        return ""
    best = max(averages, key=lambda method: averages[method].mean)
    found = averages[best]
    over = f"on average over {len(block.tasks)} tasks" if len(block.tasks) > 1 else f"on {block.tasks[0]}"
    return (
        f"{best} has the highest {block.metrics} {over} with model {block.model}: {found.mean:.3f} "
        f"(95 % interval {found.low:.3f} to {found.high:.3f})."
    )


def _versions(steps: Sequence[dict[str, Any]], store: Store) -> list[tuple[dict[str, str], int]]:
    """The most frequent first. What is not in the store any more, or damaged, is passed over."""
    counts: Counter[str] = Counter()
    places = [folder_of(step["step"], step["key"]) for step in steps]
    store = store.looking(places)
    for place in places:
        artifact = store.at(place)
        if artifact is not None and (artifact.folder / "provenance.json").is_file():
            try:
                found = artifact.json("provenance.json")
            except DamagedArtifact:
                continue
            counts[json.dumps({"python": found["python"], **found["packages"]}, sort_keys=True)] += 1
    return [(json.loads(text), count) for text, count in counts.most_common()]
