"""The `pretrain` workflow: text -> tokenizer -> packed tokens -> model -> bits per byte, as a graph of steps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store import files
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import Status, TrackedRun
from workflows.compare.tracked_data import thinned
from workflows.config.pretrain import PretrainConfig
from workflows.errors import ConfigError, in_field
from workflows.inputs.catalog import find_task
from workflows.inputs.corpus import corpus_digests, corpus_files
from workflows.kind import Results
from workflows.pretrain.model_card import model_card, weights_digest
from workflows.results.model import Costs, Detail, Found, Result
from workflows.results.table import table
from workflows.runtime.progress import Say
from workflows.steps.corpus import corpus_step, tokenizer_step, tokens_step
from workflows.steps.data import texts_step
from workflows.steps.pretrain import CURVE, bits_step, copy_model, model_files, pretrain_step

_HELD_OUT = "held-out"
_CARD = "README.md"  # of the model's folder
_MOST_POINTS = 1000  # of a curve in a tracker


@dataclass(frozen=True)
class Pretrain:
    """A model to train.

    Attributes:
        config: the workflow file.
        corpus: digest of each file's content, by its name from the workflow file's folder, or in the hub's data set.
        output: the folder it is delivered to.
        model, tokenizer: the steps that make it.
        bits: name of a text -> the step that measures the model on it.
    """

    config: PretrainConfig
    corpus: Mapping[str, str]
    output: Path
    model: Step
    tokenizer: Step
    bits: Mapping[str, Step]

    @property
    def targets(self) -> list[Step]:
        return list(self.bits.values())

    def results(self, store: Store, say: Say) -> Results:
        """Bits per byte of each text, as lines of the same table that comparisons have."""
        found = []
        for text, step in self.bits.items():
            try:
                bits, model = store.find(step), store.find(self.model)
                if bits is not None and model is not None:  # one whose making anew failed is of no result
                    found.append(self._result(text, bits, model))
            except DamagedArtifact as error:
                say(f"no result of {self.config.name} {text}: {error}")
        return found

    def _result(self, text: str, bits: Artifact, model: Artifact) -> Found:
        record, curve = bits.json("bits.json"), model.json(CURVE)
        numbers = {name: record[name] for name in ("mean", "low", "high", "n_test")}
        training = self.config.training
        result = Result(
            self.config.name, text, "pretrain", "bits_per_byte", **numbers, sd_seeds=None, seeds=[training.seed]
        )
        seconds = sum(training.batch_tokens / speed for speed in curve["tokens_per_second"])
        return result, Detail(trained_weights=record["weights"], costs=Costs(fit=seconds))

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        """By the texts it is measured on."""
        found = {result.task: (result, detail) for result, detail in (*earlier, *results)}
        return [found[text] for text in self.bits if text in found]

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """Nothing: the results are all."""

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        parent = TrackedRun(
            key=record.run_id,
            name=f"pretrain {self.config.name}",
            status=status,
            params={name: str(value) for name, value in self.model.identity["recipe"].items()},
            metrics={f"bits_per_byte/{result.task}": result.mean for result, _ in results},
            series={name: thinned(values, _MOST_POINTS) for name, values in self._curve(store).items()},
            tags={
                "vocabsem.workflow": "pretrain",
                "vocabsem.run_id": record.run_id,
                "vocabsem.record": str(record),
            },
            note=table(results) if results else "",
            files=tuple(path for name in ("workflow.yaml",) if (path := record.folder / name).is_file()),
        )
        return parent, ()

    def _curve(self, store: Store) -> Mapping[str, Sequence[Any]]:
        """Empty where it is damaged, which is told where the results are read."""
        try:
            artifact = store.find(self.model)
            return artifact.json(CURVE) if artifact is not None else {}
        except DamagedArtifact:
            return {}

    def notes(self, store: Store, ran: bool) -> list[str]:
        return []

    def document(self, store: Store) -> dict[str, Any]:
        return {}

    def deliver(self, store: Store, results: Results) -> list[str]:
        """Write the model's folder, whole or not at all; where it is there, what of it is not as it would be now."""
        name = os.path.relpath(self.output)
        if len(results) < len(self.bits):
            return [f"model {name}: not written, for a result that belongs on its card is missing"]
        model, tokenizer = _found(store, self.model), _found(store, self.tokenizer)
        digest = tokenizer.manifest["files"]["tokenizer.json"]["xxh3"]
        card = model_card(self.config, self.corpus, model, digest, results).encode()
        try:
            if self.output.exists():
                changed = _mend(self.output, model, tokenizer, card)
                anew = [f"model {name}: {', '.join(changed)} written again"] if changed else []
            else:
                anew = []
                _write_folder(self.output, model, tokenizer, card)
        except OSError as error:
            raise ConfigError(
                f"{self.output}: cannot be written ({error.strerror}). The model is safe in {model.folder}: make "
                "room or name another `output`, and run again."
            ) from error
        return [*anew, f"model {name}: name this folder under `models` of a compare workflow"]


def _write_folder(output: Path, model: Artifact, tokenizer: Artifact, card: bytes) -> None:
    place = output.with_name(f"{files.TEMPORARY}{uuid4().hex}")
    try:
        place.mkdir(parents=True)
        copy_model(model, tokenizer, place)
        (place / _CARD).write_bytes(card)
        os.replace(place, output)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _mend(output: Path, model: Artifact, tokenizer: Artifact, card: bytes) -> list[str]:
    """Write what is missing, broken or of an earlier workflow file; the names of those files."""
    changed = []
    for name, made in model_files(model, tokenizer).items():
        if files.damage_of(output / name, made.manifest["files"][name], every_byte=True):
            files.replace_bytes(output / name, made.path(name).read_bytes())
            changed.append(name)
    if not (output / _CARD).is_file() or (output / _CARD).read_bytes() != card:
        files.replace_bytes(output / _CARD, card)
        changed.append(_CARD)
    return changed


def pretrain(
    config: PretrainConfig, base: Path, data_dir: Path | None, facts: FingerprintCache, store: Store
) -> Pretrain:
    """The graph of a workflow file. Raises ConfigError for what cannot be found, or an output folder that is taken."""
    paths = corpus_files(config.corpus, base)
    digests = corpus_digests(paths, facts)
    corpus = corpus_step(config.name, paths, digests, config.corpus.held_out)
    tokenizer = tokenizer_step(config.name, corpus, config.vocabulary, config.model.context)
    tokens = tokens_step(config.name, corpus, tokenizer, config.model.context)
    model = pretrain_step(config, tokens, tokenizer)
    texts = {_HELD_OUT: corpus, **_task_texts(config, base, data_dir, facts)}
    bits = {name: bits_step(config.name, name, model, tokenizer, step) for name, step in texts.items()}
    output = base / (config.output or Path("models") / config.name)
    made = store.find(model)
    if output.exists() and not (made is not None and _is_of(output, made)):
        raise ConfigError(
            f"{output}: is there already and holds something else; move it away, or name another", ("output",)
        )
    names = config.corpus.files if config.corpus.hub is not None else [os.path.relpath(path, base) for path in paths]
    return Pretrain(config, dict(zip(names, digests, strict=True)), output, model, tokenizer, bits)


def _task_texts(config: PretrainConfig, base: Path, data_dir: Path | None, facts: FingerprintCache) -> dict[str, Step]:
    found = {}
    for index, reference in enumerate(config.evaluation.tasks):
        with in_field("evaluation", "tasks", index):
            task = find_task(reference, base, data_dir)
            found[task.config.name] = texts_step(task, "test", config.evaluation.rows, facts)
    return found


def _found(store: Store, step: Step) -> Artifact:
    artifact = store.find(step)
    assert artifact is not None, f"{step.label} is read before it is made"
    return artifact


def _is_of(folder: Path, model: Artifact) -> bool:
    """Whether a folder is this model's: by its card, whatever has become of its files, or by its weights."""
    card, weights, digest = folder / _CARD, folder / "model.safetensors", weights_digest(model)
    if card.is_file() and digest in card.read_text(encoding="utf-8", errors="replace"):
        return True
    return weights.is_file() and files.checksum(weights) == digest
