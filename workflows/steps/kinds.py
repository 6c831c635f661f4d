"""Every kind of step by its name: the functions that make one, and those that fill its artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workflows.steps import best, corpus, data, demonstrations, finetune, methods, model, pretrain, sweep, versus

STEPS: dict[str, list[tuple[Callable[..., Any], Callable[..., Any]]]] = {
    "texts": [
        (data.texts_step, data.fill_texts),
        (demonstrations.chosen_texts_step, demonstrations.fill_chosen_texts),
        (demonstrations.content_free_step, demonstrations.fill_content_free),
    ],
    "labels": [(data.labels_step, data.fill_labels)],
    "verbalizer": [(data.verbalizer_step, data.fill_verbalizer)],
    "head": [(model.head_step, model.fill_head)],
    "basis": [(model.basis_step, model.fill_basis)],
    "embedding": [(model.embedding_step, model.fill_embedding)],
    "demonstrations": [
        (demonstrations.random_step, demonstrations.fill_random),
        (demonstrations.retrieved_step, demonstrations.fill_retrieved),
    ],
    "encode": [(model.encode_step, model.EncodeWorker.fill)],
    "search": [(methods.search_step, methods.fill_search), (finetune.search_step, finetune.fill_search)],
    "finetune": [(finetune.finetune_step, finetune.fill_finetune)],
    "fit": [(methods.fit_step, methods.fill_fit)],
    "score": [(methods.score_step, methods.fill_score)],
    "versus": [(versus.versus_step, versus.fill_versus)],
    "best": [(best.best_step, best.fill_best)],
    "sweep": [(sweep.sweep_step, sweep.fill_sweep)],
    "confirm": [(sweep.confirm_step, sweep.fill_confirm)],
    "corpus": [(corpus.corpus_step, corpus.fill_corpus)],
    "tokenizer": [(corpus.tokenizer_step, corpus.fill_tokenizer)],
    "tokens": [(corpus.tokens_step, corpus.TokenWorker.fill)],
    "pretrain": [(pretrain.pretrain_step, pretrain.fill_pretrain)],
    "bits": [(pretrain.bits_step, pretrain.fill_bits)],
}
