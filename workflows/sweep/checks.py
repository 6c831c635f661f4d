"""What of a sweep makes no sense, or is another's that goes by its name: refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestration.graph import Step
from orchestration.ray_backend.tune import finished
from orchestration.store.artifacts import Store
from workflows.config.compare import MethodConfig
from workflows.config.space import Domain, check_space, grid_settings, random_settings
from workflows.config.sweep import SweepConfig
from workflows.errors import ConfigError
from workflows.methods.registry import METHODS
from workflows.methods.resolved import ResolvedMethod, resolve
from workflows.search.trials import best_first, refusal
from workflows.steps.sweep import SWEEP


def sweep_method(config: SweepConfig, base: Path = Path()) -> ResolvedMethod:
    """The method with its fixed settings and the space that is searched, checked.

    `base` is the folder that relative paths start from. Raises ConfigError, also for stopping where nothing tells
    epochs.
    """
    method = resolve(MethodConfig(method=config.method, layer=config.layer, settings=config.settings), base)
    return replace(method, space=_checked_space(config, method))


def _checked_space(config: SweepConfig, resolved: ResolvedMethod) -> Mapping[str, Domain]:
    method, fixed = resolved.method, dict(resolved.settings)
    space = resolved.space if config.space is None else config.space
    if resolved.demonstrations != "none":
        raise ConfigError(
            f"method {method.name!r} has demonstrations before its prompts, which a sweep has not; "
            "compare it: `workflow: compare` searches its settings too",
            ("method",),
        )
    if method.input_kind == "prompts":
        told = "trains the language model itself, and a sweep is over stored states; `vocabsem run` searches it"
        raise ConfigError(f"method {method.name!r} {told}", ("method",))
    if not resolved.learns:
        raise ConfigError(f"method {method.name!r} reads no training rows, so there are none to choose by", ("method",))
    try:
        space = check_space(method.name, method.Settings, space, fixed)
        refused = partial(refusal, method)
        if config.search.algorithm == "grid":
            grid_settings(space, fixed, refused)
        else:
            random_settings(space, fixed, 2, config.search.seed, refused)
    except ConfigError as error:
        raise ConfigError(str(error), ("space", *error.place)) from error
    if config.search.stopping != "none" and not (method.has_epochs and "epochs" in method.Settings.model_fields):
        able = sorted(name for name, known in METHODS.items() if known.has_epochs and known.input_kind == "features")
        lacks = "has no setting `epochs`" if method.has_epochs else "never reports a loss while it is fitted"
        told = f"method {method.name!r} {lacks}; use `none`, or one of {', '.join(able)}"
        raise ConfigError(f"stopping {config.search.stopping!r}: {told}", ("search", "stopping"))
    return space


def check_same(name: str, search: Step, store: Store) -> None:
    """Raises ConfigError where an unfinished sweep has this name and searches something else."""
    if store.find(search) is not None:
        return
    for path in sorted((store.root / "scratch" / search.name).glob(f"*/{SWEEP}")):
        if path.parent.name == Path(search.folder).name:
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # it has just ended
            continue
        if found["name"] != name or not best_first(finished(path.parent)):  # there is nothing to go on with
            continue
        told = (
            "; ".join(_differences(found.get("asked", {}), search.local["asked"]))
            or "its rows or its model have changed"
        )
        raise ConfigError(
            f"sweep {name!r} was started with other contents and is not finished: {told}. Change it back to resume "
            f"it, give this one another `name`, or remove {path.parent} to start again.",
            ("name",),
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for field in sorted(old.keys() | new.keys()):
        before, after = old.get(field), new.get(field)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            lines += [f"{field}.{line}" for line in _differences(before, after)]
        else:
            lines.append(f"{field} was {before}, is {after}")
    return lines
