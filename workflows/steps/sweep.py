"""Steps of a sweep: the search itself, and the best of it fitted anew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.trial_queue import SearchAlgorithm, seconds_spent
from orchestration.ray_backend.tune import WorkerSlots, room, search
from orchestration.store.files import json_bytes, replace_json
from vocabsem_core.errors import InputError
from workflows.config.space import Domain
from workflows.config.sweep import SweepConfig
from workflows.errors import ConfigError
from workflows.methods.base import Method
from workflows.methods.custom import naming_the_file
from workflows.methods.resolved import ResolvedMethod
from workflows.search.proposals import FixedTrials, OptunaTrials
from workflows.search.trials import (
    Configuration,
    best_first,
    configuration,
    listed,
    pack_size,
    telling,
    try_pack,
    validation_predictions,
)
from workflows.steps.code import code_of, method_code
from workflows.steps.fit import (
    Conditions,
    Inputs,
    import_sources,
    inputs_of,
    materials_of,
    method_files,
    method_identity,
    method_local,
    method_of,
)

if TYPE_CHECKING:
    import numpy as np

    from vocabsem_core.statistics.metrics import Metric
    from workflows.methods.inputs.states import TaskFeatures

FOLDS = (1, 2, 3, 4)  # the fifths of the training rows that the search did not choose by
RECORDS, CONFIRMED, SWEEP = "configurations.json", "confirmed.json", "sweep.json"
TRIALS = 64


def sweep_step(config: SweepConfig, method: ResolvedMethod, inputs: Inputs, conditions: Conditions) -> Step:
    """The search. Where and how many at once are no part of it."""
    found, space, fixed, plan = method.method, method.space, dict(method.settings), config.search
    trials = plan.trials or TRIALS
    known: list[dict[str, Any]] | None = None  # the settings, where they are known beforehand
    if plan.algorithm != "optuna":
        most = None if plan.algorithm == "grid" else trials
        known = [one["settings"] for one in listed(found, space, fixed, most, plan.seed)]
    optuna = {
        "space": {name: domain.model_dump(mode="json", exclude_none=True) for name, domain in space.items()},
        "fixed": method.whole_settings,
        "trials": trials,
    }
    return Step(
        name="sweep",
        label=f"sweep {config.name}",
        version=3,  # 3: Optuna's defaults are written out
        run="workflows.steps.sweep:fill_sweep",
        identity={
            **method_identity(method, inputs, conditions, plan.seed),
            "listed": known,
            "optuna": None if known is not None else optuna,
            "stopping": None if plan.stopping == "none" else {"rule": plan.stopping, "grace": plan.grace},
            "time_limit": plan.time_limit,
            "metric": conditions.metric,
        },
        inputs=inputs_of(method.needs(searched=True), inputs, with_test=False),
        local={
            **method_local(found),
            "name": config.name,
            "asked": {
                **config.model_dump(
                    mode="json", exclude_none=True, exclude={"execution", "confirm", "store", "experiment"}
                ),
                **({"method file": found.source_digest[:16]} if found.source_digest else {}),
            },
            **config.execution.model_dump(mode="json", exclude={"address", "resources"}),
            "gpus": _gpus(config, found),
        },
        resources=Resources(cpus=0, waits=True),  # the workers reserve cores and GPUs of their own
        workers=_reserved(config, found),
        files=method_files(found),
        sources=code_of(fill_sweep, *method_code(found)),
    )


def _gpus(config: SweepConfig, method: Method) -> float | None:
    """Of each worker."""
    return 0.0 if config.execution.gpus is None and not method.uses_gpu else config.execution.gpus


def _reserved(config: SweepConfig, method: Method) -> Resources | None:
    """What each worker reserves, where there are any."""
    return None if config.execution.executor == "inline" else Resources(config.execution.cores, _gpus(config, method))


def fill_sweep(work: StepContext) -> dict[str, float]:
    """configurations.json: a record for each configuration, in the order of the list or, with Optuna, of their keys."""
    identity, method = work.identity, method_of(work)
    replace_json(work.scratch / SWEEP, {"name": work.local["name"], "asked": work.local["asked"]})
    places = _places(work.local)
    rule = identity["stopping"]
    stopping = Stopping(**rule, epochs=_most_epochs(method, identity)) if rule else Stopping("none", 1, 1)
    device = "cuda" if places.gpus else "cpu"
    setup = {"work": work, "threads": max(1, int(places.cpus)) if places.concurrent else None, "device": device}
    records = search(
        "workflows.steps.sweep:try_on_worker",
        setup,
        _proposals(work, method, places, device),
        places,
        stopping,
        identity["time_limit"],
        work.scratch,
    )
    if not best_first(records):
        told = (
            f"the first: {records[0]['error']}"
            if records
            else "search.time_limit was over before one was done; raise it (workers take some seconds to start)"
        )
        raise ConfigError(f"{method.name}: no configuration of the sweep could be trained; {told}")
    order = [configuration(method, given, identity["seed"])["key"] for given in identity["listed"] or []]
    rank = {key: place for place, key in enumerate(order)}
    records.sort(key=lambda record: (rank.get(record["key"], len(rank)), record["key"]))
    work.out.write(RECORDS, json_bytes(records))
    return {"search_seconds": seconds_spent(work.scratch)}


def _proposals(work: StepContext, method: Method, places: WorkerSlots, device: str) -> SearchAlgorithm:
    """Where configurations come from."""
    identity, workers = work.identity, max(1, places.concurrent)
    memory = partial(pack_size, method, materials_of(work, device=device), workers)

    def most(one: Configuration) -> int:
        return work.local["pack"] or memory(one)

    if identity["listed"] is not None:
        tried = [configuration(method, given, identity["seed"]) for given in identity["listed"]]
        return FixedTrials(method, tried, most, workers)
    plan = identity["optuna"]
    space = {name: Domain.model_validate(domain) for name, domain in plan["space"].items()}
    return OptunaTrials(method, space, dict(plan["fixed"]), plan["trials"], identity["seed"], most, workers)


def _most_epochs(method: Method, identity: Mapping[str, Any]) -> int:
    """Of any configuration."""
    if identity["listed"] is not None:
        return max(settings["epochs"] for settings in identity["listed"])
    domain, fixed = identity["optuna"]["space"].get("epochs"), identity["optuna"]["fixed"]
    defaults = method.Settings.model_validate(fixed).model_dump()["epochs"]
    return max([defaults, *(Domain.model_validate(domain).values if domain else ())])


def _places(local: Mapping[str, Any]) -> WorkerSlots:
    """Where packs are tried. Raises ClusterError where not one worker fits."""
    if local["executor"] == "inline":
        return WorkerSlots(0, 1, 0)
    return room(local["concurrent"], local["cores"], local["gpus"])


_loaded: dict[str, TaskFeatures] = {}  # of this process's last search: its packs read the same files


def try_on_worker(setup: Mapping[str, Any], pack: Sequence[Configuration], watch: Any) -> list[dict[str, Any]]:
    """Try a pack out, on whatever this process was given."""
    import torch

    work: StepContext = setup["work"]
    if setup["threads"] is not None:
        torch.set_num_threads(setup["threads"])
    name = str(work.scratch)
    if name not in _loaded:
        _loaded.clear()
        _loaded[name] = materials_of(work, device=setup["device"])
    method = method_of(work)
    with naming_the_file(method), telling(work, pack):
        return try_pack(method, _loaded[name], pack, work.identity["metric"], watch)


def confirm_step(config: SweepConfig, method: ResolvedMethod, sweep: Step) -> Step:
    """The best of a sweep and the defaults, fitted anew: is one really better?"""
    kept = ("method", "method_version", "source", "layer", "labels", "metric", "train_size", "seed")
    return Step(
        name="confirm",
        label=f"confirm {config.name}",
        version=5,  # 5: the defaults are written out
        run="workflows.steps.sweep:fill_confirm",
        identity={
            **{name: sweep.identity[name] for name in kept if name in sweep.identity},
            "fixed": method.whole_settings,
            "best": config.confirm.best,
            "folds": FOLDS,
        },
        inputs={**sweep.inputs, "sweep": sweep},
        local=method_local(method.method),
        files=sweep.files,
        sources=code_of(fill_confirm, *method_code(method.method)),
    )


def fill_confirm(work: StepContext) -> None:
    """confirmed.json: scores of each candidate on rows the search did not choose by, best first; the winner's leads."""
    import numpy as np

    from vocabsem_core.numerics.ticks import listening, part_of_more
    from vocabsem_core.statistics.metrics import score

    identity, method = work.identity, method_of(work)
    found = best_first(work.inputs["sweep"].json(RECORDS))[: identity["best"]]
    defaults = configuration(method, identity["fixed"], identity["seed"])["settings"]
    tried = {f"best {place}": record["settings"] for place, record in enumerate(found, start=1)}
    names = {name: settings for name, settings in tried.items() if settings != defaults} | {"defaults": defaults}
    labels, failed = [], {}
    fits: dict[str, list[_Refit]] = {name: [] for name in names}
    import_sources(method)
    tried_in_all = len(names) * len(identity["folds"])
    for number, fold in enumerate(identity["folds"]):
        # The outer loop, so that the states of one fold at a time are in memory.
        materials = materials_of(work, fold=fold)
        materials.load_training()  # no part of the first candidate's seconds
        labels.append(materials.stored_validation.labels.numpy())
        for place, name in enumerate(names):
            if name in failed:
                continue
            try:
                done = number * len(names) + place
                with naming_the_file(method), listening(work.tell), part_of_more(done, tried_in_all, "fits"):
                    fits[name].append(_refit(method, materials, names[name]))
            except InputError as error:
                failed[name] = {"name": name, "settings": names[name], "error": str(error)}
    pooled = (np.concatenate(labels), len(identity["labels"]), identity["metric"])
    candidates, predictions = [], {}
    for name in [name for name in names if name not in failed]:
        predicted = [fit.predicted for fit in fits[name]]
        predictions[name] = np.concatenate(predicted)
        whole = score(predictions[name][None], *pooled)
        folds = [score(one[None], own, *pooled[1:]).mean for one, own in zip(predicted, labels, strict=True)]
        candidates.append(
            {
                "name": name,
                "settings": names[name],
                **{part: getattr(whole, part) for part in ("mean", "low", "high")},
                "sd": float(np.std(folds, ddof=1)),
                "trained_weights": fits[name][0].weights,
                "fit_seconds": sum(fit.seconds for fit in fits[name]) / len(folds),
            }
        )
    if not candidates:
        first = next(iter(failed.values()))["error"]
        raise ConfigError(f"{method.name}: none of the best could be fitted again; the first: {first}")
    candidates.sort(key=lambda candidate: (-candidate["mean"], candidate["name"] != "defaults"))
    leads = leads_of_the_first({one["name"]: predictions[one["name"]] for one in candidates}, *pooled)
    shown = {"metric": identity["metric"], "rows": len(pooled[0]), "failed": list(failed.values())}
    work.out.write(CONFIRMED, json_bytes({**shown, "candidates": candidates, "leads": leads}))


def leads_of_the_first(
    predictions: Mapping[str, np.ndarray], labels: np.ndarray, n_classes: int, metric: Metric
) -> dict[str, dict[str, float]]:
    """The lead of the best, which comes first, over each of the others; `predictions` [n] of the same rows.

    It is the best on these very rows, so p is Holm's over all pairs, whichever of them it might have been.
    """
    from vocabsem_core.statistics.holm import holm
    from vocabsem_core.statistics.paired_tests import lead

    pairs = list(combinations(predictions, 2))
    leads = [lead(predictions[one][None], predictions[other][None], labels, n_classes, metric) for one, other in pairs]
    corrected = holm([found.p for found in leads])
    return {
        other: {**asdict(found), "p": p}
        for (one, other), found, p in zip(pairs, leads, corrected, strict=True)
        if one == pairs[0][0]
    }


@dataclass(frozen=True)
class _Refit:
    """Predictions on the rows held out, [n], trained weights, and what both took."""

    predicted: np.ndarray
    weights: int
    seconds: float


def _refit(method: Method, materials: TaskFeatures, settings: Mapping[str, Any]) -> _Refit:
    started, typed = time.perf_counter(), method.Settings.model_validate(settings)
    fitted = method.fit(typed, materials, materials.seed + materials.fold)  # a seed that the search did not use
    (found,) = validation_predictions(method, [(typed, fitted)], materials)
    if isinstance(found, InputError):
        raise found
    return _Refit(found, method.trained_weights(fitted), time.perf_counter() - started)
