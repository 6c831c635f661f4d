"""The card that goes with a pretrained model: from what, how, how good, and what it is not for."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import yaml

from orchestration.store.artifacts import Artifact
from workflows.config.pretrain import PretrainConfig
from workflows.inputs.corpus import MEASURED_PIECES
from workflows.results.model import Found

_LOSSES = 100  # steps
_CUT = f"Of the held-out text at most {MEASURED_PIECES:,} pieces are measured, those of smallest hash."


def model_card(
    config: PretrainConfig,
    corpus: Mapping[str, str],
    model: Artifact,
    tokenizer_digest: str,
    results: Sequence[Found],
) -> str:
    """Markdown. `corpus`: digest of each file's content, by name; `results`: of every text, the held-out one first."""
    recipe, done = model.json("identity.json")["identity"]["recipe"], model.json("provenance.json")
    steps = model.json("identity.json")["identity"]["stop_after"]
    tokens = steps * recipe["batch_rows"] * recipe["context"]
    detail, losses = results[0][1], model.json("curve.json")["loss"][:_LOSSES]
    versions = ", ".join(f"{name} {done['packages'][name]}" for name in ("vocabsem", "torch", "transformers"))
    parts = [
        f"# {config.name}",
        f"A causal language model of GPT-2's shape with {detail.trained_weights:,} weights (width {recipe['width']}, "
        f"{recipe['layers']} layers, {recipe['heads']} heads, context {recipe['context']}, a byte-level BPE vocabulary "
        f"of {recipe['vocabulary']:,}, input and output embeddings tied), float16 safetensors "
        f"(xxh3-128 `{weights_digest(model)}`).",
        *([config.description.strip()] if config.description else []),
        "## How it was made",
        f"`vocabsem run` on a file with `workflow: pretrain`; {steps:,} of {recipe['steps']:,} steps of "
        f"{recipe['batch_rows']} x {recipe['context']} tokens, {tokens:,} tokens in all, "
        f"{(detail.costs.fit or 0) / 3600:.2f} hours of training ({versions}). Muon for the blocks' matrices, AdamW "
        f"for the rest; learning rate {recipe['learning_rate']:g} after {recipe['warmup_steps']} steps of warm-up, "
        f"falling linearly to zero; weight decay {recipe['weight_decay']:g}; seed {recipe['seed']}. The workflow file:",
        f"```yaml\n{_recipe(config)}```",
        "Corpus, by file with the xxh3-128 of its content "
        f"({100 * config.corpus.held_out:g}% of it held out by hash):\n\n"
        + "\n".join(f"- {name} `{digest}`" for name, digest in corpus.items()),
        "## Bits per byte of text it has not seen",
        "| text | texts | bits per byte | 95 % interval |\n| --- | --- | --- | --- |\n"
        + "\n".join(f"| {r.task} | {r.n_test:,} | {r.mean:.3f} | {r.low:.3f} to {r.high:.3f} |" for r, _ in results)
        + (f"\n\n{_CUT}" if results[0][0].n_test == MEASURED_PIECES else ""),
        "## To check a rerun against",
        f"With the same corpus and `training.stop_after: {len(losses)}` the same tokenizer comes out (tokenizer.json: "
        f"xxh3-128 `{tokenizer_digest}`), and within rounding the same losses, in nats a token:",
        "```\n" + "\n".join(textwrap.wrap(" ".join(f"{loss:.3f}" for loss in losses), 120)) + "\n```",
        "## Limits",
        "A small model of the text named above and of nothing else: it knows few facts, continues text rather than "
        "follows instructions, and repeats what its corpus holds, prejudice included. It is for experiments.",
    ]
    return "\n\n".join(parts) + "\n"


def weights_digest(model: Artifact) -> str:
    """The xxh3-128 of the weights' file, by which a card is known to be of this model."""
    return str(model.manifest["files"]["model.safetensors"]["xxh3"])


def _recipe(config: PretrainConfig) -> str:
    """What the user wrote, but for where it runs and the description, which the card holds already."""
    said = config.model_dump(mode="json", exclude_unset=True, exclude={"execution", "description", "store", "output"})
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
