"""Which fit of a run predicts: the one that is asked for, or the best on the validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.runs.plan import make_plan
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.yaml_file import read_yaml
from workflows.errors import ConfigError
from workflows.kind import Asked, Candidate
from workflows.prediction.carry_out import carry_out
from workflows.registry import kind_of_run
from workflows.runtime.progress import Say, Watching
from workflows.session import ORIGIN
from workflows.steps.prediction import CERTAINTY, VALIDATION


@dataclass(frozen=True)
class Classifier:
    """A fit that predicts.

    Attributes:
        candidate: the fit, as a step.
        fit: what was stored of it.
        validation: what is known of it by the validation rows: validation.json.
        certainty: how far its probabilities are from its hits on the run's test rows: certainty.json.
        execution: how the run's workflow file has steps run.
        why: how it was chosen, for a person.
    """

    candidate: Candidate
    fit: Artifact
    validation: Mapping[str, Any]
    certainty: Mapping[str, Any]
    execution: Any
    why: str


def choose(
    record: RunRecord,
    store: Store,
    asked: Asked,
    executor: str | None,
    say: Say,
    watching: Watching,
) -> Classifier:
    """The fit of a run that predicts. What is known of the candidates is computed first, where it was not yet.

    Raises ConfigError for a run that makes none or a name that it does not have, and where what it was made from is
    gone or has changed.
    """
    kind = kind_of_run(record)
    if kind.candidates is None:
        raise ConfigError(f"run {record.run_id} is a {kind.name}, which makes no classifier; name a comparison")
    config = read_yaml(record.folder / "workflow.yaml", kind.config)
    found = kind.candidates(config, *origin_of(record), facts_of(store), asked)
    there = [one for one in found if store.find(one.fit) is not None]
    if asked.method is not None or not there:
        _check_is_there(found[0], store, record)
    execution = run_by(config.execution, executor, few=True)
    carry_out([one.validation for one in there], store, execution, say, watching)
    known = {one.method: store.need(one.validation).json(VALIDATION) for one in there}
    best = max(there, key=lambda one: known[one.method].get("score", -1.0))
    why = "as asked" if asked.method is not None else _reason(best, known, [one.method for one in found])
    carry_out([best.certainty], store, execution, say, watching)
    certainty = store.need(best.certainty).json(CERTAINTY)
    return Classifier(best, store.need(best.fit), known[best.method], certainty, config.execution, why)


def facts_of(store: Store) -> FingerprintCache:
    """What is remembered of files, beside the store's artifacts."""
    return FingerprintCache(store.root / "facts.json")


def origin_of(record: RunRecord) -> tuple[Path, Path | None]:
    """The folder of the run's workflow file, and that of `--data-dir`. Raises ConfigError where it is not known."""
    told = record.read(ORIGIN)
    advice = "run the workflow again (what is cached stays cached), and then this command"
    if told is None:
        raise ConfigError(f"run {record.run_id} does not say where its workflow file lay; {advice}")
    base, data_dir = Path(told["folder"]), told["data_dir"]
    if not base.is_dir():
        raise ConfigError(f"run {record.run_id}: the folder of its workflow file, {base}, is not there; {advice}")
    return base, Path(data_dir) if data_dir is not None else None


def _check_is_there(candidate: Candidate, store: Store, record: RunRecord) -> None:
    """Raises ConfigError, with the cause, where the fit was not stored, or not of what is there now."""
    if store.find(candidate.fit) is not None:
        return
    planned = [one for one in make_plan([candidate.fit], store) if one.state != "cached"]
    known = {step["key"] for step in record.steps()}
    if candidate.fit.key in known:
        raise ConfigError(f"{candidate.fit.label} failed or was removed from {store}; run the workflow again")
    causes = "\n".join(f"  {one.step.label}: {one.why}" for one in planned[:3])
    raise ConfigError(
        f"what {candidate.method} was fitted with has changed since run {record.run_id}:\n{causes}\n"
        "Run the workflow again, or put back what was there."
    )


def _reason(best: Candidate, known: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> str:
    """Why a method was taken, with the next ones."""
    if len(methods) == 1:
        return "the only method"
    scores = {name: told["score"] for name, told in known.items() if "score" in told}
    if best.method not in scores:
        return "the first: no row is held out to choose by"
    others = sorted((name for name in scores if name != best.method), key=lambda name: -scores[name])
    told = ", ".join(f"{name} {scores[name]:.3f}" for name in others[:3])
    rows = known[best.method]["rows"]
    missing = [name for name in methods if name not in scores]
    gone = f"; no score of {', '.join(missing)}" if missing else ""
    metric = best.metric.replace("_", "-")
    return f"highest {metric} on {rows:,} validation rows: {scores[best.method]:.3f}" + (
        f" (then {told}{gone})" if told else gone
    )


def run_by(execution: Any, executor: str | None, few: bool) -> Any:
    """How steps are run: as asked, on the cluster that the file names, or where there is little to do in this process.

    A cluster of its own takes longer to start than a few rows to read.
    """
    alone = few and execution.address is None
    return execution.model_copy(update={"executor": executor or ("inline" if alone else execution.executor)})
