"""What a layer study gives to a lens: the calibrator of every layer, and training rows to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from workflows.config.layer_study import LayersConfig
from workflows.config.yaml_file import read_yaml
from workflows.errors import ConfigError
from workflows.layers.graph import Study, studies
from workflows.lens.reader import Read
from workflows.prediction.choice import facts_of, origin_of
from workflows.registry import kind_of_run

_NEAREST = 5
_START = 0.1  # the temperature at which calibration begins, so that before and after can be compared


@dataclass(frozen=True)
class Chosen:
    """A task of a layer study under a model.

    Attributes:
        reference, task: the model and the task as the workflow file names them.
        data_dir: the folder of `--data-dir`.
    """

    study: Study
    store: Store
    reference: str
    task: str
    base: Any
    data_dir: Any

    def calibrated(self, read: Read) -> dict[str, list[list[list[float]]]]:
        """The labels' probabilities [layer][position][label] before and after calibration.

        Both are by the cosine to the labels' centred rows; before it the states are only centred.
        """
        import torch

        from vocabsem_core.calibration.modules import CalibrationSettings, calibrated_logits
        from vocabsem_core.semantics.affinity import semantic_logits
        from workflows.steps.layers.stored import readings_of

        stored = {
            one.record["layer"]: one.fitted
            for one in readings_of(self.store.need(self.study.readings))
            if one.record["basis"] == "head"
        }
        found: dict[str, list[list[list[float]]]] = {"before": [], "after": []}
        for layer in read.layers:
            if not (weights := stored.get(layer)):
                raise ConfigError(
                    f"run of the layer study of {self.study.task} has no calibration of {layer}; set `layers: [all]` "
                    "and `calibrated: [head]` in its file, and run it again: `vocabsem run FILE`"
                )
            seen, targets = read.states[layer] - weights["centre"], weights["targets"]
            before = semantic_logits(seen, targets, temperature=_START)
            after = calibrated_logits(seen, targets, CalibrationSettings(), weights)
            for name, logits in (("before", before), ("after", after)):
                found[name].append(torch.softmax(logits, dim=1).tolist())
        return found

    def nearest(self, read: Read) -> list[dict[str, Any]]:
        """The training rows whose states at `head` are nearest, with their labels and texts."""
        from orchestration.store.arrow import ROW_ID, read_table
        from vocabsem_core.baselines.knn import nearest
        from workflows.inputs.tables import field_columns
        from workflows.methods.inputs.states import labels_of, read_column, read_states

        inputs = {role: self.store.need(step) for role, step in self.study.readings.inputs.items()}
        states, ids = read_states(inputs["train"], "head"), read_column(inputs["train"], ROW_ID).tolist()
        gaps, rows = nearest(read.states["head"][read.position].unsqueeze(0), states, _NEAREST, "cosine")
        labels = labels_of(inputs["train"], inputs["train_labels"])
        texts: dict[int, str] = {}
        for path in self.store.need(self.study.rows["train"]).shards():
            table = read_table(path)
            for row, fields in zip(table.column(ROW_ID).to_pylist(), field_columns(table).to_pylist(), strict=True):
                texts[row] = " / ".join(map(str, fields.values()))
        return [
            {"row": ids[row], "label": read.labels[labels[row]], "cosine": round(1 - gap, 4), "text": texts[ids[row]]}
            for gap, row in zip(gaps[0].tolist(), rows[0].tolist(), strict=True)
        ]


def choose(record: RunRecord, store: Store, model: str | None, task: str | None) -> Chosen:
    """The study of a run that is meant. Raises ConfigError where it is none, or was not made of what is there now."""
    kind = kind_of_run(record)
    if kind.config is not LayersConfig:
        raise ConfigError(
            f"run {record.run_id} is of `workflow: {kind.name}`; --run takes a layer study, which keeps a calibration "
            "of every layer: `vocabsem init layers`, then `vocabsem run layers.yaml`"
        )
    config = read_yaml(record.folder / "workflow.yaml", LayersConfig)
    base, data_dir = origin_of(record)
    parts = studies(config, base, data_dir, facts_of(store))
    pairs = [(one, *names) for one, names in zip(parts, _names(config), strict=True)]
    for what, asked, place in (("model", model, 1), ("task", task, 2)):
        pairs = [pair for pair in pairs if asked in (None, pair[place], getattr(pair[0], what))]
        there = sorted({getattr(one, what) for one in parts})
        if not pairs:
            raise ConfigError(f"run {record.run_id} has no {what} {asked!r}; it has {', '.join(there)}")
        if len({getattr(one, what) for one, *_ in pairs}) > 1:
            raise ConfigError(f"run {record.run_id} has several {what}s: name one, --{what} {' or '.join(there)}")
    study, reference, named = pairs[0]
    if store.find(study.readings) is None:
        raise ConfigError(
            f"{study.readings.label} of run {record.run_id} is not in {store}, or what it was made from has changed; "
            "run its workflow again: `vocabsem run FILE`"
        )
    return Chosen(study, store, reference, named, base, data_dir)


def _names(config: LayersConfig) -> list[tuple[str, str]]:
    """Model and task of each study, in their order."""
    return [(model, task) for model in config.models for task in config.tasks]
