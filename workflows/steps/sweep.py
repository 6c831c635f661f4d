"""Steps of a sweep: the search itself, and the best of it fitted anew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.files import json_bytes, replace_json
from orchestration.graph import Resources, Step
from orchestration.search import Places, Proposals, search
from orchestration.stopping import Stopping
from orchestration.work import Work
from workflows.config import MethodConfig
from workflows.errors import ConfigError
from workflows.methods import method_named
from workflows.methods.base import Method
from workflows.proposals import Listed, Suggested
from workflows.space import Domain
from workflows.steps.methods import Inputs, inputs_of, materials_of, method_identity
from workflows.sweep_config import SweepConfig
from workflows.trials import (
    Configuration,
    best_first,
    configuration,
    listed,
    pack_size,
    packs_of,
    settings_of,
    try_pack,
    validation_predictions,
    within_memory,
)

if TYPE_CHECKING:
    import numpy as np

    from workflows.materials import Materials

RECORDS, CONFIRMED, SWEEP = "configurations.json", "confirmed.json", "sweep.json"
_TRIALS = 64
_SOURCES = (
    "workflows.materials",
    "workflows.steps.sweep",
    "workflows.trials",
    "workflows.space",
    "workflows.proposals",
)


def sweep_step(
    config: SweepConfig, method: MethodConfig, space: Mapping[str, Domain], materials: Inputs, task: Mapping[str, Any]
) -> Step:
    """The search. Where and how many at once are no part of it: without early stopping the result is the same."""
    found, plan, fixed = method_named(method.method), config.search, dict(method.settings)
    trials = plan.trials or _TRIALS
    known: list[dict[str, Any]] | None = None  # the settings, where they are known beforehand
    if plan.algorithm != "optuna":
        most = None if plan.algorithm == "grid" else trials
        known = [one["settings"] for one in listed(found, space, fixed, most, plan.seed)]
    return Step(
        name="sweep",
        label=f"sweep {config.name}",
        version=1,
        run="workflows.steps.sweep:fill_sweep",
        identity={
            **method_identity(found, method, task, config.search.seed),
            "fixed": fixed,
            "space": {name: domain.model_dump(mode="json", exclude_none=True) for name, domain in space.items()},
            "search": plan.model_dump(mode="json"),
            "trials": trials if known is None else len(known),
            "listed": known,
            "metric": task["metric"],
        },
        inputs=inputs_of(found, materials, with_test=False),
        local={"name": config.name, **config.execution.model_dump(mode="json", exclude={"address"})},
        resources=Resources(cpus=0),  # it only waits: the workers reserve cores and GPUs of their own
        sources=(*_SOURCES, type(found).__module__, *found.sources),
    )


def fill_sweep(work: Work) -> dict[str, float]:
    """configurations.json: a record for each configuration, those known beforehand in their order."""
    started = time.perf_counter()
    config, method = work.identity, method_named(work.identity["method"])
    replace_json(work.scratch / SWEEP, {"name": work.local["name"], "identity": dict(work.identity)})
    places = _places(work.local)
    proposals, order = _proposals(work, method, places)
    stopping = Stopping(config["search"]["stopping"], config["search"]["grace"], _most_epochs(method, work.identity))
    setup = {"work": work, "threads": max(1, int(places.cpus)) if places.concurrent else None}
    records = search(
        "workflows.steps.sweep:try_on_worker",
        setup,
        proposals,
        places,
        stopping,
        config["search"]["time_limit"],
        work.scratch,
    )
    if not best_first(records):
        told = f"the first: {records[0]['error']}" if records else "the time limit was over before one was done"
        raise ConfigError(f"{method.name}: no configuration of the sweep could be trained; {told}")
    rank = {key: place for place, key in enumerate(order)}
    work.out.write(RECORDS, json_bytes(sorted(records, key=lambda record: rank.get(record["key"], len(rank)))))
    return {"search_seconds": round(time.perf_counter() - started, 3)}


def _proposals(work: Work, method: Method, places: Places) -> tuple[Proposals, list[str]]:
    """Where configurations come from, and the keys of those that are known beforehand."""
    identity, at_once, materials = work.identity, max(1, places.concurrent), materials_of(work)
    seed, fixed = identity["search"]["seed"], dict(identity["fixed"])
    first = [configuration(method, given, seed) for given in identity["listed"] or [fixed]]
    most = work.local["pack"] or pack_size(method, materials, first, at_once)
    if identity["listed"] is not None:
        return Listed(method, first, most), [one["key"] for one in first]
    space = {name: Domain.model_validate(domain) for name, domain in identity["space"].items()}
    return Suggested(method, space, fixed, identity["trials"], seed, most), []


def _most_epochs(method: Method, identity: Mapping[str, Any]) -> int:
    """Of any configuration; 1 where the method has no epochs, for then nothing is stopped."""
    if not method.has_epochs:
        return 1
    domain = identity["space"].get("epochs")
    return max(next(iter(domain.values()))) if domain else method.Settings.model_validate(identity["fixed"]).epochs  # type: ignore[attr-defined]


def _places(local: Mapping[str, Any]) -> Places:
    """How many workers, and cores and GPUs of each. Raises ConfigError where not one fits."""
    if local["executor"] == "inline":
        return Places(0, 1, 0)
    import ray

    there = ray.cluster_resources()
    cpus, gpus = local["cores"], local["gpus"] if local["gpus"] is not None else float(there.get("GPU", 0) >= 1)
    room = int(there.get("CPU", 1) // cpus)
    if gpus:
        room = min(room, int(there.get("GPU", 0) / gpus))
    if not room:
        raise ConfigError(
            f"execution: a worker asks for {cpus:g} cores and {gpus:g} GPUs; the cluster has {there.get('CPU', 1):g} "
            f"cores and {there.get('GPU', 0):g} GPUs. Ask for fewer."
        )
    return Places(min(room, local["concurrent"] or room), cpus, gpus)


_loaded: dict[str, Materials] = {}  # of this process's last search: its packs read the same files


def try_on_worker(setup: Mapping[str, Any], pack: Sequence[Configuration], watch: Any) -> list[dict[str, Any]]:
    """Try a pack out, on whatever this process was given."""
    import torch

    work: Work = setup["work"]
    if setup["threads"] is not None:
        torch.set_num_threads(setup["threads"])
    name = str(work.scratch)
    if name not in _loaded:
        _loaded.clear()
        _loaded[name] = materials_of(work)
    return try_pack(method_named(work.identity["method"]), _loaded[name], pack, work.identity["metric"], watch)


def confirm_step(config: SweepConfig, sweep: Step) -> Step:
    """The best of a sweep and the defaults, fitted with fresh seeds: is one really better?"""
    first = config.search.seed + 1
    return Step(
        name="confirm",
        label=f"confirm {config.name}",
        version=1,
        run="workflows.steps.sweep:fill_confirm",
        identity={
            **{name: sweep.identity[name] for name in ("method", "method_version", "layer", "labels", "metric")},
            **({"train_size": sweep.identity["train_size"]} if "train_size" in sweep.identity else {}),
            "seed": config.search.seed,
            "fixed": sweep.identity["fixed"],
            "best": config.confirm.best,
            "seeds": list(range(first, first + config.confirm.seeds)),
        },
        inputs={**sweep.inputs, "sweep": sweep},
        sources=(*sweep.sources, "vocabsem_core.scoring"),
    )


def fill_confirm(work: Work) -> None:
    """confirmed.json: scores of each candidate on the validation rows, best first, and the leads of the winner."""
    from vocabsem_core.scoring import lead, score

    identity, method, materials = work.identity, method_named(work.identity["method"]), materials_of(work)
    found = best_first(work.inputs["sweep"].json(RECORDS))[: identity["best"]]
    defaults = configuration(method, identity["fixed"], identity["seed"])["settings"]
    tried = {f"best {place}": record["settings"] for place, record in enumerate(found, start=1)}
    names = {name: settings for name, settings in tried.items() if settings != defaults} | {"defaults": defaults}
    labels, classes = materials.stored_validation.labels.numpy(), len(materials.labels)
    arguments = (labels, classes, identity["metric"])
    fits = {name: _refits(method, materials, settings, identity["seeds"]) for name, settings in names.items()}
    scored = {name: score(predictions, *arguments) for name, (predictions, _, _) in fits.items()}
    order = sorted(scored, key=lambda name: -scored[name].mean)
    leads = {
        name: dict(zip(("mean", "low", "high"), lead(fits[order[0]][0], fits[name][0], *arguments), strict=True))
        for name in order[1:]
    }
    candidates = [
        {
            "name": name,
            "settings": names[name],
            **{part: getattr(scored[name], part) for part in ("mean", "low", "high", "sd_seeds", "by_seed")},
            "trained_weights": fits[name][1],
            "fit_seconds": fits[name][2],
        }
        for name in order
    ]
    document = {"metric": identity["metric"], "rows": len(labels), "candidates": candidates, "leads": leads}
    work.out.write(CONFIRMED, json_bytes(document))


def _refits(
    method: Method, materials: Materials, settings: Mapping[str, Any], seeds: Sequence[int]
) -> tuple[np.ndarray, int, float]:
    """Predictions on the validation rows, [seeds, n], trained weights, and seconds a fit."""
    import numpy as np

    started = time.perf_counter()
    jobs = [configuration(method, settings, seed) for seed in seeds]

    def attempt(pack: Sequence[Configuration]) -> list[Any]:
        return method.fit_many([(settings_of(method, one), one["seed"]) for one in pack], materials)

    def give_up(one: Configuration, error: str) -> Any:
        raise ConfigError(f"{method.name} {one['settings']}: out of memory in its refit: {error}")

    fitted = []
    for pack in packs_of(method, jobs, pack_size(method, materials, jobs, 1)):
        for one in within_memory(pack, attempt, give_up):
            if isinstance(one, Exception):
                raise ConfigError(f"{method.name}: a refit with a fresh seed failed: {one}")
            fitted.append(one)
    seconds = (time.perf_counter() - started) / len(jobs)
    typed = settings_of(method, jobs[0])
    predictions = np.stack([validation_predictions(method, typed, one, materials) for one in fitted])
    return predictions, method.trained_weights(fitted[0].tensors), seconds
