"""Anomaly detection: a class that nobody has seen, told by its affinity to the known classes' bases.

    python examples/anomalies.py digits                        # a digit left out, each in turn (1 min)
    python examples/anomalies.py texts --data-dir DATA         # a topic of AG News left out, SmolLM2-135M
    python examples/anomalies.py texts                         # the same on the bundled starter topics

Each detector scores the test rows of the known classes and of the class left out. AUROC and FPR95 are means over the
classes left out; intervals are 95 % bootstrap over rows. `--out FILE.json` writes them, `--plot FILE.png` draws them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

import vocabsem
from vocabsem_core.baselines.anomalies import energy, highest, mahalanobis, max_softmax, neighbour_distance
from vocabsem_core.names import Detection
from vocabsem_core.statistics.anomalies import detection, detection_draws

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)  # of calibrations, whose scores are averaged
TRAIN, TEST = 40, 60  # texts of each topic
OURS = "affinity, calibrated"


@dataclass(frozen=True)
class Case:
    """One class left out.

    Attributes:
        name: of that class.
        train, labels: states of training rows of the known classes [m, d], and their class numbers [m].
        test, logits: states of all test rows [n, d], and the model's own logits of the known classes [n, c].
        unseen: which of the test rows are of the class left out, [n].
        basis: of the known classes, [c, d].
    """

    name: str
    train: Tensor
    labels: Tensor
    test: Tensor
    logits: Tensor
    unseen: np.ndarray
    basis: Tensor


def scores(case: Case) -> dict[str, Tensor]:
    """Every detector's scores of the test rows, [n]. None has seen the class that is left out."""
    centre, middle = case.train.mean(dim=0), case.basis.mean(dim=0)
    train, test, basis = case.train - centre, case.test - centre, case.basis - middle
    calibrated = [vocabsem.calibrate(train, case.labels, basis, seed=seed).logits(test) for seed in SEEDS]
    probed = vocabsem.probe(case.train, case.labels).logits(case.test)
    return {
        "affinity": highest(vocabsem.semantic_logits(case.test, case.basis)),
        "affinity, centred": highest(vocabsem.semantic_logits(test, basis)),
        OURS: torch.stack([highest(logits) for logits in calibrated]).mean(dim=0),
        "maximum softmax": max_softmax(case.logits),
        "energy": energy(case.logits),
        "maximum softmax of a probe": max_softmax(probed),
        "energy of a probe": energy(probed),
        "Mahalanobis": mahalanobis(case.test, case.train, case.labels),
        "kNN distance": neighbour_distance(case.test, case.train),
    }


def digits(_: Path | None) -> Iterator[Case]:
    """A CNN trained on nine digits; its head has no row for the tenth."""
    sys.path.insert(0, str(Path(__file__).parent))
    from digits.network import architecture, part, trained

    (source, of_source), (images, of_train), (tests, of_test) = map(part, ("source", "train", "test"))
    for left_out in range(10):
        known = [number for number in range(10) if number != left_out]
        place = {number: row for row, number in enumerate(known)}
        seen = of_source != left_out
        classes = np.array([place[number] for number in of_source[seen]])
        encoder = vocabsem.ModuleEncoder(trained(architecture(9), source[seen], classes, 30), torch.zeros(1, 8, 8))
        learned = of_train != left_out
        train, test = (encoder.encode(torch.tensor(rows).float()[:, None]) for rows in (images[learned], tests))
        yield Case(
            str(left_out),
            train,
            torch.tensor([place[number] for number in of_train[learned]]),
            test,
            encoder.head.logits(test),
            of_test == left_out,
            vocabsem.semantic_basis([encoder.head.weight]).rows(encoder.head.weight),
        )


def texts(data_dir: Path | None) -> Iterator[Case]:
    """SmolLM2 on topics; the bases are those of the known topics' words."""
    template = "Input: {text}\nType:"
    folder = ROOT / "workflows/catalog/starter/topics" if data_dir is None else data_dir / "agnews"
    model, tokenizer = vocabsem.load_model("smollm2-135m")
    splits = []
    for split, most in (("train", TRAIN), ("test", TEST)):
        rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        names = sorted({row["label"] for row in rows})
        kept = [row for name in names for row in [one for one in rows if one["label"] == name][:most]]
        states = vocabsem.encode_texts(model, tokenizer, [row["text"] for row in kept], template)["head"]
        splits.append((states, np.array([names.index(row["label"]) for row in kept])))
    (train, of_train), (test, of_test) = splits
    basis = vocabsem.label_basis(model, tokenizer, {name: name for name in names}, template)
    head = vocabsem.head_of(model)
    words = [tokenizer.encode(f" {name}")[0] for name in names]
    logits = test @ head.weight[words].float().T.cpu()
    for left_out, name in enumerate(names):
        known = [number for number in range(len(names)) if number != left_out]
        learned = of_train != left_out
        classes = torch.tensor([known.index(number) for number in of_train[learned]])
        rows = train[torch.from_numpy(learned)]
        yield Case(name, rows, classes, test, logits[:, known], of_test == left_out, basis[known])


def table(cases: Iterator[Case]) -> list[dict[str, object]]:
    """A row for each detector."""
    values: dict[tuple[str, str], list[float]] = {}
    draws: dict[tuple[str, str], list[np.ndarray]] = {}
    for number, case in enumerate(cases):
        for detector, found in scores(case).items():
            known, unseen = (found.double().numpy()[chosen] for chosen in (~case.unseen, case.unseen))
            for metric in get_args(Detection):
                values.setdefault((detector, metric), []).append(detection(known, unseen, metric))
                draws.setdefault((detector, metric), []).append(detection_draws(known, unseen, metric, seed=number))
        print(f"left out: {case.name}", file=sys.stderr)
    rows = []
    for detector in dict.fromkeys(name for name, _ in values):
        row: dict[str, object] = {"detector": detector}
        for metric in get_args(Detection):
            mine = np.mean(draws[detector, metric], axis=0)
            lead = np.mean(draws[OURS, metric], axis=0) - mine
            row[metric] = [float(np.mean(values[detector, metric])), *map(float, np.quantile(mine, [0.025, 0.975]))]
            row[f"lead in {metric}"] = list(map(float, np.quantile(lead, [0.025, 0.975])))
        rows.append(row)
    return rows


def shown(rows: list[dict[str, object]]) -> str:
    """The table in Markdown."""
    lines = [
        f"| detector | AUROC | FPR95 | AUROC of {OURS}, less this |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        auroc, fpr95 = (f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in (row["auroc"], row["fpr95"]))  # type: ignore[misc]
        low, high = row["lead in auroc"]  # type: ignore[misc]
        lead = "" if row["detector"] == OURS else f"{low:+.3f} to {high:+.3f}"
        lines.append(f"| {row['detector']} | {auroc} | {fpr95} | {lead} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, object]], file: Path, title: str) -> None:
    """AUROC with its interval, a line a detector."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.36 * len(rows) + 1.2))
    for place, row in enumerate(reversed(rows)):
        mean, low, high = row["auroc"]  # type: ignore[misc]
        ours = str(row["detector"]).startswith("affinity")
        colour = "#b4441c" if ours else "#4a5a6a"
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(mean, place, "o", color=colour)
    axes.set_yticks(range(len(rows)), [str(row["detector"]) for row in reversed(rows)])
    axes.set_xlabel("AUROC, 95 % interval")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=130)


CASES: dict[str, Callable[[Path | None], Iterator[Case]]] = {"digits": digits, "texts": texts}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=CASES)
    parser.add_argument("--data-dir", type=Path, help="folder with agnews/train.jsonl and test.jsonl")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1 if asked.what == "digits" else torch.get_num_threads())  # threads slow small tensors
    rows = table(CASES[asked.what](asked.data_dir))
    print(shown(rows))
    if asked.out is not None:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if asked.plot is not None:
        draw(rows, asked.plot, f"Unseen classes: {asked.what}")


if __name__ == "__main__":
    main()
