"""Steps on text: documents, the tokenizer made from them, and packed rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.store.artifacts import Artifact
from workflows.errors import ConfigError
from workflows.inputs.corpus import is_held_out, pieces
from workflows.steps.code import code_of

_SHARD_CHARACTERS = 4 << 20  # of text
_LIGHT = Resources(cpus=0)


def corpus_step(name: str, paths: Sequence[Path], digests: Sequence[str], held_out: float) -> Step:
    """Documents of the files, in the order of the files' digests."""
    return Step(
        name="corpus",
        label=f"corpus {name}",
        version=2,
        run="workflows.steps.corpus:fill_corpus",
        identity={"files": sorted(digests), "held_out": held_out},
        local={
            "paths": [str(path) for _, path in sorted(zip(digests, paths, strict=True))],
            "digests": sorted(digests),
        },
        resources=_LIGHT,
        files=tuple(map(str, paths)),
        sources=code_of(fill_corpus),
    )


def fill_corpus(work: StepContext) -> None:
    """Shards of row_id, text and held_out (bool); raises ConfigError for an empty corpus or a file that changed."""
    from orchestration.store import files

    for path, digest in zip(work.local["paths"], work.local["digests"], strict=True):
        if files.checksum(Path(path)) != digest:
            raise ConfigError(f"{path}: changed while the run went on; run again")
    part: list[str] = []
    size = shard = rows = held = 0
    for text in (text for path in work.local["paths"] for text in pieces(Path(path))):
        part.append(text)
        size += len(text)
        if size >= _SHARD_CHARACTERS:
            held += _write(work, shard, rows, part)
            rows, shard, part, size = rows + len(part), shard + 1, [], 0
            work.tell(rows, 0, "texts")
    if part:
        held += _write(work, shard, rows, part)
        rows += len(part)
    if not held or held == rows:
        raise ConfigError(
            f"the corpus has {rows:,} pieces of text, of which {held:,} were held out at a share of "
            f"{work.identity['held_out']:g}; expected some of both. Give more text, or another corpus.held_out."
        )


def _write(work: StepContext, shard: int, first: int, texts: Sequence[str]) -> int:
    from orchestration.store.arrow import table_of

    held = [is_held_out(text, work.identity["held_out"]) for text in texts]
    work.out.write_shard(shard, table_of(range(first, first + len(texts)), {"text": list(texts), "held_out": held}))
    return sum(held)


def texts_of(corpus: Artifact, held_out: bool) -> Iterator[str]:
    """The texts of one side of a corpus."""
    for shard in range(len(corpus.manifest["shards"])):
        yield from _shard_texts(corpus, shard, held_out)


def _shard_texts(corpus: Artifact, shard: int, held_out: bool) -> list[str]:
    from orchestration.store.arrow import read_table

    table = read_table(corpus.shard(shard))
    kept = table.column("held_out").to_pylist()
    return [text for text, held in zip(table.column("text").to_pylist(), kept, strict=True) if held == held_out]


def tokenizer_step(name: str, corpus: Step, vocabulary: int, context: int) -> Step:
    """A byte-level BPE tokenizer of the training side of a corpus."""
    return Step(
        name="tokenizer",
        label=f"tokenizer {name}",
        version=1,
        run="workflows.steps.corpus:fill_tokenizer",
        identity={"vocabulary": vocabulary, "context": context},
        inputs={"corpus": corpus},
        sources=code_of(fill_tokenizer),
    )


def fill_tokenizer(work: StepContext) -> None:
    """The files of a transformers tokenizer."""
    from vocabsem_core.pretraining.bpe import train_byte_pairs

    texts = texts_of(work.inputs["corpus"], held_out=False)
    tokenizer = train_byte_pairs(texts, work.identity["vocabulary"], work.identity["context"])
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            work.out.write(path.name, path.read_bytes())


def tokens_step(name: str, corpus: Step, tokenizer: Step, context: int) -> Step:
    """The training side of a corpus as rows of tokens, a shard of rows for each shard of text."""
    return Step(
        name="tokens",
        label=f"tokens {name}",
        version=1,
        run="workflows.steps.corpus:TokenWorker",
        identity={"context": context},
        inputs={"corpus": corpus, "tokenizer": tokenizer},
        setup={},
        resources=Resources(cpus=1, workers=1),
        sources=code_of(TokenWorker),
    )


class TokenWorker:
    """Packs documents into rows of context + 1 tokens, an END before each; a row's last token begins the next row."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        pass

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return len(work.inputs["corpus"].manifest["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        import numpy as np

        from orchestration.store.arrow import table_of
        from vocabsem_core.features.checkpoints import load_tokenizer
        from vocabsem_core.pretraining.bpe import END

        context = work.identity["context"]
        tokenizer = load_tokenizer(tokenizer_folder(work.inputs["tokenizer"]))
        texts = [END + text for text in _shard_texts(work.inputs["corpus"], shard, held_out=False)]
        found = tokenizer(texts, verbose=False)["input_ids"] if texts else []  # a text longer than the context is fine
        flat = np.fromiter((token for ids in found for token in ids), dtype=np.int32)
        count = max(0, (len(flat) - 1) // context)  # what does not fill a row is left out
        rows = np.empty((count, context + 1), dtype=np.int32)
        for number in range(count):
            rows[number] = flat[number * context : (number + 1) * context + 1]
        first = shard << 32  # unique over shards without knowing how many rows those before have
        work.out.write_shard(shard, table_of(range(first, first + count), {"tokens": rows}))


def tokenizer_folder(artifact: Artifact) -> Path:
    """The folder of a stored tokenizer, every file of it checked."""
    for name in artifact.manifest["files"]:
        artifact.path(name)
    return artifact.folder
