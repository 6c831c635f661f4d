"""Steps on rows without labels: what a fit predicts of them, and before that how sure it is on rows that are known.

A fit with stored states predicts from the new rows' states, which an `encode` step has made; one that trained the
language model reads their prompts, a shard at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.store.artifacts import Artifact
from orchestration.store.files import json_bytes
from vocabsem_core.names import WHOLE
from workflows.methods.base import Method, check_scores, plain_scores
from workflows.methods.custom import naming_the_file
from workflows.methods.ensembles import first_member, predict_folds
from workflows.steps.code import code_of, method_code
from workflows.steps.finetune import texts_of
from workflows.steps.fit import Inputs, device_of, materials_of, method_of
from workflows.steps.measures import measured, numerics

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

VALIDATION, CERTAINTY = "validation.json", "certainty.json"
_FAR = 0.99  # of the validation rows are nearer to the training rows than a row that is called far
_ROWS = 1024  # that are predicted at a time
# Roles of a fit's inputs: the rows that it predicts, and what tells rows that were learned from.
_NEW = ("test", "test_texts")
_KNOWN = ("train", "train_labels", "demonstrations")


def validation_step(fit: Step, method: Method, read: Inputs, metric: str, size: int | str) -> Step:
    """What a fit comes to on the validation rows of its training size.

    Args:
        fit: the fit; its own predictions of test rows have no say.
        method: whose fit it is.
        read: all that the method may read, by role.
        metric: the score.
        size: training rows per class, or "full".
    """
    learned = {role: step for role, step in fit.inputs.items() if role not in (*_NEW, "search")}
    known = {role: read[role] for role in _KNOWN if role in read}
    if method.input_kind == "prompts":
        known = {"train_texts": read["train_rows"], "train_labels": read["train_labels"]}
    return replace(
        fit,
        name="validation",
        label=f"validation {fit.label.partition(' ')[2]}",
        version=1,
        run="workflows.steps.prediction:fill_validation",
        identity={**fit.identity, "metric": metric, "train_size": size},
        inputs={"fit": fit, **learned, **known},
        resources=Resources(cpus=None, gpus=_gpus(fit)),
        workers=None,
        cost="",
        remarks="",
        sources=code_of(fill_validation, *method_code(method)),
    )


def fill_validation(work: StepContext) -> dict[str, float]:
    """validation.json: rows, score, temperature, and the distance to the training rows that few validation rows reach.

    Where no row is held out there is nothing but `rows`, 0. A method that learns from all rows is fitted once more
    without these; of several folds the first one's fit is asked, which has not seen them.
    """
    import torch

    from vocabsem_core.statistics.temperature import fit_temperature

    method, materials = method_of(work), seen(work, hold_out=True)
    if not materials.has_validation:
        work.out.write(VALIDATION, json_bytes({"rows": 0}))
        return {}
    with naming_the_file(method), measured() as took:
        settings, fitted = fit_of(work.inputs["fit"], method)
        if not method.holds_out:
            fitted = method.fit(settings, materials, work.identity["seed"])
        rows, labels = materials.held_out
        parts = torch.arange(len(labels)).split(_ROWS)
        member = first_member(fitted, work.identity.get("folds", 1))
        predicted_parts = (method.predict(settings, member, rows[part], materials) for part in parts)
        found = torch.cat([plain_scores(method, scores) for scores in predicted_parts])
    check_scores(method, found, len(labels), len(materials.labels))
    scores = found.float().numpy()
    record = {
        "rows": len(labels),
        "score": _score(scores, labels.numpy(), work.identity["metric"]),
        "temperature": fit_temperature(scores, labels.numpy()),
    }
    if knows_distances(method, materials):
        gaps = distances(torch.cat([rows[part] for part in parts]), materials)
        record["far"] = float(gaps.quantile(_FAR))
    work.out.write(VALIDATION, json_bytes(record))
    return took


def certainty_step(fit: Step, validation: Step, labels: Step) -> Step:
    """How far a fit's probabilities are from its hits on the run's test rows, whose labels have no say in anything."""
    return Step(
        name="certainty",
        label=f"certainty {fit.label.partition(' ')[2]}",
        version=1,
        run="workflows.steps.prediction:fill_certainty",
        identity={},
        inputs={"fit": fit, "validation": validation, "labels": labels},
        sources=code_of(fill_certainty),
    )


def fill_certainty(work: StepContext) -> None:
    """certainty.json: rows, and the expected calibration error before and after the temperature."""
    from orchestration.store.arrow import ROW_ID
    from vocabsem_core.statistics.metrics import expected_calibration_error
    from vocabsem_core.statistics.temperature import probabilities
    from workflows.methods.inputs.states import read_column

    fit = work.inputs["fit"]
    labels, scores = read_column(work.inputs["labels"], "label")[read_column(fit, ROW_ID)], read_column(fit, "scores")
    temperature = work.inputs["validation"].json(VALIDATION).get("temperature", 1.0)
    before, after = (expected_calibration_error(probabilities(scores, t), labels) for t in (1.0, temperature))
    work.out.write(CERTAINTY, json_bytes({"rows": len(labels), "before": float(before), "after": float(after)}))


def predict_step(fit: Step, method: Method, validation: Step, new: Step) -> Step:
    """Labels of new rows.

    Args:
        fit: the fit that predicts.
        method: whose fit it is.
        validation: what is known of it.
        new: the same fit as if the new rows were its test rows: what it reads of them is read here.
    """
    if method.input_kind == "prompts":
        return _by_prompts(fit, method, validation, new)
    read = {role: step for role, step in new.inputs.items() if role != "search"}
    known = {role: step for role, step in validation.inputs.items() if role in _KNOWN}
    return replace(
        new,
        name="predict",
        label=f"predict {fit.label.partition(' ')[2]}",
        version=1,
        run="workflows.steps.prediction:fill_predictions",
        identity={**new.identity, "train_size": validation.identity["train_size"]},
        inputs={"fit": fit, "validation": validation, **read, **known},
        resources=Resources(cpus=None, gpus=_gpus(fit)),
        cost="",
        remarks="",
        sources=code_of(fill_predictions, *method_code(method)),
    )


def _by_prompts(fit: Step, method: Method, validation: Step, new: Step) -> Step:
    """The same for a fit that trained the language model: of the training rows nothing is read."""
    read = {role: step for role, step in new.inputs.items() if role in ("verbalizer", "test_texts")}
    return replace(
        new,
        name="predict",
        label=f"predict {fit.label.partition(' ')[2]}",
        version=1,
        run="workflows.steps.prediction:PromptPredictor",
        inputs={"fit": fit, "validation": validation, **read},
        setup=dict(new.local),
        resources=Resources(cpus=None, gpus=_gpus(fit), workers=1),
        workers=None,
        cost="",
        remarks="",
        sources=code_of(PromptPredictor, *method_code(method)),
    )


def fill_predictions(work: StepContext) -> dict[str, float]:
    """Shards of row_id, prediction, scores and probabilities; of texts cut, where it is known the distance."""
    from orchestration.store.arrow import ROW_ID, column_array, read_table, table_of

    method, test = method_of(work), work.inputs["test"]
    materials, known = seen(work, hold_out=method.holds_out), seen(work, hold_out=True)
    near = materials.has_train and "far" in work.inputs["validation"].json(VALIDATION)
    with naming_the_file(method), measured() as took:
        settings, fitted = fit_of(work.inputs["fit"], method)
        for shard, path in enumerate(test.shards()):
            table = read_table(path)
            states = materials.states_of(lambda name, table=table: column_array(table, name))
            scores = predict_folds(method, settings, fitted, states, materials, work.identity.get("folds", 1))
            check_scores(method, scores, len(states), len(materials.labels))
            columns = predicted(work, scores)
            if "cut" in table.column_names:  # of texts alone
                columns["cut"] = column_array(table, "cut")
            if near:
                columns["distance"] = distances(states, known).numpy()
            work.out.write_shard(shard, table_of(column_array(table, ROW_ID), columns))
            work.tell(shard + 1, len(test.manifest["shards"]), "shards")
    return took


class PromptPredictor:
    """Fills shards of predictions by a language model that was trained: the model is read with the first shard."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        from vocabsem_core.numerics.memory import keep_freed_memory

        keep_freed_memory()

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return len(work.inputs["test_texts"].manifest["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        """row_id, prediction, scores, probabilities and cut of a shard of texts."""
        import numpy as np

        from orchestration.store.arrow import ROW_ID, column_array, read_table, table_of
        from vocabsem_core.numerics.ticks import listening
        from workflows.inputs.tables import field_columns, row_names
        from workflows.methods.inputs.prompts import read_prompts

        texts = read_table(work.inputs["test_texts"].shard(shard))
        method, materials = method_of(work), seen(work)
        settings, fitted = fit_of(work.inputs["fit"], method)
        rows = column_array(texts, ROW_ID)
        found: list[Any] = materials.prompts_of(field_columns(texts).to_pylist(), row_names(rows.tolist()))

        def heard(*told: Any, **more: Any) -> None:
            work.tell(*told, **more)
            work.report_alive(shard)

        with listening(heard), measured() as took:
            prompts: Any = read_prompts(found)
            scores = method.predict(settings, fitted, prompts, materials)
        check_scores(method, scores, len(rows), len(materials.labels))
        columns = {**predicted(work, scores), "cut": np.array([prompt.cut for prompt in found], dtype=np.int32)}
        work.out.write_shard(shard, table_of(rows, columns), numerics(materials.device), took)


def predicted(work: StepContext, scores: Tensor) -> dict[str, np.ndarray]:
    """The columns of class scores: the class, the scores, and probabilities as sure as the validation rows allow."""
    import numpy as np

    from vocabsem_core.statistics.temperature import probabilities

    temperature = work.inputs["validation"].json(VALIDATION).get("temperature", 1.0)
    chances = probabilities(scores.float().numpy(), temperature)
    return {
        "prediction": scores.argmax(dim=1).numpy().astype(np.int32),
        "scores": scores.float().numpy(),
        "probabilities": chances.astype(np.float32),
    }


def fit_of(fit: Artifact, method: Method) -> tuple[Any, dict[str, Tensor]]:
    """The settings of a stored fit, and what it learned."""
    from safetensors.torch import load

    settings = method.Settings.model_validate(fit.json("fit.json")["settings"])
    return settings, load(fit.path("fitted.safetensors").read_bytes())


def knows_distances(method: Method, materials: Any) -> bool:
    """Whether rows are known by states, of which there are some to be near to."""
    return method.input_kind == "features" and materials.layer != WHOLE and materials.has_train


def distances(states: Tensor, materials: Any) -> Tensor:
    """Cosine distance of each state to the nearest training state, seen from the training states' mean, [n]."""
    from vocabsem_core.baselines.knn import nearest

    train = materials.train.states
    centre = train.mean(dim=0)
    return nearest(states - centre, train - centre, 1, "cosine")[0][:, 0]


def seen(work: StepContext, **changes: Any) -> Any:
    """What the method of a step sees of it: `TaskFeatures`, or `Texts`, whose validation rows are always held out."""
    import torch

    if "reading" in work.identity:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return texts_of(work, work.identity["seed"], device)
    return materials_of(work, device=device_of(work), **changes)


def _score(scores: Any, labels: Any, metric: Any) -> float:
    import numpy as np

    from vocabsem_core.statistics.metrics import metric_of

    return float(
        metric_of(scores.argmax(axis=1)[None], labels, scores.shape[1], metric, np.ones((1, len(labels))))[0, 0]
    )


def _gpus(fit: Step) -> float | None:
    return fit.workers.gpus if fit.workers is not None else fit.resources.gpus
