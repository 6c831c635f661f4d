"""A language model with its prompts as a feature extractor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.graph import Step
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import TrackedModel
from workflows.config.compare import CompareConfig, CompareExecution, Encoding, Execution, Limit
from workflows.extractors.base import ExtractorKind, FeatureExtractor, Materials, Reader
from workflows.extractors.outline import ReadsPrompts, outline
from workflows.extractors.prompting import prompted
from workflows.extractors.reading import reader_of
from workflows.inputs.catalog import Task, find_model, model_names
from workflows.inputs.gguf import gguf_file
from workflows.inputs.models import Model, describe, local_folder, model_files
from workflows.inputs.paths import located
from workflows.inputs.tables import Split, text_problems
from workflows.methods.resolved import ResolvedMethod
from workflows.serving.mlflow_model import tracked_model
from workflows.steps.basis import basis_steps
from workflows.steps.data import labels_step, texts_step
from workflows.steps.demonstrations import content_free_step
from workflows.steps.finetune import place_of, reading_of
from workflows.steps.model import embedding_step, encode_step, head_step, verbalizer_step


@dataclass(frozen=True)
class LanguageModel(ReadsPrompts, FeatureExtractor):
    """A language model found on disk."""

    about: Model

    @property
    def parameters(self) -> int:
        return self.about.parameters

    def materials(
        self, task: Task, limits: Limit, encoding: Encoding, execution: Execution, facts: FingerprintCache
    ) -> dict[str, Step]:
        """The input embedding's rows of the label words and the states of content-free prompts are there as well."""
        model = self.about
        head, verbalizer = head_step(model), verbalizer_step(model, task)
        steps = {"verbalizer": verbalizer, "head": head, **basis_steps(model.name, head)}
        steps["embedding"] = embedding_step(model, task, verbalizer)
        splits: tuple[tuple[Split, int | None], ...] = (("train", limits.train), ("test", limits.test))
        for split, limit in splits:
            steps[f"{split}_rows"] = texts = texts_step(task, split, limit, facts)
            steps[split] = encode_step(model, task, texts, encoding, execution)
            steps[f"{split}_labels"] = labels_step(task, split, facts)
        content_free = content_free_step(task, model.kind)
        steps["content_free"] = encode_step(model, task, content_free, encoding, execution)
        return steps

    def inputs(
        self,
        config: CompareConfig,
        method: ResolvedMethod,
        size: int | str,
        task: Task,
        materials: Materials,
        seed: int,
    ) -> Materials:
        return prompted(config, method, size, self.about, task, materials, seed)

    def prompting(self, task: Task, encoding: Encoding, execution: CompareExecution) -> dict[str, Mapping[str, Any]]:
        reading = reading_of(self.about, task, encoding, execution)
        return {"reading": reading, "place": place_of(self.about, execution)}

    def reader(self, encode: Step, store: Store) -> Reader:
        return reader_of(encode, store, {})

    def served(self, fit: Step, store: Store) -> TrackedModel | None:
        return tracked_model(fit, store)


def _open(reference: str, base: Path, facts: FingerprintCache) -> LanguageModel:
    return LanguageModel(describe(find_model(reference, base), facts))


def _files(reference: str, base: Path) -> list[Path]:
    """Of its folder and its YAML file. The catalog's come with the source; an absolute path is the cluster's own."""
    if Path(reference).is_absolute() or reference in model_names():
        return []
    entry = find_model(reference, base)
    files, config = [located(base, reference)] if reference.endswith((".yaml", ".yml")) else [], entry.config
    if config.hub or config.package or (files and Path(str(config.folder or config.gguf)).is_absolute()):
        return files
    return files + ([gguf_file(entry)] if config.gguf else model_files(local_folder(entry)))


LANGUAGE_MODEL = ExtractorKind(lambda reference, base: True, _open, outline, text_problems, _files)
