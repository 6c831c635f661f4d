"""The semantic basis of one model's head, straight from its file: nothing of the model but the head is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.execution.scheduler import InlineEngine, Outcome, run_plan
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.errors import ConfigError
from workflows.inputs.catalog import find_model
from workflows.inputs.models import Model, describe
from workflows.inputs.network_sources import is_network
from workflows.runtime.progress import Say, looking_in, plain_lines
from workflows.runtime.requirements import RECORDED
from workflows.steps.basis import basis_steps
from workflows.steps.model import head_step

_SHRINKAGES = (0.1, 1.0, 10.0)  # 1: the default of methods that have the setting


@dataclass(frozen=True)
class Basis:
    """A model's stored head and what is made of it, by role; or the steps that failed."""

    model: Model
    cached: bool
    stored: Mapping[str, Artifact]
    failures: list[tuple[str, Outcome]]


def make_basis(reference: str, store: Store, say: Say, with_spectrum: bool) -> Basis:
    """Compute head and basis in this process unless they are stored. Raises ConfigError for an unknown model.

    `with_spectrum`: what shrunken rows are made of as well.
    """
    if is_network(reference, Path.cwd()):
        raise ConfigError(
            f"{reference}: is no language model, and `vocabsem basis` shows language models. A comparison stores a "
            "network's basis, and in Python vocabsem.semantic_basis([head.weight]) computes it"
        )
    model = describe(find_model(reference, Path.cwd()), FingerprintCache(store.root / "facts.json"))
    head = head_step(model)
    made = basis_steps(model.name, head)
    steps = {"head": head, **(made if with_spectrum else {"basis": made["basis"]})}
    plan = make_plan(steps.values(), store)
    with plain_lines(plan, say, looking_in(store)) as watch:
        outcomes = run_plan(plan, lambda: InlineEngine(store, watch, RECORDED), watch)
    labels = {planned.step.key: planned.step.label for planned in plan}
    return Basis(
        model,
        all(outcome.state == "cached" for outcome in outcomes.values()),
        {role: found for role, step in steps.items() if (found := store.find(step)) is not None},
        [(labels[key], outcome) for key, outcome in outcomes.items() if outcome.state == "failed"],
    )


def basis_document(found: Basis, words: Sequence[str]) -> dict[str, Any]:
    """What `basis --json` prints."""
    from orchestration.store.arrow import column_array
    from workflows.methods.inputs.states import read_tables

    assert not found.failures, "a basis that failed has nothing to show"
    seconds = {role: part.json("provenance.json")["seconds"] for role, part in found.stored.items()}
    basis = found.stored["basis"]
    document = {
        "model": found.model.name,
        **basis.json("diagnostics.json"),
        "width": column_array(read_tables(basis)[0], "basis").shape[1],
        "seconds": seconds,
        "cached": found.cached,
        "folder": str(basis.folder),
    }
    return {**document, **_similarities(found.model, found.stored, words)} if words else document


def _similarities(model: Model, stored: Mapping[str, Artifact], words: Sequence[str]) -> dict[str, Any]:
    """The tokens of " word", and the cosines between the words' basis rows; of several tokens the mean row counts.

    And for some shrinkages of the basis, the cosines of each word's row to its basis row, and to its row of the head.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cosine_similarity

    from vocabsem_core.features.checkpoints import load_tokenizer
    from workflows.methods.inputs.states import read_rows, read_spectrum

    basis = stored["basis"]
    tokenizer = load_tokenizer(model.folder)
    tokens = {word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    for word, ids in tokens.items():
        if not word.strip() or not ids or max(ids) >= basis.rows:
            raise ConfigError(f"--word {word!r}: tokens {ids}; expected a word that the model's vocabulary can write")
    rows = np.stack([read_rows(basis, "basis", ids).mean(axis=0) for ids in tokens.values()])
    head = torch.from_numpy(
        np.stack([read_rows(stored["head"], "weight", ids).mean(axis=0) for ids in tokens.values()])
    )
    spectrum = read_spectrum(stored["spectrum"])
    shrunken = {
        f"{shrinkage:g}": [
            cosine_similarity(spectrum.rows(head.float(), shrinkage), other).tolist()
            for other in (torch.from_numpy(rows), head.float())
        ]
        for shrinkage in _SHRINKAGES
    }
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {
        "words": {word: [tokenizer.decode([token]) for token in ids] for word, ids in tokens.items()},
        "cosine": [[round(float(value), 6) for value in row] for row in rows @ rows.T],
        "shrunken": {
            name: {word: [round(ends[0], 6), round(ends[1], 6)] for word, *ends in zip(tokens, *found, strict=True)}
            for name, found in shrunken.items()
        },
    }


def basis_text(document: Mapping[str, Any]) -> str:
    """A basis for a person to read."""
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in document["seconds"].items())
    when = "when it was made; now read from the cache" if document["cached"] else "now"
    lines = [
        f"model             {document['model']}",
        f"vocabulary rows   {document['rows']:,}",
        f"width             {document['width']:,}",
        f"rank              {document['rank']:,}",
        f"condition number  {document['condition']:.4g}",
        f"round trip        {document['round_trip']:.1%} of {document['round_trip_rows']} rows: argmax(W s_i) = i",
        f"seconds           {sum(document['seconds'].values()):.1f} ({parts}; {when})",
        f"folder            {document['folder']}",
    ]
    if "words" in document:
        lines += ["", *_matrix(document["words"], document["cosine"]), "", *_moves(document["shrunken"])]
    return "\n".join(lines)


def _moves(shrunken: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """How far shrinkage moves each word's row from the paper's basis towards the head."""
    words = list(next(iter(shrunken.values())))
    width = max(15, *(len(word) for word in words))
    head = "shrinkage  " + "  ".join(f"{word:>{width}}" for word in words) + "   cosines to basis row, head row"
    lines = [
        f"{name:9}  " + "  ".join(f"{f'{found[word][0]:.3f}, {found[word][1]:.3f}':>{width}}" for word in words)
        for name, found in shrunken.items()
    ]
    return [head, *lines]


def _matrix(words: Mapping[str, list[str]], cosine: Sequence[Sequence[float]]) -> list[str]:
    width = max(7, *(len(word) for word in words))
    pieces = [" + ".join(map(repr, tokens)) for tokens in words.values()]
    head = f"{'cosine':{width}}  " + "  ".join(f"{word:>{width}}" for word in words) + "   tokens"
    rows = zip(words, cosine, pieces, strict=True)
    return [
        head,
        *(
            f"{word:{width}}  " + "  ".join(f"{value:>{width}.3f}" for value in row) + f"   {tokens}"
            for word, row, tokens in rows
        ),
    ]
