"""Pictures of a sweep, by Optuna: which settings go with which scores, and how much each setting matters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflows.config.space import Space
from workflows.search.proposals import finished_trial

_LEAST = 4  # configurations, for the importances to mean anything


def plot_sweep(records: Sequence[Mapping[str, Any]], space: Space, metric: str, folder: Path) -> None:
    """Write parallel-coordinates.png, and importance.png where several settings vary and scores differ."""
    import matplotlib
    import optuna
    from matplotlib import pyplot, ticker

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    inside = [
        record
        for record in records
        if record["validation"] is not None
        and all(domain.holds(record["settings"][name]) for name, domain in space.items())
    ]
    study = optuna.create_study(direction="maximize")
    study.add_trials([finished_trial(record, space) for record in inside])
    named = f"{metric} on validation rows"
    with matplotlib.rc_context({"backend": "agg", "figure.dpi": 110}), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        from optuna.visualization import matplotlib as plots

        if inside:
            plots.plot_parallel_coordinate(study, target_name=named)
            for axes in pyplot.gcf().axes:  # of a logarithmic axis the decades alone: the others would cover the lines
                axes.yaxis.set_minor_formatter(ticker.NullFormatter())
            _save(pyplot, folder / "parallel-coordinates.png", 3 + 1.6 * len(space))
        if len(inside) >= _LEAST and len(space) > 1 and len({record["validation"] for record in inside}) > 1:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            axes = plots.plot_param_importances(study, evaluator=evaluator, target_name=named)
            axes.legend(loc="lower right")  # the bars there are the shortest
            _save(pyplot, folder / "importance.png", 7)


def _save(pyplot: Any, path: Path, width: float) -> None:
    figure = pyplot.gcf()
    figure.set_size_inches(width, 4.5)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
