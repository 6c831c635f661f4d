"""CartPole with a longer pole: adapts a policy by an expert's demonstrations, and lets each adapted policy drive.

    python examples/control/run.py [--plot FILE.png] [--out FILE.json]

First comes `vocabsem run examples/control/compare.yaml`, whose accuracy says how often a policy acts as the expert.
What counts is the return: steps until the pole falls, of 100 episodes that start alike for every policy. The lead over
behaviour cloning of the last layer is paired: the same demonstrations, the same starts. Intervals are 95 % bootstrap
over both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from control.network import LONGER, MOST, ORDINARY, Policy, expert, returns  # noqa: E402

import vocabsem  # noqa: E402
from vocabsem_core.statistics.metrics import INTERVAL, draws_of_items  # noqa: E402
from vocabsem_core.statistics.paired_tests import in_pairs  # noqa: E402
from workflows.compare.candidates import candidates  # noqa: E402
from workflows.config.yaml_file import read_workflow  # noqa: E402
from workflows.kind import Asked  # noqa: E402
from workflows.prediction.choice import Classifier, facts_of  # noqa: E402
from workflows.prediction.service import Service  # noqa: E402
from workflows.registry import WORKFLOWS  # noqa: E402

EPISODES, STARTS = 100, 3000  # of each policy, and the seed of how they start
REFERENCE = "last-layer"  # behaviour cloning of the head


Interval = tuple[float, float, float]  # mean, low, high


@dataclass(frozen=True)
class Line:
    """What a method's policies come to with some demonstrated steps.

    Attributes:
        size: steps of each action.
        returned: the return, with its interval.
        sd_seeds: its standard deviation over seeds; None where the policy is the same for all.
        lead: by how much it is above that of the reference; None for the reference itself.
    """

    method: str
    size: int
    returned: Interval
    sd_seeds: float | None
    lead: Interval | None


def driven(file: Path, run: vocabsem.Run) -> dict[tuple[str, int], np.ndarray]:
    """The returns of every fit of a run with the longer pole, [seeds, episodes], by method and training size."""
    config: Any = read_workflow(file, WORKFLOWS)
    encoder = vocabsem.open_network(config.models[0], file.parent).encoder
    known: dict[str, np.ndarray] = {}  # by key: a method that reads no demonstration has one fit for all
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for size in config.train_sizes:
        for seed in config.seeds:
            asked = Asked(seed=seed, train_size=size)
            for one in candidates(config, file.parent, None, facts_of(run.store), asked):
                if (key := one.fit.key) not in known:
                    service = Service(Classifier(one, run.store.need(one.fit), {}, {}, None, "as asked"), run.store)
                    read = encoder if one.fit.identity["layer"] == "head" else None
                    known[key] = returns(policy_of(service, read), LONGER, EPISODES, STARTS)
                found.setdefault((one.method, size), {})[key] = known[key]
        print(f"driven: {size} steps of each action", file=sys.stderr)
    return {place: np.stack(list(mine.values())) for place, mine in found.items()}


def policy_of(service: Service, encoder: vocabsem.ModuleEncoder | None) -> Policy:
    """What a stored fit does at each step, by states at the head, or without an encoder by the observation itself."""

    def act(observed: np.ndarray) -> np.ndarray:
        states = {"layer_00": observed}
        if encoder is not None:
            states["head"] = encoder.encode(torch.from_numpy(observed)).numpy()
        return service.scores_of(states).argmax(dim=1).numpy()

    return act


def judged(found: Mapping[tuple[str, int], np.ndarray]) -> list[Line]:
    """A line for each method and size."""
    lines = []
    for (method, size), mine in found.items():
        pair, other = in_pairs(mine, found[REFERENCE, size])
        lead = None if method == REFERENCE else interval_of(pair - other)
        deviation = float(mine.mean(axis=1).std(ddof=1)) if len(mine) > 1 else None
        lines.append(Line(method, size, interval_of(mine), deviation, lead))
    return lines


def interval_of(values: np.ndarray) -> Interval:
    """The mean of values [seeds, episodes], and its interval over draws of both with replacement."""
    random, (seeds, episodes) = np.random.default_rng(0), values.shape
    of_seeds, of_episodes = (np.concatenate(list(draws_of_items(n, random))) for n in (seeds, episodes))
    draws = ((of_seeds @ values) * of_episodes).sum(axis=1) / (seeds * episodes)
    low, high = np.quantile(draws, INTERVAL)
    return float(values.mean()), float(low), float(high)


def table(lines: Sequence[Line]) -> str:
    """The lines in Markdown: a row for each method, the best with the most demonstrations first."""
    sizes = sorted({line.size for line in lines})
    found = {(line.method, line.size): line for line in lines}
    methods = sorted({line.method for line in lines}, key=lambda name: -found[name, sizes[-1]].returned[0])
    heads = [f"{size} steps" for size in sizes] + [f"{size}: above {REFERENCE}" for size in sizes]
    rows = [f"| return | {' | '.join(heads)} |", "| --- " * (1 + len(heads)) + "|"]
    for name in methods:
        mine = [found[name, size] for size in sizes]
        cells = ["{:.0f} ({:.0f} to {:.0f})".format(*line.returned) for line in mine]
        cells += ["" if line.lead is None else "{:+.0f} ({:+.0f} to {:+.0f})".format(*line.lead) for line in mine]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(lines: Sequence[Line], file: Path) -> None:
    """Return by demonstrated steps, with intervals."""
    import matplotlib.pyplot as plt
    from learning_curves import DARK, OTHERS

    figure, axes = plt.subplots(figsize=(7.6, 4.2))
    sizes, methods = sorted({line.size for line in lines}), list(dict.fromkeys(line.method for line in lines))
    others = iter(OTHERS)
    for place, method in enumerate(methods):
        where = [n + 0.04 * (place - len(methods) / 2) for n in range(len(sizes))]
        mine = np.array([line.returned for line in sorted(lines, key=lambda one: one.size) if line.method == method])
        means, gaps = mine[:, 0], np.stack([mine[:, 0] - mine[:, 1], mine[:, 2] - mine[:, 0]]).clip(0)
        colour = DARK.get(method) or next(others)
        axes.errorbar(where, means, gaps, label=method, color=colour, marker="o", ms=4, lw=1.4, elinewidth=1)
    axes.set_xticks(range(len(sizes)), list(map(str, sizes)))
    axes.set_xlabel("demonstrated steps of each action")
    axes.set_ylabel(f"return with the longer pole, of {MOST}; 95 % interval")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="center right", frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.8, 1))
    figure.savefig(file, dpi=120)


def main() -> None:
    """Compare, drive, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=str(HERE / "store"), help="folder of the results")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # threads slow small tensors
    file = HERE / "compare.yaml"
    module = vocabsem.open_network("network.py:policy", HERE).network.module

    def untouched(observed: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(observed)).argmax(dim=1).numpy()

    for name, policy, half_length in (
        ("the policy, ordinary pole", untouched, ORDINARY),
        ("the expert, longer pole", expert(LONGER), LONGER),
    ):
        print(f"{name}: return {returns(policy, half_length, EPISODES, STARTS).mean():.0f}")
    run = vocabsem.run(file, store=asked.store)
    print(run.table().pivot_table(index="method", columns="train_size", values="mean").round(3).to_string())
    lines = judged(driven(file, run))
    print(table(lines))
    if asked.out is not None:
        asked.out.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")
    if asked.plot is not None:
        draw(lines, asked.plot)


if __name__ == "__main__":
    main()
