"""A fit as an MLflow model: texts in, labels out, the labels that the run recorded. MLflow calls `_load_pyfunc`.

It holds what was fitted, as safetensors, and what the prompts were; of the language model it holds the digest and the
folder it lay in, since copying gigabytes into every run helps nobody. The weights that `full` trained stay where they
are as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.graph import Step
from orchestration.store.artifacts import Artifact, Store
from orchestration.tracking.tracker import TrackedModel
from workflows.errors import ConfigError
from workflows.methods.adapter import PeftAdapter
from workflows.methods.registry import method_named
from workflows.serving.scoring import by_prompts, by_states

_FITTED, _DESCRIPTION, _OWN = "fitted.safetensors", "classifier.json", "method.py"


def tracked_model(fit: Step, store: Store) -> TrackedModel | None:
    """The MLflow model of a fit, None where its method needs more than what was fitted to predict."""
    method = method_named(fit.local.get("method_file", fit.identity["method"]))
    artifact = store.find(fit)
    tuned = method.input_kind == "prompts"
    told = _of_prompts(fit, store) if tuned else _of_states(fit)
    if artifact is None or told is None or not (tuned or method.portable):
        return None
    if method.name == PeftAdapter.name:
        return None  # an adapter is a file of its user's already
    fields = sorted((fit.inputs["test_texts"] if tuned else fit.inputs["test"].inputs["texts"]).identity["fields"])
    description = {
        **told,
        "method": method.name,
        "source": fit.identity.get("source"),  # of a user's own method, as it was fitted
        "settings": artifact.json("fit.json")["settings"],
        "labels": fit.identity["labels"],
        "fields": fields,
    }
    own = {_OWN: Path(method.source_file)} if method.source_file is not None else {}
    folder = fit.local["folder"] if tuned else (fit.inputs["test"].setup or {})["folder"]
    config, files = _weights(artifact, whole=tuned and getattr(method, "whole", False))
    return TrackedModel(
        loader=__name__,
        inputs=tuple(fields) if len(fields) > 1 else (),
        config={"model": folder, **config},
        files={**files, **own},
        documents={_DESCRIPTION: description},
    )


def _of_states(fit: Step) -> dict[str, Any] | None:
    """How states are read; None where these are not states of bare prompts."""
    encode = fit.inputs.get("test")
    if encode is None or encode.setup is None or set(encode.inputs) != {"texts"}:
        return None
    prompts = {name: encode.identity[name] for name in sorted(encode.identity)}
    return {"folds": fit.identity.get("folds", 1), "layers": fit.identity["layer"], "prompts": prompts}


def _of_prompts(fit: Step, store: Store) -> dict[str, Any] | None:
    """How prompts are read; None where the label words' tokens are not there."""
    verbalizer = store.find(fit.inputs["verbalizer"])
    if verbalizer is None:
        return None
    return {"prompts": fit.identity["reading"], "tokens": verbalizer.json("verbalizer.json")["tokens"]}


def _weights(fit: Artifact, whole: bool) -> tuple[dict[str, str], dict[str, Path]]:
    """What was fitted: where it lies if it is a whole model, else a file to be copied."""
    path = fit.path(_FITTED)
    return ({"fitted": str(path)}, {}) if whole else ({}, {_FITTED: path})


class ServedClassifier:
    """What MLflow calls: reads texts as the run did and gives each a label.

    Args:
        data: the folder with what was fitted.
        config: `model`, the language model's folder, and of a model that was trained as a whole `fitted`, its weights.
    """

    def __init__(self, data: Path, config: Mapping[str, Any]) -> None:
        """Raises ConfigError where the language model is not there, or it or a user's own method is another one."""
        self._told = json.loads((data / _DESCRIPTION).read_text(encoding="utf-8"))
        folder = Path(config.get("model", ""))
        _check_model(folder, self._told["prompts"])
        fitted = Path(config.get("fitted", data / _FITTED))
        if not fitted.is_file():
            raise ConfigError(f"what was fitted is not at {fitted}; name the file by model_config={{'fitted': FILE}}")
        own = data / _OWN
        method = method_named(str(own) if own.is_file() else self._told["method"])
        if method.source_digest != self._told.get("source"):
            raise ConfigError(f"{own}: is not the file that was fitted, it was edited before MLflow had it; run again")
        scoring = by_prompts if method.input_kind == "prompts" else by_states
        self._scores = scoring(method, self._told, fitted, folder)

    def predict(self, model_input: Any, params: Any = None) -> list[str]:
        """Labels of texts: a list of them, or a table with a column for each field of the task's prompt."""
        scores = self._scores(self._rows(model_input))
        return [self._told["labels"][number] for number in scores.argmax(dim=1).tolist()]

    def _rows(self, given: Any) -> list[dict[str, str]]:
        """Raises ConfigError for a table without the columns."""
        fields: list[str] = self._told["fields"]
        if hasattr(given, "to_dict"):
            columns = [str(name) for name in given.columns]
            if len(fields) == 1 and len(columns) == 1:
                return [{fields[0]: str(text)} for text in given.iloc[:, 0]]
            if missing := [field for field in fields if field not in columns]:
                raise ConfigError(f"a table with columns {columns}; expected {fields}, {missing[0]!r} is missing")
            return [{field: str(row[field]) for field in fields} for row in given.to_dict("records")]
        if len(fields) > 1:
            raise ConfigError(f"a list of texts; expected a table with columns {fields}")
        return [{fields[0]: str(text)} for text in _flat(given)]


def _check_model(folder: Path, prompts: Mapping[str, Any]) -> None:
    """Raises ConfigError where the language model is not there, or another one."""
    from workflows.inputs.models import content_digests

    if not folder.is_dir():
        raise ConfigError(
            f"the language model of this classifier is not at {folder}; name its folder: "
            "mlflow.pyfunc.load_model(uri, model_config={'model': FOLDER})"
        )
    expected = {name: prompts[name] for name in ("model", "tokenizer")}
    if (found := content_digests(folder)) != expected:
        wrong = next(name for name in expected if found[name] != expected[name])
        raise ConfigError(
            f"{folder}: holds another {wrong} than the one this classifier was fitted on (digest "
            f"{found[wrong][:16]}, expected {expected[wrong][:16]})"
        )


def _flat(given: Any) -> Sequence[Any]:
    return given.ravel().tolist() if hasattr(given, "ravel") else list(given)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedClassifier:
    return ServedClassifier(Path(path), model_config or {})
