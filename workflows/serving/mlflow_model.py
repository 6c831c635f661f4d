"""A fitted calibrator as an MLflow model: texts in, labels out, the labels that the run recorded.

It holds what was fitted, as safetensors, and what the prompts were; of the language model it holds the digest and the
folder it lay in, since copying gigabytes into every run helps nobody. MLflow calls `_load_pyfunc`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestration.graph import Step
from orchestration.store.artifacts import Store
from orchestration.tracking.tracker import TrackedModel
from workflows.errors import ConfigError
from workflows.methods.ensembles import predict_folds
from workflows.methods.registry import method_named

if TYPE_CHECKING:
    from workflows.methods.inputs.states import TaskFeatures

_FITTED, _DESCRIPTION, _OWN = "fitted.safetensors", "calibrator.json", "method.py"
_BATCH_TOKENS = 1024


def tracked_model(fit: Step, store: Store) -> TrackedModel | None:
    """The MLflow model of a fit, None where its method needs more than what was fitted to predict."""
    encode = fit.inputs.get("test")
    if encode is None or encode.setup is None or set(encode.inputs) != {"texts"}:
        return None  # it does not read states, or states of prompts with demonstrations
    method = method_named(fit.local.get("method_file", fit.identity["method"]))
    artifact = store.find(fit)
    if not method.portable or artifact is None:
        return None
    fields = sorted(encode.inputs["texts"].identity["fields"])
    description = {
        "method": method.name,
        "source": fit.identity.get("source"),  # of a user's own method, as it was fitted
        "settings": artifact.json("fit.json")["settings"],
        "folds": fit.identity.get("folds", 1),
        "layers": fit.identity["layer"],
        "labels": fit.identity["labels"],
        "fields": fields,
        "prompts": {name: encode.identity[name] for name in sorted(encode.identity)},
    }
    own = {_OWN: Path(method.source_file)} if method.source_file is not None else {}
    return TrackedModel(
        loader=__name__,
        inputs=tuple(fields) if len(fields) > 1 else (),
        config={"model": encode.setup["folder"]},
        files={_FITTED: artifact.path(_FITTED), **own},
        documents={_DESCRIPTION: description},
    )


class ServedCalibrator:
    """What MLflow calls: encodes texts as the run did and gives each a label."""

    def __init__(self, data: Path, model_folder: Path) -> None:
        """Raises ConfigError where the language model is not there, or it or a user's own method is another one."""
        from safetensors.torch import load_file

        from vocabsem_core.features.checkpoints import load_model, load_tokenizer
        from vocabsem_core.features.encoder import Encoder
        from workflows.inputs.models import content_digests

        self._told = json.loads((data / _DESCRIPTION).read_text(encoding="utf-8"))
        prompts = self._told["prompts"]
        if not model_folder.is_dir():
            raise ConfigError(
                f"the language model of this calibrator is not at {model_folder}; name its folder: "
                "mlflow.pyfunc.load_model(uri, model_config={'model': FOLDER})"
            )
        expected = {name: prompts[name] for name in ("model", "tokenizer")}
        if (found := content_digests(model_folder)) != expected:
            wrong = next(name for name in expected if found[name] != expected[name])
            raise ConfigError(
                f"{model_folder}: holds another {wrong} than the one this calibrator was fitted on (digest "
                f"{found[wrong][:16]}, expected {expected[wrong][:16]})"
            )
        own = data / _OWN
        self._method = method_named(str(own) if own.is_file() else self._told["method"])
        if self._method.source_digest != self._told.get("source"):
            raise ConfigError(f"{own}: is not the file that was fitted, it was edited before MLflow had it; run again")
        self._settings = self._method.Settings.model_validate(self._told["settings"])
        self._fitted = load_file(data / _FITTED)
        self._tokenizer = load_tokenizer(model_folder)
        self._encoder = Encoder(
            load_model(model_folder, prompts["dtype"], "cpu", prompts["four_bit"]), prompts["layers"]
        )

    def predict(self, model_input: Any, params: Any = None) -> list[str]:
        """Labels of texts: a list of them, or a table with a column for each field of the task's prompt."""
        import torch

        from workflows.steps.model import prompts_of
        from workflows.steps.states import stored_states

        prompts = self._told["prompts"]
        tokenized = prompts_of(self._tokenizer, prompts, self._rows(model_input))
        found = self._encoder.encode([p.ids for p in tokenized], _BATCH_TOKENS, [p.position for p in tokenized])
        names = self._told["layers"] if isinstance(self._told["layers"], list) else [self._told["layers"]]
        kept = [torch.from_numpy(stored_states(name, found[name], prompts["store_dtype"])).float() for name in names]
        unused = cast("TaskFeatures", None)  # a portable method reads none
        states, folds = torch.cat(kept, dim=1), self._told["folds"]
        scores = predict_folds(self._method, self._settings, self._fitted, states, unused, folds)
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


def _flat(given: Any) -> Sequence[Any]:
    return given.ravel().tolist() if hasattr(given, "ravel") else list(given)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedCalibrator:
    return ServedCalibrator(Path(path), Path((model_config or {}).get("model", "")))
