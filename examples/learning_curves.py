"""Scores of a run by rows per class, with intervals.

python examples/learning_curves.py FILE.png [RUN] [--store FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

import vocabsem

DARK = {"calibration": "#b4441c", "semantic-prior": "#d98a2b", "affinity-centred": "#8c5a2b", "affinity": "#c9a37a"}
OTHERS = ["#1f4e79", "#2e9d7b", "#6a4c93", "#9aa5ab", "#d1459a", "#111111"]


def main() -> None:
    """Draw a panel for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("run", nargs="?", default="latest")
    parser.add_argument("--store")
    asked = parser.parse_args()
    rows = vocabsem.open_run(asked.run, store=asked.store).table()
    sizes = sorted(rows["train_size"].unique(), key=lambda size: float("inf") if size == "full" else int(size))
    tasks, methods = list(dict.fromkeys(rows["task"])), list(dict.fromkeys(rows["method"]))
    others = iter(OTHERS)
    colours = {method: DARK.get(method) or next(others) for method in methods}
    figure, panels = plt.subplots(1, len(tasks), figsize=(5.2 * len(tasks) + 1.6, 4), sharey=True, squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        for place, method in enumerate(methods):
            mine = rows[(rows["task"] == task) & (rows["method"] == method)]
            found = {row["train_size"]: row for _, row in mine.iterrows()}
            # What reads no labelled rows has one score for all sizes.
            shown = [found.get(size, found["full"]) if len(found) == 1 else found[size] for size in sizes]
            where = [n + 0.03 * (place - len(methods) / 2) for n in range(len(sizes))]
            means = [row["mean"] for row in shown]
            gaps = [[row["mean"] - row["low"] for row in shown], [row["high"] - row["mean"] for row in shown]]
            style = {"label": method, "color": colours[method], "marker": "o", "ms": 4, "lw": 1.4, "elinewidth": 1}
            panel.errorbar(where, means, gaps, **style)
        panel.set_xticks(range(len(sizes)), ["all" if size == "full" else str(size) for size in sizes])
        panel.set_xlabel("training rows per class")
        panel.set_title(task, loc="left", fontsize=10)
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("accuracy, 95 % interval")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="center right", frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1 - 1.5 / (5.2 * len(tasks) + 1.6), 1))
    figure.savefig(asked.file, dpi=120)


if __name__ == "__main__":
    main()
