"""Steps that train the language model: a search for settings, and the fit of a seed.

Where a step on stored states is one function on one core, these hand their work out: trials to workers of Ray Tune, a
fit to a worker group of Ray Train, which shares each batch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.train import WorkerContext, run_workers, seats
from orchestration.ray_backend.tune import WorkerSlots, room, search
from orchestration.store.files import json_bytes, stage
from workflows.config.compare import CompareExecution, Encoding
from workflows.config.task import prompt_template
from workflows.inputs.catalog import Task
from workflows.inputs.models import Model, token_limit
from workflows.methods.base import Method, check_scores
from workflows.methods.resolved import ResolvedMethod
from workflows.search.proposals import FixedTrials
from workflows.search.trials import Configuration, configuration, telling, try_pack
from workflows.steps.code import code_of, method_code
from workflows.steps.fit import (
    Conditions,
    Inputs,
    code_identity,
    method_files,
    method_local,
    method_of,
    write_trials,
)
from workflows.steps.measures import largest, measured, numerics

if TYPE_CHECKING:
    from vocabsem_core.finetuning.trainer import Finetuning
    from workflows.methods.finetuned import Finetuned
    from workflows.methods.inputs.prompts import Texts

TRIAL_ROWS = 1000  # training rows of a trial at most: equal trials for every method would else cost hours here
_STATE, _SPENT = "state.safetensors", "spent.json"  # of a checkpoint
_DONE = "done.safetensors"  # in the scratch folder: what the workers leave


def reading_of(model: Model, task: Task, encoding: Encoding, execution: CompareExecution) -> dict[str, Any]:
    """What decides the prompts and the model that reads them: the fields of an encoding that matter here."""
    return {
        "model": model.weights,
        "tokenizer": model.tokenizer,
        "template": prompt_template(task.config, model.kind),
        "max_tokens": token_limit(model.window, encoding),
        "dtype": model.dtype(execution.gpus_per_trainer),
        "kind": model.kind,
    }


def place_of(model: Model, execution: CompareExecution) -> dict[str, Any]:
    """Where the model lies and is trained: no part of a key. `bf16`: whether its products are fast there."""
    return {
        "bf16": model.machine.bf16(execution.gpus_per_trainer),
        "folder": str(model.folder),
        "stamp": model.stamp,
        "vocabulary": model.kept_rows,
        **{
            name: getattr(execution, name) for name in ("executor", "trainers", "cores_per_trainer", "gpus_per_trainer")
        },
    }


def search_step(
    method: ResolvedMethod,
    where: str,
    inputs: Inputs,
    conditions: Conditions,
    seed: int,
    settings: Sequence[Mapping[str, Any]],
) -> Step:
    """The search on validation rows, each trial on few training rows."""
    return Step(
        name="search",
        label=f"search {where}",
        version=3,  # 3: passes follow the model's size, and masks of dropout the passes
        run="workflows.steps.finetune:fill_search",
        identity={
            **_identity(method, conditions, seed),
            "settings": settings,
            "metric": conditions.metric,
            "trial_rows": TRIAL_ROWS,
        },
        inputs=_inputs(inputs, method),
        local={**method_local(method.method), **conditions.place},
        resources=Resources(cpus=0, waits=True),  # the workers reserve cores and GPUs of their own
        workers=_reserved(conditions.place, 1.0, None),  # a trial on each core, or GPU
        cost="search",
        files=(*inputs["verbalizer"].files, *method_files(method.method)),  # the model's, and the user's own
        sources=code_of(fill_search, *method_code(method.method)),
    )


def fill_search(work: StepContext) -> dict[str, float]:
    """trials.json: each configuration's record with what it took, and the best settings. Returns what all took."""
    method, identity = method_of(work), work.identity
    tried = [configuration(method, given, identity["seed"]) for given in identity["settings"]]
    places = _places(work.local)
    records = search(
        "workflows.steps.finetune:try_on_worker",
        {"work": work, "threads": max(1, int(places.cpus)) if places.concurrent else None, "gpus": places.gpus},
        FixedTrials(method, tried, lambda one: 1, max(1, places.concurrent)),
        places,
        Stopping("none", 1, 1),
        None,
        work.scratch,
    )
    write_trials(work, method, tried, records)
    seconds = sum(record.get("seconds", 0.0) for record in records)  # a lost one's worker could not say
    return {"work_seconds": round(seconds, 4), **largest(*(record.get("peaks", {}) for record in records))}


def _places(local: Mapping[str, Any]) -> WorkerSlots:
    """Where trials are tried: one a core, or one a GPU."""
    return WorkerSlots(0, 1, 0) if local["executor"] == "inline" else room(None, 1.0, local["gpus_per_trainer"])


def try_on_worker(setup: Mapping[str, Any], pack: Sequence[Configuration], watch: Any) -> list[dict[str, Any]]:
    """Train with each configuration of a pack, on whatever this process was given, one after another."""
    import torch

    work: StepContext = setup["work"]
    if setup["threads"] is not None:
        torch.set_num_threads(setup["threads"])
    texts = texts_of(work, work.identity["seed"], "cuda" if setup["gpus"] else "cpu", work.identity["trial_rows"])
    _load(texts)
    method, records = method_of(work), []
    fewer = {"rows": len(texts.stored_train.labels)} if texts.shortened else {}
    for one in pack:
        with telling(work, [one]), measured() as took:
            (record,) = try_pack(method, texts, [one], work.identity["metric"], watch)
        records.append({**record, "seconds": took.pop("work_seconds"), "peaks": took, **fewer})
    return records


def fit_step(
    method: ResolvedMethod, where: str, inputs: Inputs, conditions: Conditions, seed: int, search: Step | None
) -> Step:
    """A fit with the searched or given settings, and its predictions on the test rows (not their labels)."""
    return Step(
        name="finetune",
        label=f"finetune {where} seed {seed}",
        version=3,  # 3: passes follow the model's size, and masks of dropout the passes
        run="workflows.steps.finetune:fill_finetune",
        identity={**_identity(method, conditions, seed), "settings": method.whole_settings},
        inputs={
            **_inputs(inputs, method),
            "test_texts": inputs["test_rows"],
            **({"search": search} if search else {}),
        },
        local={**method_local(method.method), **conditions.place},
        resources=Resources(cpus=0, waits=True),
        workers=_reserved(conditions.place, conditions.place["cores_per_trainer"], conditions.place["trainers"] or 1),
        cost="fit",
        files=(*inputs["verbalizer"].files, *method_files(method.method)),
        remarks="workflows.steps.remarks:of_finetuning",
        sources=code_of(fill_finetune, *method_code(method.method)),
    )


def fill_finetune(work: StepContext) -> dict[str, float]:
    """fitted.safetensors, a shard of row_id, prediction and scores [classes], and fit.json.

    Returns the seconds of training and prediction, and their peaks of memory: with several workers, of the one that
    had most.
    """
    import numpy as np
    from safetensors.torch import save

    from orchestration.store.arrow import ROW_ID, table_of
    from workflows.methods.inputs.states import read_column

    if not (work.scratch / _DONE).is_file():
        local, alone = work.local, work.local["executor"] == "inline"
        asked = local["trainers"] or 1, local["cores_per_trainer"], local["gpus_per_trainer"]
        workers, cores, gpus = (0, 1.0, 0.0) if alone else seats(*asked)
        config = {"work": work, "threads": max(1, int(cores)) if workers else None}
        run_workers("workflows.steps.finetune:train", config, work.scratch, workers, cores, gpus, "batch_size")
    record, took, made, scores, weights = _read_done(work.scratch / _DONE)
    rows = read_column(work.inputs["test_texts"], ROW_ID)
    check_scores(method_of(work), scores, len(rows), len(work.identity["labels"]))
    columns = {"prediction": scores.argmax(dim=1).numpy().astype(np.int32), "scores": scores.numpy()}
    work.out.write_shard(0, table_of(rows, columns), made)
    work.out.write("fitted.safetensors", save(weights))
    work.out.write("fit.json", json_bytes(record))
    return took


def train(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """One worker's part of a fit, from the last checkpoint on."""
    import torch

    from vocabsem_core.finetuning.adapters import adapted
    from vocabsem_core.finetuning.trainer import ProcessGroup
    from vocabsem_core.numerics.distributed import from_all_processes
    from vocabsem_core.numerics.memory import forget_peaks, keep_freed_memory, peak_bytes
    from vocabsem_core.numerics.ticks import listening

    work: StepContext = config["work"]
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    keep_freed_memory()
    method, settings = _settled(work)
    device = seat.device or ("cuda" if torch.cuda.is_available() else "cpu")
    seed, team = work.identity["seed"], ProcessGroup(seat.rank, seat.world)
    texts = texts_of(work, seed, device)
    _load(texts)
    forget_peaks()
    heard = listening(work.tell) if seat.rank == 0 else nullcontext()
    with heard, adapted(texts.model, method.adaptation(settings), seed) as weights:
        fit = method.begin(settings, seed, texts, weights, team=team)
        seconds, peaks = _resume(fit, seat.checkpoint)
        while not fit.over:
            started = time.perf_counter()
            fit.epoch()
            seconds += time.perf_counter() - started
            peaks = largest(peaks, *from_all_processes(peak_bytes(), seat.world))
            seat.keep(partial(_save, fit, seconds, peaks))
        started = time.perf_counter()
        fit.use_best()
        scores = texts.classifier.scores(texts.test, team)
        seconds += time.perf_counter() - started
    peaks = largest(peaks, *from_all_processes(peak_bytes(), seat.world))
    if seat.rank == 0:
        record = {
            "settings": settings.model_dump(mode="json"),
            "trained_weights": method.trained_weights(fit.best),
            "cut": texts.cut,
            **({"smaller_classes": smaller} if (smaller := texts.smaller_classes) else {}),
            "losses": fit.losses,
        }
        took = {"work_seconds": round(seconds, 4), **peaks}
        made = {**numerics(device), **texts.classifier.numerics, "workers": seat.world}
        _write_done(seat.scratch / _DONE, record, took, made, scores, fit.best)


def _settled(work: StepContext) -> tuple[Finetuned, Any]:
    """The method, and the searched or given settings."""
    method = _finetuned(method_of(work))
    searched = work.inputs["search"].json("trials.json")["best"] if "search" in work.inputs else {}
    return method, method.Settings.model_validate({**work.identity["settings"], **searched})


def _resume(fit: Finetuning, checkpoint: Path | None) -> tuple[float, dict[str, float]]:
    """Go on from the checkpoint; the seconds the fit has taken, and its peaks of memory."""
    if checkpoint is None:
        return 0.0, {}
    fit.load(checkpoint / _STATE)
    spent = json.loads((checkpoint / _SPENT).read_text(encoding="utf-8"))
    return spent["seconds"], spent["peaks"]


def _save(fit: Finetuning, seconds: float, peaks: Mapping[str, float], folder: Path) -> None:
    fit.save(folder / _STATE)
    (folder / _SPENT).write_bytes(json_bytes({"seconds": seconds, "peaks": dict(peaks)}))


def _write_done(path: Path, record: Any, took: Any, made: Any, scores: Any, weights: Mapping[str, Any]) -> None:
    from vocabsem_core.numerics.checkpoint import save_state

    tensors = {"scores": scores, **{f"weights/{name}": value for name, value in weights.items()}}
    metadata = {"record": json.dumps(record), "took": json.dumps(took), "made": json.dumps(made)}
    os.replace(stage(path.parent, path.name, lambda place: save_state(place, tensors, metadata)), path)


def _read_done(path: Path) -> tuple[Any, dict[str, float], dict[str, Any], Any, dict[str, Any]]:
    """What is recorded of a fit, what it took, what it was computed with, its scores, and its weights."""
    from vocabsem_core.numerics.checkpoint import below, load_state

    tensors, metadata = load_state(path)
    record, took, made = (json.loads(metadata[name]) for name in ("record", "took", "made"))
    return record, took, made, tensors["scores"], below(tensors, "weights")


def _reserved(place: Mapping[str, Any], cores: float | None, workers: int | None) -> Resources | None:
    """What each worker reserves, where there are any."""
    return None if place["executor"] == "inline" else Resources(cores, place["gpus_per_trainer"], workers)


def _identity(method: ResolvedMethod, conditions: Conditions, seed: int) -> dict[str, Any]:
    read = {"labels": conditions.labels, **({"train_size": conditions.train_size} if method.learns else {})}
    reading = {**conditions.reading, **({"dtype": "float32"} if _finetuned(method.method).whole else {})}
    if conditions.place["bf16"] and reading["dtype"] != "bfloat16":
        reading["products"] = "bfloat16"
    return {**code_identity(method.method), **read, "reading": reading, "seed": seed}


def _finetuned(method: Method) -> Finetuned:
    """The steps of this file are made for methods that are given prompts: all are of this class."""
    return cast("Finetuned", method)


def _inputs(inputs: Inputs, method: ResolvedMethod) -> dict[str, Step]:
    learned = {"train_texts": inputs["train_rows"], "train_labels": inputs["train_labels"]} if method.learns else {}
    return {**learned, "verbalizer": inputs["verbalizer"]}


def texts_of(work: StepContext, seed: int, device: str, most: int | None = None) -> Any:
    """What the method sees of its task."""
    from workflows.methods.inputs.prompts import Texts

    identity, place = work.identity, (Path(work.local["folder"]), work.local["stamp"])
    rows = {"train_size": identity.get("train_size", "full"), "seed": seed, "most": most, "device": device}
    labels, vocabulary = list(identity["labels"]), work.local["vocabulary"]
    return Texts(work.inputs, identity["reading"], *place, labels, **rows, vocabulary=vocabulary)


def _load(texts: Texts) -> None:
    """Read everything and import everything, so that neither is part of what is measured."""
    import peft  # noqa: F401

    _ = texts.classifier
    if "train_texts" in texts.inputs:
        _ = texts.stored_train
    if "test_texts" in texts.inputs:
        _ = texts.test
