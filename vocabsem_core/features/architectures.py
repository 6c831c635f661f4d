"""What differs between families of language models: how they are loaded, where their blocks and output heads are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vocabsem_core.errors import InputError
from vocabsem_core.names import ModelKind


def kind_of(config: Any) -> ModelKind:
    """Whether a configuration is of a causal, masked or encoder-decoder language model.

    Families such as BERT exist as causal and as masked models: they are causal where the configuration names the causal
    architecture, else masked (BertForPreTraining, or no name).
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "causal"
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    return "causal" if causal in (config.architectures or []) else "masked"


def auto_class(kind: ModelKind) -> Any:
    """The transformers class that loads models of a kind with their head."""
    import transformers

    return {
        "causal": transformers.AutoModelForCausalLM,
        "masked": transformers.AutoModelForMaskedLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }[kind]


def scale_and_softcap(config: Any) -> tuple[float, float | None]:
    """What a model's configuration does to its logits after the matrix product.

    A factor before the product (T5's) is in the states already.
    """
    config = config.get_text_config(decoder=True)
    scale = getattr(config, "logit_scale", None)  # Cohere
    if scale is None:
        scale = 1.0 / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
    return float(scale), getattr(config, "final_logit_softcapping", None)  # Gemma


def decoder_start(config: Any, generation: Mapping[str, Any]) -> int:
    """The token that an encoder-decoder's decoder begins with.

    As in transformers' `generate`: the configuration's, else that of the generation configuration, else the begin
    token; then the padding token, which is T5's. Raises InputError where none is stated.
    """
    decoder = config.get_text_config(decoder=True)
    stated = [getattr(config, "decoder_start_token_id", None), generation.get("decoder_start_token_id")]
    others = [getattr(part, name, None) for name in ("bos_token_id", "pad_token_id") for part in (config, decoder)]
    for token in (*stated, *others):
        if isinstance(token, int):
            return token
    raise InputError(
        f"model type {config.model_type!r}: neither config.json nor generation_config.json states a "
        "decoder_start_token_id; set the token that the decoder begins with in config.json"
    )


def window(model: Any) -> int | None:
    """The most tokens that the position embedding can take; None where the configuration states no limit.

    RoBERTa and its like count positions from the padding token's id + 1 on, so that their first rows are never used.
    """
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        unused = getattr(module, "padding_idx", None)
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings") and unused is not None:
            return module.num_embeddings - unused - 1
    return stated


def blocks(model: Any) -> torch.nn.ModuleList:
    """The transformer blocks, of an encoder-decoder the decoder's.

    Raises InputError where there is no list with a module for each block (ALBERT shares one among all).
    """
    text = model.config.get_text_config(decoder=True)
    part_of_more = kind_of(model.config) == "seq2seq" or text is not model.config  # an encoder, or one of pictures
    names = ("num_decoder_layers", "num_hidden_layers", "decoder_layers")
    depth = next((found for name in names if (found := getattr(text, name, None))), None)
    for module in (model.get_decoder() if part_of_more else model).modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return module
    raise InputError(f"{type(model).__name__}: found no list of {depth} blocks; use layers: [head]")


def layer_names(model: Any) -> list[str]:
    """All layers that can be read, first to last: layer_00, ..., head; head alone where the blocks are not listed."""
    try:
        depth = len(blocks(model))
    except InputError:
        return ["head"]
    return [f"layer_{k:02d}" for k in range(depth + 1)] + ["head"]
