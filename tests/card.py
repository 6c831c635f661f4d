"""Whether the bundled recipes still make what their models' cards say: the tokenizer, and the first losses.

python -m tests.card CORPUS [NAME ...] [--executor inline] [--store FOLDER]

CORPUS is the folder with the text that the cards name; its digests are looked at first. Each recipe runs with
`training.stop_after`, so that the rate's schedule is that of the whole training, and its new card is read beside the
bundled one. Exit status 1 where something differs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer
import yaml

from orchestration.store.files import checksum

CATALOG = Path(__file__).parents[1] / "workflows" / "catalog"
NAMES = ("reference-1m", "reference-3m", "reference")
WITHIN, ON_AVERAGE = 0.05, 0.005  # nats a token, of one loss and of all: see docs/pretrain.md


@dataclass(frozen=True)
class Card:
    """What a card says a rerun must show.

    Attributes:
        corpus: digest of each file, by name.
        tokenizer: digest of tokenizer.json.
        losses: of the first steps, in nats a token, with three decimals.
    """

    corpus: dict[str, str]
    tokenizer: str
    losses: list[float]


def read_card(path: Path) -> Card:
    """The card of a model's folder. Raises ValueError where it is none of a pretrained model."""
    text = (path / "README.md").read_text(encoding="utf-8")
    tokenizer = re.search(r"tokenizer\.json: xxh3-128 `(\w+)`", text)
    losses = re.search(r"nats a token:\n\n```\n([-\d.\s]+)```", text)
    if tokenizer is None or losses is None:
        raise ValueError(f"{path}: no card of a pretrained model; found no digest of a tokenizer, or no losses")
    corpus = dict(re.findall(r"^- (.+) `(\w{32})`$", text, re.MULTILINE))
    return Card(corpus, tokenizer[1], [float(loss) for loss in losses[1].split()])


def rerun(name: str, corpus: Path, steps: int, folder: Path, options: Sequence[str]) -> Path:
    """Run a recipe's first steps within `folder`; the folder of its model."""
    recipe = yaml.safe_load((CATALOG / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    recipe["training"]["stop_after"] = steps
    del recipe["evaluation"]  # texts of tasks, which decide nothing of this
    (folder / "corpus").symlink_to(corpus.resolve())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "workflows", "run", str(folder / "recipe.yaml"), *options]
    subprocess.run(command, check=True)
    return folder / "models" / name


def differences(told: Card, found: Card) -> list[str]:
    """What differs from the bundled card, a line each."""
    lines = []
    if found.tokenizer != told.tokenizer:
        lines.append(f"tokenizer.json is {found.tokenizer}; the card has {told.tokenizer}")
    if len(found.losses) != len(told.losses):
        lines.append(f"{len(found.losses)} losses; the card has {len(told.losses)}")
    for step, (loss, expected) in enumerate(zip(found.losses, told.losses, strict=False)):
        if not abs(loss - expected) <= WITHIN:
            lines.append(f"step {step}: loss {loss:.3f}; the card has {expected:.3f}, and allowed are {WITHIN}")
    if not (average := fmean(apart(told, found))) <= ON_AVERAGE:
        lines.append(f"losses are {average:.4f} from the card's on average; allowed are {ON_AVERAGE}")
    return lines


def apart(told: Card, found: Card) -> list[float]:
    """How far each loss is from the card's."""
    return [abs(loss - expected) for loss, expected in zip(found.losses, told.losses, strict=False)]


def check(name: str, corpus: Path, store: Path, executor: str) -> bool:
    """Rerun, compare, print; whether nothing differs."""
    told = read_card(CATALOG / "models" / name)
    there = {str(path.relative_to(corpus)): checksum(path) for path in sorted(corpus.glob("*/*.txt.gz"))}
    if sorted(there.values()) != sorted(told.corpus.values()):  # a card may name them by folder or without
        print(f"{corpus}: not the text of the card of {name}; found {there}, the card has {told.corpus}")
        return False
    with TemporaryDirectory() as place:
        mlflow = f"sqlite:///{place}/mlflow.db"
        options = ["--store", str(store), "--mlflow", mlflow, "--executor", executor]
        found = read_card(rerun(name, corpus, len(told.losses), Path(place), options))
    far = apart(told, found)
    print(
        f"{name}: tokenizer {found.tokenizer}; {len(far)} losses, on average {fmean(far):.4f} from the card's, at most "
        f"{max(far):.3f} (step {far.index(max(far))})"
    )
    lines = differences(told, found)
    print("\n".join(lines) or f"{name}: as its card says")
    return not lines


def main(
    corpus: Annotated[Path, typer.Argument(help="Folder of the texts that the models were trained on.")],
    names: Annotated[list[str] | None, typer.Argument(help=f"Models (default: {', '.join(NAMES)}).")] = None,
    executor: Annotated[Literal["ray", "inline"], typer.Option(help="As of `vocabsem run`.")] = "ray",
    store: Annotated[Path | None, typer.Option(help="Store of the runs (default: a temporary one).")] = None,
) -> None:
    """Pretrain the bundled models again and compare them with their cards. Exit status 1 if anything differs."""
    with TemporaryDirectory() as folder:
        place = store or Path(folder) / "store"
        done = [check(name, corpus, place, executor) for name in names or NAMES]
    raise typer.Exit(int(not all(done)))


if __name__ == "__main__":
    typer.run(main)
