"""Tiny GGUF files: a Llama of random weights with the tiny tokenizer, written by the package gguf as llama.cpp does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from tests import tiny

Q8, F16, F32 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.F16, GGMLQuantizationType.F32
_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    file: Path,
    kind: GGMLQuantizationType = Q8,
    architecture: str = "llama",
    tokenizer: bool = True,
    without: str = "",
    scale: float = 1.0,
) -> Path:
    """A file whose matrices are of a kind. `without`: a tensor that is left out; `scale`: of the first block's MLP."""
    model = tiny.llama(intermediate_size=64, max_position_embeddings=1024)  # quantised rows have blocks of 32
    config, writer = model.config, GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        _add_tokenizer(writer)
    for name, value in model.state_dict().items():
        if (own := _named(name)) != without:
            _add(writer, own, value.float().numpy() * (scale if own == "blk.0.ffn_up.weight" else 1.0), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _named(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if not name.startswith("model.layers."):
        others = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        return f"{others[name.removesuffix('.weight')]}.weight"
    _, _, block, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{block}.{_PARTS[part]}.weight"


def _add(writer: GGUFWriter, name: str, value: np.ndarray, kind: GGMLQuantizationType) -> None:
    if value.ndim == 1 or kind == F32:  # norms are never quantised
        writer.add_tensor(name, value.astype(np.float32))
    elif kind == F16:
        writer.add_tensor(name, value.astype(np.float16))
    else:
        writer.add_tensor(name, quantize(value, kind), raw_dtype=kind)


def _add_tokenizer(writer: GGUFWriter) -> None:
    made = tiny.tokenizer()
    described: dict[str, Any] = json.loads(made.backend_tokenizer.to_str())
    tokens = made.convert_ids_to_tokens(range(len(made)))
    more = [f"[UNUSED{number}]" for number in range(tiny.VOCABULARY - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *more])
    writer.add_token_types([3, *[1] * (len(tokens) - 1), *[5] * len(more)])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
