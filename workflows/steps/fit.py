"""Steps on a method: its search for settings, its fits, and their score."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.trial_queue import seconds_spent
from orchestration.ray_backend.tune import WorkerSlots, search
from orchestration.store.files import json_bytes
from vocabsem_core.names import Metric
from workflows.config.layers import layers_read
from workflows.errors import ConfigError
from workflows.methods.base import Method, Need, check_scores
from workflows.methods.custom import naming_the_file
from workflows.methods.ensembles import MEAN_OF_FOLDS, fit_folds, plain_copy, predict_folds, trained_in_folds
from workflows.methods.registry import method_named
from workflows.methods.resolved import ResolvedMethod
from workflows.search.proposals import FixedTrials
from workflows.search.trials import (
    Configuration,
    Record,
    best_first,
    configuration,
    pack_size,
    telling,
    try_pack,
)
from workflows.steps.code import code_of, method_code
from workflows.steps.measures import measured

if TYPE_CHECKING:
    from workflows.methods.inputs.states import TaskFeatures

Inputs = Mapping[str, Step]  # role -> step: train, train_labels, test, verbalizer, head, basis, content_free, ...


@dataclass(frozen=True)
class Conditions:
    """What all methods have in common that compete on a task under a model.

    Attributes:
        labels: names of the classes, in order.
        metric: by which settings are chosen.
        train_size: training rows of each class, or "full".
        reading: what decides prompts and the model that reads them, for methods that are given prompts.
        place: where that model lies and is trained; no part of a key.
        gpus: of each search or fit on stored states, where the method uses one; None: one where there is any.
    """

    labels: Sequence[str]
    metric: Metric
    train_size: int | str
    reading: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)
    gpus: float | None = None


def search_step(
    method: ResolvedMethod,
    where: str,
    inputs: Inputs,
    conditions: Conditions,
    seed: int,
    settings: Sequence[Mapping[str, Any]],
) -> Step:
    """The search on validation rows."""
    return Step(
        name="search",
        label=f"search {where}",
        version=2,
        run="workflows.steps.fit:fill_search",
        identity={
            **method_identity(method, inputs, conditions, seed),
            "settings": settings,
            "metric": conditions.metric,
        },
        inputs=inputs_of(method.needs(searched=True) | {"train"}, inputs, with_test=False),
        local={**method_local(method.method), "gpus": gpus_of(method.method, conditions.gpus)},
        resources=Resources(gpus=gpus_of(method.method, conditions.gpus)),
        cost="search",
        files=method_files(method.method),
        sources=code_of(fill_search, *method_code(method.method)),
    )


def fill_search(work: StepContext) -> dict[str, float]:
    """trials.json: each configuration's record, and the best settings. Returns what the work took."""
    method, materials = method_of(work), materials_of(work, device=device_of(work))
    tried = [configuration(method, given, work.identity["seed"]) for given in work.identity["settings"]]
    import_sources(method)
    size = partial(pack_size, method, materials, os.cpu_count() or 1)
    setup = {"work": work, "method": method, "materials": materials}
    before = seconds_spent(work.scratch)
    with naming_the_file(method), measured() as took:
        records = search(
            "workflows.steps.fit:try_here",
            setup,
            FixedTrials(method, tried, size, 1),
            WorkerSlots(0, 1, 0),
            Stopping("none", 1, 1),
            None,
            work.scratch,
        )
    write_trials(work, method, tried, records)
    took["work_seconds"] = round(took["work_seconds"] + before, 4)
    return took


def try_here(setup: Mapping[str, Any], pack: Sequence[Configuration], watch: Any) -> list[Record]:
    """Try a pack out in the process of the search."""
    work: StepContext = setup["work"]
    with telling(work, pack):
        return try_pack(setup["method"], setup["materials"], pack, work.identity["metric"])


def write_trials(work: StepContext, method: Method, tried: Sequence[Configuration], records: Sequence[Record]) -> None:
    """trials.json: the records in the order of what was tried, and the settings of the best.

    Raises ConfigError where no trial has a result.
    """
    found = {record["key"]: record for record in records}
    in_order = [found[one["key"]] for one in tried]
    best = best_first(in_order)
    if not best:
        raise ConfigError(f"{method.name}: every trial of the search failed; the first: {in_order[0]['error']}")
    work.out.write("trials.json", json_bytes({"trials": in_order, "best": best[0]["settings"]}))


def fit_step(
    method: ResolvedMethod, where: str, inputs: Inputs, conditions: Conditions, seed: int, search: Step | None
) -> Step:
    """One fit with the searched or given settings, and its predictions on the test states (not their labels)."""
    read = inputs_of(method.needs(searched=search is not None), inputs, with_test=True)
    return Step(
        name="fit",
        label=f"fit {where} seed {seed}",
        version=2,
        run="workflows.steps.fit:fill_fit",
        identity={
            **method_identity(method, inputs, conditions, seed),
            "settings": method.whole_settings,
            **({"folds": method.config.folds, "mean_of_folds": MEAN_OF_FOLDS} if method.config.folds > 1 else {}),
            **({"held_out": False} if "demonstrations" in read and not method.method.holds_out else {}),
        },
        inputs={**read, **({"search": search} if search else {})},
        local={**method_local(method.method), "gpus": gpus_of(method.method, conditions.gpus)},
        resources=Resources(gpus=gpus_of(method.method, conditions.gpus)),
        cost="fit",
        files=method_files(method.method),
        remarks="workflows.steps.remarks:smaller_classes",
        sources=code_of(fill_fit, *method_code(method.method)),
    )


def fill_fit(work: StepContext) -> dict[str, float]:
    """fitted.safetensors, a shard of row_id, prediction and scores [classes], and fit.json.

    Returns what fit and prediction took, without imports and loading: a worker's start is no method's cost.
    """
    import numpy as np
    from safetensors.torch import save

    from orchestration.store.arrow import ROW_ID, table_of
    from vocabsem_core.numerics.ticks import listening
    from workflows.methods.inputs.states import read_column

    method = method_of(work)
    materials = materials_of(work, device=device_of(work), hold_out=method.holds_out)
    searched = work.inputs["search"].json("trials.json")["best"] if "search" in work.inputs else {}
    settings = method.Settings.model_validate({**work.identity["settings"], **searched})
    folds, states = work.identity.get("folds", 1), materials.load()
    import_sources(method)
    with naming_the_file(method), listening(work.tell), measured() as took:
        fitted = fit_folds(method, settings, materials, work.identity["seed"], folds)
        scores = predict_folds(method, settings, fitted, states, materials, folds)
        check_scores(method, scores, len(states), len(materials.labels))
    columns = {"prediction": scores.argmax(dim=1).numpy().astype(np.int32), "scores": scores.float().numpy()}
    work.out.write_shard(0, table_of(read_column(work.inputs["test"], ROW_ID), columns))
    # A method of the user's own may return views of one tensor, which safetensors refuses.
    work.out.write("fitted.safetensors", save({name: plain_copy(tensor) for name, tensor in fitted.items()}))
    record = {
        "settings": settings.model_dump(mode="json"),
        "trained_weights": trained_in_folds(method, fitted, folds),
        **_unlabelled(method, materials, work),
        **({"smaller_classes": smaller} if (smaller := materials.smaller_classes) else {}),
    }
    work.out.write("fit.json", json_bytes(record))
    return took


def _unlabelled(method: Method, materials: TaskFeatures, work: StepContext) -> dict[str, int]:
    """How many training rows were read without their labels, where it is more than those that it learns from."""
    if "unlabelled" not in method.reads(work.identity["settings"], ()):
        return {}
    learned = materials.labelled_rows if "train_labels" in work.inputs else 0
    rows = work.inputs["train"].rows
    return {"unlabelled_rows": rows} if rows > learned else {}


def import_sources(method: Method) -> None:
    """So that imports are no part of what is measured."""
    for module in code_of(fill_fit, *method_code(method)):
        import_module(module)


def score_step(where: str, fits: Mapping[int, Step], labels: Step, n_classes: int, metric: str) -> Step:
    """The score over seeds: the only step that reads test labels."""
    return Step(
        name="score",
        label=f"score {where}",
        version=3,  # 3: macro-F1's interval leaves out the classes that a draw has not
        run="workflows.steps.fit:fill_score",
        identity={"classes": n_classes, "metric": metric, "seeds": sorted(fits)},
        inputs={"labels": labels, **{f"fit_{seed}": step for seed, step in fits.items()}},
        sources=code_of(fill_score),
    )


def fill_score(work: StepContext) -> None:
    """score.json: every metric with its interval, the confusion matrix, whether all predictions are one class."""
    import numpy as np

    from orchestration.store.arrow import ROW_ID
    from vocabsem_core.statistics.metrics import confusion, expected_calibration_error, score
    from vocabsem_core.statistics.temperature import probabilities
    from workflows.methods.inputs.states import read_column

    fits = [work.inputs[f"fit_{seed}"] for seed in work.identity["seeds"]]
    rows = read_column(fits[0], ROW_ID)
    labels = read_column(work.inputs["labels"], "label")[rows]
    predictions = np.stack([read_column(fit, "prediction") for fit in fits])
    classes = work.identity["classes"]
    scores = {metric: score(predictions, labels, classes, metric) for metric in ("accuracy", "macro_f1")}
    chances = [probabilities(read_column(fit, "scores")) for fit in fits]
    record = {
        "metric": work.identity["metric"],
        "n_test": len(labels),
        "scores": {
            name: {"mean": s.mean, "low": s.low, "high": s.high, "sd_seeds": s.sd_seeds, "by_seed": s.by_seed}
            for name, s in scores.items()
        },
        "calibration_error": float(np.mean([expected_calibration_error(p, labels) for p in chances])),
        "confusion": confusion(predictions, labels, classes).tolist(),
        "constant_prediction": bool(np.any(np.all(predictions == predictions[:, :1], axis=1))),
    }
    work.out.write("score.json", json_bytes(record))


def method_identity(method: ResolvedMethod, inputs: Inputs, conditions: Conditions, seed: int) -> dict[str, Any]:
    """What a method reads of the task: one without training does not depend on the training size."""
    trained = {"train_size": conditions.train_size} if method.learns else {}
    layer = layers_read(method.config.layer, inputs["test"].identity["layers"])
    return {**code_identity(method.method), "layer": layer, "labels": conditions.labels, **trained, "seed": seed}


def code_identity(method: Method) -> dict[str, Any]:
    """Which method, and which code of it."""
    own = {"source": method.source_digest} if method.source_digest is not None else {}
    return {"method": method.name, "method_version": method.version, **own}


def method_files(method: Method) -> tuple[str, ...]:
    """The files of a user's own method or adapter."""
    return method.files


def method_local(method: Method) -> dict[str, Any]:
    """Where a worker finds a user's own method or adapter."""
    return {"method_file": method.source_file} if method.source_file is not None else {}


def gpus_of(method: Method, asked: float | None) -> float | None:
    """What one of its searches or fits reserves of GPUs; None: one where there is any."""
    return asked if method.uses_gpu else 0.0


def device_of(work: StepContext) -> str:
    """Where a step's batched work runs: on the GPU that it reserved, if there is one."""
    import torch

    return "cuda" if work.local["gpus"] != 0 and torch.cuda.is_available() else "cpu"


def inputs_of(needs: Collection[Need], materials: Inputs, with_test: bool) -> dict[str, Step]:
    """Only what a method reads, so that a change elsewhere does not rerun it."""
    roles = {
        "train": ("train", "train_labels", *(role for role in ("demonstrations",) if role in materials)),
        "unlabelled": ("train",),
        "head": ("verbalizer", "head") if "head" in materials else (),  # whole words are scored without it
        "basis": ("verbalizer", "basis"),
        "spectrum": ("verbalizer", "head", "spectrum"),
        "embedding": ("verbalizer", "embedding"),
        "content_free": ("content_free",),
    }
    needed = {role for need in needs for role in roles[need]} | ({"test"} if with_test else set())
    return {role: materials[role] for role in sorted(needed)}


def method_of(work: StepContext) -> Method:
    """The method a step is about. Raises ConfigError where a user's own file is no longer the one that was planned."""
    method = method_named(work.local.get("method_file", work.identity["method"]))
    if method.source_digest != work.identity.get("source"):
        raise ConfigError(f"{method.source_file}: has changed since the run began; run again")
    return method


def materials_of(work: StepContext, **changes: Any) -> Any:
    """What the method of a step sees of it; `changes` to the fields of TaskFeatures."""
    from workflows.methods.inputs.states import TaskFeatures

    identity = work.identity
    fields = {"train_size": identity.get("train_size", "full"), "seed": identity["seed"], **changes}
    return TaskFeatures(work.inputs, identity["layer"], list(identity["labels"]), **fields)
