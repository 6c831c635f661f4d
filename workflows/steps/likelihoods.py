"""The step on whole label words: how likely each is after a row's prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from vocabsem_core.names import WHOLE
from workflows.config.compare import Encoding, Execution
from workflows.inputs.catalog import Task
from workflows.inputs.models import Model
from workflows.steps.code import code_of
from workflows.steps.model import EncodeWorker, encode_step
from workflows.steps.states import BYTES


def likelihoods_step(
    model: Model,
    task: Task,
    texts: Step,
    encoding: Encoding,
    execution: Execution,
    demonstrations: Step | None = None,
) -> Step:
    """Log-likelihoods of the label words after a split's prompts, which are read as an `encode` step reads them."""
    words = list(task.config.words.values())  # in class order
    as_encoded = encode_step(
        model,
        task,
        texts,
        encoding.model_copy(update={"layers": ["head"], "store_dtype": "float32"}),
        execution,
        demonstrations,
    )
    _, _, about = as_encoded.label.partition(" ")
    return replace(
        as_encoded,
        name="likelihoods",
        label=f"likelihoods {about}",
        version=1,
        run="workflows.steps.likelihoods:LikelihoodWorker",
        identity={**as_encoded.identity, "layers": [WHOLE], "words": words},
        bytes=texts.local["rows"] * len(words) * BYTES["float32"],
        sources=code_of(LikelihoodWorker),
    )


class LikelihoodWorker(EncodeWorker):
    """Holds the model; fills shards as `encode` does, with the column `whole`, [classes], in place of layers."""

    def fill(self, work: StepContext, shard: int) -> None:
        """row_id and row_hash of the texts, tokens (of the prompt), cut (tokens truncated), and `whole`, [classes]."""
        super().fill(work, shard)

    def _reads(self, model: Any, setup: Mapping[str, Any]) -> Any:
        from vocabsem_core.features.likelihoods import WordScorer

        return WordScorer(model)

    def _prompts(self, identity: Mapping[str, Any], rows: Sequence[Mapping[str, str]], **told: Any) -> list[Any]:
        from vocabsem_core.features.words import tokenize_words

        return tokenize_words(
            self._tokenizer, identity["template"], rows, identity["words"], identity["max_tokens"], **told
        )

    def _read(self, prompts: Sequence[Any], *how: Any) -> dict[str, Any]:
        ids, words = [prompt.ids for prompt in prompts], [prompt.words for prompt in prompts]
        return {WHOLE: self._reader.score(ids, words, *how)}
