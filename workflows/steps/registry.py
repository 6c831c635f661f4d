"""Every kind of step by its name: the functions that make one, and those that fill its artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workflows.steps import (
    basis,
    best,
    corpus,
    data,
    demonstrations,
    finetune,
    fit,
    likelihoods,
    model,
    paired_test,
    prediction,
    pretrain,
    sweep,
)
from workflows.steps.layers import readings, scores, steer
from workflows.steps.networks import head, states

STEPS: dict[str, list[tuple[Callable[..., Any], Callable[..., Any]]]] = {
    "texts": [
        (data.texts_step, data.fill_texts),
        (demonstrations.chosen_texts_step, demonstrations.fill_chosen_texts),
        (demonstrations.content_free_step, demonstrations.fill_content_free),
    ],
    "rows": [(states.network_rows_step, states.fill_network_rows)],
    "labels": [(data.labels_step, data.fill_labels)],
    "verbalizer": [
        (model.verbalizer_step, model.fill_verbalizer),
        (head.verbalizer_step, head.fill_verbalizer),
    ],
    "head": [(model.head_step, model.fill_head), (head.head_step, head.fill_head)],
    "basis": [(basis.basis_step, basis.fill_basis)],
    "spectrum": [(basis.spectrum_step, basis.fill_spectrum)],
    "embedding": [(model.embedding_step, model.fill_embedding)],
    "demonstrations": [
        (demonstrations.random_step, demonstrations.fill_random),
        (demonstrations.retrieved_step, demonstrations.fill_retrieved),
    ],
    "encode": [
        (model.encode_step, model.EncodeWorker.fill),
        (states.network_encode_step, states.NetworkWorker.fill),
    ],
    "likelihoods": [(likelihoods.likelihoods_step, likelihoods.LikelihoodWorker.fill)],
    "search": [(fit.search_step, fit.fill_search), (finetune.search_step, finetune.fill_search)],
    "finetune": [(finetune.fit_step, finetune.fill_finetune)],
    "fit": [(fit.fit_step, fit.fill_fit)],
    "validation": [(prediction.validation_step, prediction.fill_validation)],
    "certainty": [(prediction.certainty_step, prediction.fill_certainty)],
    "predict": [
        (prediction.predict_step, prediction.fill_predictions),
        (prediction.predict_step, prediction.PromptPredictor.fill),
    ],
    "score": [(fit.score_step, fit.fill_score)],
    "versus": [(paired_test.versus_step, paired_test.fill_versus)],
    "best": [(best.best_step, best.fill_best)],
    "sweep": [(sweep.sweep_step, sweep.fill_sweep)],
    "confirm": [(sweep.confirm_step, sweep.fill_confirm)],
    "layers": [(readings.readings_step, readings.LayerWorker.fill)],
    "layer-scores": [(scores.scores_step, scores.fill_scores)],
    "steering": [(steer.steering_step, steer.fill_steering)],
    "corpus": [(corpus.corpus_step, corpus.fill_corpus)],
    "tokenizer": [(corpus.tokenizer_step, corpus.fill_tokenizer)],
    "tokens": [(corpus.tokens_step, corpus.TokenWorker.fill)],
    "pretrain": [(pretrain.pretrain_step, pretrain.fill_pretrain)],
    "bits": [(pretrain.bits_step, pretrain.fill_bits)],
}
