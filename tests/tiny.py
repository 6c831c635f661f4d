"""Tiny random language models, one for each shape of output head, and a tiny tokenizer, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 320
WIDTH = 32
DEPTH = 2
_LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GEMMA = {**_LLAMA_LIKE, "num_key_value_heads": 1, "head_dim": WIDTH // 2, "sliding_window": 64}
_PICTURES = {
    **{"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}
_CORPUS = [
    "review: a fine film, warm and funny from the first scene to the last\n sentiment: positive",
    "review: a dull film, cold and long, nothing in it works\n sentiment: negative",
    "premise: the market fell\nhypothesis: shares lost value\nprediction: equivalent",
    "premise: the team won\nhypothesis: it rained\nprediction: not equivalent",
    "input: the text of the world, sports, business and technology\ntype: world",
]


def gpt2(**changes: Any) -> Any:
    """Tied head, learned positions."""
    settings = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": DEPTH, "n_head": 2, "n_positions": 128}
    return _build("GPT2", {**settings, "bos_token_id": 0, "eos_token_id": 0, **changes})


def gpt_neox(**changes: Any) -> Any:
    """Untied head; in files it is named `embed_out`."""
    return _build("GPTNeoX", {**_LLAMA_LIKE, **changes})


def llama(**changes: Any) -> Any:
    """Untied head."""
    return _build("Llama", {**_LLAMA_LIKE, "tie_word_embeddings": False, **changes})


def qwen2(**changes: Any) -> Any:
    """Tied head."""
    return _build("Qwen2", {**_LLAMA_LIKE, "tie_word_embeddings": True, **changes})


def gemma2(**changes: Any) -> Any:
    """Tied head, soft-capped logits; the cap is low enough to bend the logits of random weights."""
    settings = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "final_logit_softcapping": 2.0}
    return _build("Gemma2", {**_LLAMA_LIKE, **settings, **changes})


def phi(**changes: Any) -> Any:
    """A head with a bias."""
    return _build("Phi", {**_LLAMA_LIKE, **changes})


def cohere(**changes: Any) -> Any:
    """Logits are multiplied by `logit_scale`."""
    return _build("Cohere", {**_LLAMA_LIKE, "logit_scale": 0.25, **changes})


def granite(**changes: Any) -> Any:
    """Logits are divided by `logits_scaling`."""
    return _build("Granite", {**_LLAMA_LIKE, "logits_scaling": 3.0, **changes})


def opt(**changes: Any) -> Any:
    """The head is narrower than the blocks: a projection lies between the two."""
    settings = {"ffn_dim": 48, "word_embed_proj_dim": WIDTH // 2}
    return _build("OPT", {**_LLAMA_LIKE, **settings, **changes})


def mistral(**changes: Any) -> Any:
    """Untied head, attention in a sliding window shorter than the prompts."""
    return _build("Mistral", {**_LLAMA_LIKE, "sliding_window": 6, **changes})


def bert(**changes: Any) -> Any:
    """Masked: a transform between the blocks and the tied, biased head."""
    return _build("Bert", {**_LLAMA_LIKE, "architectures": ["BertForMaskedLM"], **changes}, "MaskedLM")


def roberta(**changes: Any) -> Any:
    """Masked: positions start after the padding id."""
    return _build("Roberta", {**_LLAMA_LIKE, "architectures": ["RobertaForMaskedLM"], **changes}, "MaskedLM")


def albert(**changes: Any) -> Any:
    """Masked: one block shared by all layers, a head narrower than the blocks."""
    settings = {"embedding_size": WIDTH // 2, "architectures": ["AlbertForMaskedLM"]}
    return _build("Albert", {**_LLAMA_LIKE, **settings, **changes}, "MaskedLM")


def t5(**changes: Any) -> Any:
    """Encoder-decoder: tied head, states scaled before it."""
    settings = {"d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": DEPTH, "num_decoder_layers": DEPTH + 1}
    heads = {"num_heads": 2, "decoder_start_token_id": 0, "vocab_size": VOCABULARY, "pad_token_id": 0}
    return _build("T5", {**settings, **heads, **changes}, "Seq2SeqLM")


def t5_untied(**changes: Any) -> Any:
    """Encoder-decoder with a head of its own, as T5 1.1 and FLAN-T5."""
    return t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu", **changes)


def longt5(**changes: Any) -> Any:
    """Encoder-decoder as T5, with attention to near tokens alone in its encoder."""
    settings = {"d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": DEPTH, "num_decoder_layers": DEPTH}
    heads = {"num_heads": 2, "local_radius": 7, "decoder_start_token_id": 0, "pad_token_id": 0}
    return _build("LongT5", {**settings, **heads, "vocab_size": VOCABULARY, **changes}, "Seq2SeqLM")


def bart(**changes: Any) -> Any:
    """Encoder-decoder with a bias that is added after the head."""
    widths = {"d_model": WIDTH, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    depths = {
        "encoder_layers": DEPTH,
        "decoder_layers": DEPTH,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    rest = {"vocab_size": VOCABULARY, "max_position_embeddings": 128, "decoder_start_token_id": 0, "pad_token_id": 0}
    return _build("Bart", {**widths, **depths, **rest, **changes}, "Seq2SeqLM")


def mbart(**changes: Any) -> Any:
    """Encoder-decoder whose decoder begins with a token for the language."""
    widths = {"d_model": WIDTH, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128}
    depths = dict.fromkeys(("encoder_layers", "decoder_layers"), DEPTH)
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    rest = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 3, "decoder_start_token_id": 4}
    return _build("MBart", {**widths, **depths, **heads, **rest, **changes}, "Seq2SeqLM")


def mamba(**changes: Any) -> Any:
    """A state where others have keys and values: nothing can be shared among prompts."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "state_size": 4, "vocab_size": VOCABULARY}
    return _build("Mamba", {**sizes, **changes})


def gemma3() -> Any:
    """A language model beside one of pictures, which has as many blocks."""
    return _build("Gemma3", {"text_config": _GEMMA, "vision_config": _PICTURES, "mm_tokens_per_image": 4})


def t5gemma() -> Any:
    """An encoder-decoder whose configuration holds one for each."""
    return _build("T5Gemma", {"encoder": _GEMMA, "decoder": _GEMMA, "vocab_size": VOCABULARY}, "Seq2SeqLM")


ALL: dict[str, Callable[..., Any]] = {
    builder.__name__: builder for builder in (gpt2, gpt_neox, llama, mistral, qwen2, gemma2, phi, cohere, granite, opt)
}
MASKED: dict[str, Callable[..., Any]] = {builder.__name__: builder for builder in (bert, roberta, albert)}
SEQ2SEQ: dict[str, Callable[..., Any]] = {builder.__name__: builder for builder in (t5, t5_untied, bart)}


def _build(architecture: str, settings: dict[str, Any], head: str = "CausalLM") -> Any:
    """A model in evaluation mode with the same weights at each call; every bias and norm weight is random too."""
    config = getattr(transformers, f"{architecture}Config")(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def tokenizer(bos: bool = False, trim_offsets: bool = False, mask: bool = False) -> Any:
    """Byte-level BPE, trained in memory; `trim_offsets` as GPT-NeoX has it (spaces are left out of tokens' places)."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<mask>"] if mask else ["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    bpe.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    if bos:
        template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        bpe.post_processor = processors.Sequence([bpe.post_processor, template])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<s>", pad_token="<s>")


def masked_tokenizer() -> Any:
    """The tokenizer with a mask token, and special tokens around each prompt, as BERT has."""
    made = tokenizer(bos=True, mask=True)
    made.mask_token = "<mask>"
    return made


def save(folder: Path, model: Any, **saving: Any) -> Path:
    """A model folder as transformers lays it out: weights, configuration, tokenizer."""
    model.save_pretrained(folder, **saving)
    tokenizer().save_pretrained(folder)
    return folder


def prompts(*lengths: int) -> list[list[int]]:
    """Prompts of these lengths, of seeded random tokens."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def larger_tokenizer() -> Any:
    """The tokenizer with tokens that no tiny model has, "zufrieden" among them: nobody resized the embedding."""
    made = tokenizer()
    made.add_tokens([f"<extra{number}>" for number in range(VOCABULARY - len(made))] + ["zufrieden"])
    return made
