"""The `sweep` workflow: a search over one method's settings, its best fitted anew, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import Status, TrackedRun, View
from workflows.compare.graph import shown_rows
from workflows.compare.tracked_data import data_of, thinned
from workflows.config.space import Domain, combinations
from workflows.config.sweep import SweepConfig
from workflows.errors import in_field
from workflows.extractors.registry import extractor_kind
from workflows.inputs.catalog import find_task, short_name
from workflows.kind import Results
from workflows.results.model import Costs, Detail, Found, Result
from workflows.results.table import table
from workflows.runtime.progress import Say
from workflows.search.trials import best_first
from workflows.steps.fit import Conditions
from workflows.steps.sweep import CONFIRMED, FOLDS, RECORDS, TRIALS, confirm_step, sweep_step
from workflows.sweep.checks import check_same, sweep_method
from workflows.sweep.plots import plot_sweep

_SHOWN = 5  # of the best, on the screen
_LEVEL = 0.05  # of the randomisation test
_MOST_POINTS = 20  # of a configuration's curve in a tracker


@dataclass(frozen=True)
class Sweep:
    """A search and the confirmation of its best.

    Attributes:
        base: the folder that paths in the sweep's file are relative to.
        method: its name, where `config` may have the file of a user's own.
        rows: by split, the step that stores what a person sees of the rows.
    """

    config: SweepConfig
    base: Path
    space: Mapping[str, Domain]
    model: str
    task: str
    method: str
    rows: Mapping[str, Step]
    search: Step
    confirm: Step

    @property
    def targets(self) -> list[Step]:
        return [self.confirm]

    def results(self, store: Store, say: Say) -> Results:
        """The candidates of the confirmation, best first."""
        try:
            if (artifact := store.find(self.confirm)) is None:
                return []
            found = artifact.json(CONFIRMED)
        except DamagedArtifact as error:
            say(f"no result of sweep {self.config.name}: {error}")
            return []
        return [self._result(found, candidate) for candidate in found["candidates"]]

    def _result(self, found: Mapping[str, Any], candidate: Mapping[str, Any]) -> Found:
        numbers = {**{part: candidate[part] for part in ("mean", "low", "high")}, "sd_seeds": candidate["sd"]}
        seeds = self._seeds
        name = f"{self.method}: {candidate['name']}"
        result = Result(
            self.model,
            self.task,
            name,
            found["metric"],
            **numbers,
            seeds=seeds,
            n_test=found["rows"],
            rows="validation",
        )
        settings = dict.fromkeys(seeds, candidate["settings"])
        costs = Costs(fit=candidate["fit_seconds"])
        return result, Detail(trained_weights=candidate["trained_weights"], costs=costs, settings=settings)

    @property
    def _seeds(self) -> list[int]:
        """Of the refits; none of them is the search's."""
        return [self.config.search.seed + fold for fold in FOLDS]

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        """The candidates are confirmed together: all of one time or all of another."""
        return results or earlier

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """Nothing: the results are all."""

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        try:
            records = self.records(store)
        except DamagedArtifact:  # told by `notes`
            records, results = [], []
        if results and not (record.folder / "best.yaml").is_file():  # the last that is written
            plot_sweep(records, self.space, results[0][0].metric, record.folder)
            record.write_bytes("best.yaml", self.best_yaml(store).encode())
        best = best_first(records)
        ordered = [*best, *(one for one in records if one not in best)]  # those without a score last
        shown = ("workflow.yaml", "best.yaml", "parallel-coordinates.svg", "importance.svg")
        plan = self.config.search
        parent = TrackedRun(
            key=record.run_id,
            name=f"sweep {self.config.name}",
            status=status,
            params={
                "model": self.model,
                "task": self.task,
                "method": self.method,
                "algorithm": plan.algorithm,
                "stopping": plan.stopping,
                **{f"space/{name}": str(domain) for name, domain in self.space.items()},
            },
            metrics={
                "configurations": float(len(records)),
                **{ended: float(sum(r["ended"] == ended for r in records)) for ended in ("stopped", "failed", "lost")},
                **({"best_validation": best[0]["validation"]} if best else {}),
                **{f"{_candidate(result)} confirmed": result.mean for result, _ in results},
            },
            tags={
                "vocabsem.workflow": "sweep",
                "vocabsem.run_id": record.run_id,
                "vocabsem.record": str(record),
            },
            note="\n".join([table(results), "", *self.notes(store, True)]) if results else "",
            tables={"configurations.json": [_row(one, self.space) for one in ordered]} if results else {},
            data=data_of(self.task, self.rows, self.confirm),
            files=tuple(path for name in shown if (path := record.folder / name).is_file()),
            view=View(tuple(self.space), ("validation",), "validation") if results else None,
        )
        # MLflow shows what was made last first, so the best is made last.
        placed = reversed(list(enumerate(ordered, start=1)))
        return parent, tuple(self._child(record, place, one) for place, one in placed) if results else ()

    def _child(self, record: RunRecord, place: int, one: Mapping[str, Any]) -> TrackedRun:
        numbers = {"validation": one["validation"], "validation_loss": one["loss"]}
        varied = " ".join(f"{name}={_short(one['settings'][name])}" for name in self.space)
        return TrackedRun(
            key=f"{record.run_id}:{one['key']}",
            name=f"{place}: {varied}",  # MLflow's list shows some 15 characters of it
            status="FAILED" if one["ended"] in ("failed", "lost") else "FINISHED",
            params={name: str(value) for name, value in one["settings"].items()} | {"seed": str(one["seed"])},
            metrics={name: value for name, value in numbers.items() if value is not None},
            series={"epoch_loss": thinned(one["curve"], _MOST_POINTS, first=1)} if one["curve"] else {},
            tags={
                "vocabsem.run_id": record.run_id,
                "vocabsem.method": self.method,
                "vocabsem.task": self.task,
                "vocabsem.model": self.model,
                "vocabsem.ended": one["ended"],
                **({"vocabsem.error": one["error"]} if one["error"] else {}),
            },
        )

    def records(self, store: Store) -> list[dict[str, Any]]:
        """A record for each configuration (see `trials`)."""
        artifact = store.find(self.search)
        return artifact.json(RECORDS) if artifact is not None else []

    def notes(self, store: Store, ran: bool) -> list[str]:
        """How the search went, its best configurations, and whether the winner's lead is more than noise."""
        try:
            return self._notes(store)
        except DamagedArtifact as error:
            return [f"how the search went is not known: {error}"]

    def _notes(self, store: Store) -> list[str]:
        artifact, records = store.find(self.confirm), self.records(store)
        if artifact is None or not records:
            return []
        confirmed, ends = artifact.json(CONFIRMED), [record["ended"] for record in records]
        seconds = _found_seconds(store, self.search)
        lines = [
            f"{len(records)} configurations in {seconds:.1f} s ({len(records) / seconds:.1f}/s), "
            f"{ends.count('stopped')} stopped early, {ends.count('failed')} failed, {ends.count('lost')} lost",
            "best of the search, one seed:",
            *(
                f"  {record['validation']:.3f}   "
                + ", ".join(f"{name} {_short(record['settings'][name])}" for name in self.space)
                for record in best_first(records)[:_SHOWN]
            ),
            *[f"  {record['ended']}: {record['error']}" for record in records if record["error"]][:_SHOWN],
            *[f"  not confirmed: {one['name']}: {one['error']}" for one in confirmed["failed"]],
        ]
        if len(records) < (asked := self._asked):
            lines[0] += (
                f"; {asked} were asked for, the space (without what the method refuses) or the time limit gave no more"
            )
        winner = confirmed["candidates"][0]["name"]
        for name, lead in confirmed["leads"].items():
            verdict = "more than noise" if lead["p"] < _LEVEL else "within noise"
            span = f"{lead['low']:.3f} to {lead['high']:.3f}"
            lines.append(f"{winner} leads {name} by {lead['mean']:.3f} ({span}, p {lead['p']:.4f}): {verdict}")
        return lines

    @property
    def _asked(self) -> int:
        """How many configurations were asked for."""
        if self.config.search.algorithm == "grid":
            return combinations(self.space)
        return self.config.search.trials or TRIALS

    def document(self, store: Store) -> dict[str, Any]:
        return {"configurations": self.records(store)}

    def deliver(self, store: Store, results: Results) -> list[str]:
        return []

    def best_yaml(self, store: Store) -> str:
        """A compare workflow of the winner and the defaults on the test rows, for a file beside the sweep's own.

        Paths in it are relative to that folder, as they are in the sweep's file.
        """
        artifact = store.find(self.confirm)
        assert artifact is not None, "asked for once the sweep is done"
        confirmed, config = artifact.json(CONFIRMED), self.config
        winner = confirmed["candidates"][0]
        shared, name = {"method": config.method, "layer": config.layer}, short_name(self.method)
        methods = [{**shared, "name": f"{name}-defaults", "settings": dict(config.settings)}]
        if winner["name"] != "defaults":
            methods.append({**shared, "name": f"{name}-best", "settings": winner["settings"]})
        kept = {"store": config.store and str(config.store), "experiment": config.experiment}
        parts: dict[str, Any] = {
            "workflow": "compare",
            "models": [config.model],
            "tasks": [config.task],
            "methods": methods,
            "seeds": self._seeds,
            "train_size": config.train_size,
            "search": {"trials": 0},
            "limit": config.limit.model_dump(mode="json"),
            "encoding": config.encoding.model_dump(mode="json"),
            **{name: value for name, value in kept.items() if name in config.model_fields_set},
        }
        if config.execution.address is not None:
            parts["execution"] = {"address": config.execution.address}
        head = f"# The best of sweep {config.name} ({winner['name']} in its confirmation), and the defaults.\n"
        if any((self.base / name).exists() for name in (config.model, config.task, config.method)):
            head += "# Its paths are relative to the folder of the sweep's file.\n"
        return head + yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)


def sweep(config: SweepConfig, base: Path, data_dir: Path | None, facts: FingerprintCache, store: Store) -> Sweep:
    """The graph of a workflow file. Raises ConfigError for what cannot be found or searched, or is another sweep's."""
    method = sweep_method(config, base)
    with in_field("task"):
        task = find_task(config.task, base, data_dir)
    with in_field("model"):
        model = extractor_kind(config.model, base).open(config.model, base, facts)
        model.check_encoding(config.encoding)
    with in_field("method"):
        model.check_method(method)
    with in_field("task"):
        materials = model.materials(task, config.limit, config.encoding, config.execution, facts)
    conditions = Conditions(tuple(task.config.words), task.config.metric, config.train_size)
    search = sweep_step(config, method, materials, conditions)
    check_same(config.name, search, store)
    names = (model.name, task.config.name, method.method.name)
    confirm = confirm_step(config, method, search)
    return Sweep(config, base, method.space, *names, shown_rows(materials), search, confirm)


def _found_seconds(store: Store, step: Step) -> float:
    artifact = store.find(step)
    return artifact.json("provenance.json")["search_seconds"] if artifact is not None else 0.0


def _row(record: Mapping[str, Any], space: Mapping[str, Domain]) -> dict[str, Any]:
    """A line of the table in MLflow; the score stands first, where it is seen without moving the table."""
    return {
        "validation": record["validation"],
        "validation_loss": record["loss"],
        **{name: record["settings"][name] for name in space},
        "trained_epochs": len(record["curve"]),
        "ended": record["ended"],
        "key": record["key"],
    }


def _candidate(result: Result) -> str:
    """Its name without the method's: MLflow shows some ten characters of a chart's title."""
    return result.method.rpartition(": ")[2]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
