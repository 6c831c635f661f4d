"""A tokenizer made from text: byte-level byte-pair encoding, as GPT-2's. Every byte has a token; no text is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vocabsem_core.errors import InputError

END = "<|endoftext|>"  # between documents; also what padding and the start of a text are called
LEAST_VOCABULARY = 257  # every byte, and END


def train_byte_pairs(texts: Iterable[str], vocabulary: int, window: int) -> Any:
    """A transformers tokenizer of `vocabulary` tokens, END being token 0; its longest prompt is `window` tokens.

    Raises InputError where the vocabulary cannot hold all bytes, or the text has too few different words to fill it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocabulary < LEAST_VOCABULARY:
        raise InputError(
            f"a vocabulary of {vocabulary} tokens; expected {LEAST_VOCABULARY} or more: every byte, and {END}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (made := tokenizer.get_vocab_size()) < vocabulary:
        raise InputError(
            f"the text supports a vocabulary of {made} tokens, {vocabulary} were asked for: every further pair of "
            "tokens is met only once. Lower the vocabulary, or give more text."
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=window
    )
