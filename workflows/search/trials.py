"""Configurations tried out on validation rows: fitted side by side where their structure allows, scored, recorded.

A configuration is plain data, {"key", "settings", "seed"}, for it travels to workers and into files; so is its record,
which adds

    ended         "finished", "stopped" early, "failed" (these settings cannot be trained), or "lost" (no memory for it,
                  or its worker died)
    validation    the task's metric on the validation rows, None where there is no result
    loss, curve   the validation loss of the weights kept, and that after each epoch
    error         what went wrong, or ""
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from orchestration.execution.work import StepContext
from orchestration.graph import KEY_CHARACTERS, key_of
from orchestration.ray_backend.placement import lacks_memory
from orchestration.ray_backend.trial_queue import part_of
from orchestration.store.scratch import withdraw
from vocabsem_core.errors import InputError
from workflows.config.space import Settings, Space, grid_settings, random_settings
from workflows.methods.base import Fitted, Method, TaskInput, check_scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


Configuration = dict[str, Any]
Record = dict[str, Any]
Outcome = TypeVar("Outcome")
Watch = Callable[[int, Mapping[str, float]], Collection[str]]  # (epoch, key -> validation loss) -> keys to end
_MOST_SIDE_BY_SIDE = {"cpu": 64, "cuda": 512}  # beyond, nothing is gained
_CACHE = 48 << 20  # bytes of fits that a processor trains side by side (ours): more leave its cache at every step
_MEMORY_SHARE = 0.25  # of what is free, for all fits that run at once
_ROWS = 4096  # predicted at once


def configuration(method: Method, given: Mapping[str, Any], seed: int) -> Configuration:
    """Settings with every default written out, and the key that names them."""
    settings = method.Settings.model_validate(given).model_dump(mode="json")
    return {"key": key_of({"settings": settings, "seed": seed})[:KEY_CHARACTERS], "settings": settings, "seed": seed}


def refusal(method: Method, given: Mapping[str, Any]) -> str | None:
    """Why the method cannot have these settings together; None where it can."""
    try:
        method.Settings.model_validate(given)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None


def listed(method: Method, space: Space, fixed: Settings, trials: int | None, seed: int) -> list[Configuration]:
    """The defaults and random draws, `trials` in all where the space has so many; with None, every combination.

    Settings that the method refuses together are left out.
    """
    refused = partial(refusal, method)
    if trials is None:
        drawn = grid_settings(space, fixed, refused)
    else:
        drawn = random_settings(space, fixed, trials + 1, seed, refused)
    unique = {one["key"]: one for given in drawn if (one := configuration(method, given, seed))}
    return list(unique.values())[:trials]  # one may be the defaults written out


def packs_of(
    method: Method, configurations: Iterable[Configuration], most: Callable[[Configuration], int]
) -> list[list[Configuration]]:
    """Groups of one structure, in order of their first, each of at most as many configurations as `most` says of it."""
    groups: dict[Any, list[Configuration]] = {}
    for one in configurations:
        groups.setdefault(method.structure(settings_of(method, one)), []).append(one)
    return [
        group[start : start + size]
        for group in groups.values()
        for size in [most(group[0])]
        for start in range(0, len(group), size)
    ]


def pack_size(method: Method, materials: TaskInput, concurrent: int, one: Configuration) -> int:
    """How many configurations like this one are fitted side by side on each of `concurrent` workers.

    One where nothing is gained: what a pack comes to is known, and kept, at its end alone.
    """
    if not method.batched:
        return 1
    return side_by_side(method.fit_bytes(settings_of(method, one), materials), materials.device, concurrent)


def side_by_side(needed: int, device: str, concurrent: int) -> int:
    """How many fits of `needed` bytes go side by side: what memory and, on a processor, its cache have room for.

    A GPU's memory is not looked at: a pack that does not fit there is split.
    """
    from vocabsem_core.numerics.memory import free_bytes

    room = int(free_bytes() * _MEMORY_SHARE / concurrent)
    if device == "cpu":
        room = min(room, _CACHE)
    return max(1, min(_MOST_SIDE_BY_SIDE[device], room // max(1, needed)))


@contextmanager
def telling(work: StepContext, pack: Sequence[Configuration]) -> Iterator[None]:
    """Within, the ticks of a pack's fits are told as a part of the step's trials."""
    from vocabsem_core.numerics.ticks import listening

    part = part_of(pack)

    def tell(done: float, of: float, unit: str, note: str) -> None:
        told = f"{int(done):,} of {int(of):,} {unit}"
        work.tell(len(pack) * done / of, 0, "trials", f"{told}, {note}" if note else told, part)

    try:
        with listening(tell):
            yield
    finally:
        withdraw(work.scratch, part)


def try_pack(
    method: Method, materials: TaskInput, pack: Sequence[Configuration], metric: Any, watch: Watch | None = None
) -> list[Record]:
    """A record for each configuration of a pack."""
    return within_memory(
        pack,
        lambda part: _try_at_once(method, materials, part, metric, watch),
        lambda one, error: _record(one, "lost", error=f"out of memory: {error}"),
    )


def within_memory(
    pack: Sequence[Configuration],
    attempt: Callable[[Sequence[Configuration]], list[Outcome]],
    give_up: Callable[[Configuration, str], Outcome],
) -> list[Outcome]:
    """What `attempt` makes of a pack; where memory does not suffice, of half as many at a time."""
    try:
        return attempt(pack)
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        if len(pack) == 1:
            return [give_up(pack[0], str(error).splitlines()[0] if str(error) else "MemoryError")]
    _give_back_unused()
    half = len(pack) // 2
    return [outcome for part in (pack[:half], pack[half:]) for outcome in within_memory(part, attempt, give_up)]


def _give_back_unused() -> None:
    """What PyTorch keeps of a GPU for its next tensors, for libraries that ask for memory of their own."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _try_at_once(
    method: Method, materials: TaskInput, pack: Sequence[Configuration], metric: Any, watch: Watch | None
) -> list[Record]:
    curves: list[list[float]] = [[] for _ in pack]
    stopped: set[int] = set()

    def listen(epoch: int, losses: Mapping[int, float]) -> Collection[int]:
        for place, loss in losses.items():
            curves[place].append(loss)
        if watch is None:
            return ()
        keys = {pack[place]["key"]: place for place in losses}
        ended = {keys[key] for key in watch(epoch, {key: losses[place] for key, place in keys.items()})}
        stopped.update(ended)
        return ended

    jobs = [(settings_of(method, one), one["seed"]) for one in pack]
    fits = list(method.fit_many(jobs, materials, listen))
    whole = {place: fit for place, fit in enumerate(fits) if isinstance(fit, Fitted)}
    asked = [(jobs[place][0], fit.tensors) for place, fit in whole.items()]
    scores = dict(zip(whole, _validation_scores(method, asked, materials, metric), strict=True))
    records = []
    for place, (one, fit) in enumerate(zip(pack, fits, strict=True)):
        curve, score = curves[place], fit if isinstance(fit, InputError) else scores[place]
        if isinstance(fit, InputError) or isinstance(score, InputError):
            finite = [loss for loss in curve if loss - loss == 0]
            records.append(_record(one, "failed", curve=finite, error=str(score)))
            continue
        cut = place in stopped and fit.epochs != getattr(jobs[place][0], "epochs", None)
        ended = "stopped" if cut else "finished"  # what is stopped after its last epoch is whole
        records.append(_record(one, ended, validation=score, loss=fit.validation_loss, curve=curve))
    return records


def _record(
    one: Configuration,
    ended: str,
    validation: float | None = None,
    loss: float | None = None,
    curve: Sequence[float] = (),
    error: str = "",
) -> Record:
    return {**one, "ended": ended, "validation": validation, "loss": loss, "curve": list(curve), "error": error}


def _validation_scores(
    method: Method, jobs: Sequence[tuple[Any, dict[str, Tensor]]], materials: TaskInput, metric: Any
) -> list[float | InputError]:
    """The metric of each (settings, fitted) on the validation rows; an InputError where it cannot predict."""
    import numpy as np

    from vocabsem_core.statistics.metrics import metric_of

    labels = materials.held_out[1].numpy()
    once = np.ones((1, len(labels)))
    return [
        found
        if isinstance(found, InputError)
        else float(metric_of(found[None], labels, len(materials.labels), metric, once)[0, 0])
        for found in validation_predictions(method, jobs, materials)
    ]


def validation_predictions(
    method: Method, jobs: Sequence[tuple[Any, dict[str, Tensor]]], materials: TaskInput
) -> list[np.ndarray | InputError]:
    """By each (settings, fitted) the predicted class of each validation row, [n]; an InputError where it has none.

    Some rows at a time, so that memory does not grow with them.
    """
    import torch

    rows, labels = materials.held_out
    found: list[list[Any] | InputError] = [[] for _ in jobs]
    for part in torch.arange(len(labels)).split(_ROWS):
        going = [place for place, parts in enumerate(found) if isinstance(parts, list)]
        outcomes = method.predict_many([jobs[place] for place in going], rows[part], materials)
        for place, scores in zip(going, outcomes, strict=True):
            found[place] = _with_predicted(found[place], method, scores, len(part), len(materials.labels))
    return [parts if isinstance(parts, InputError) else torch.cat(parts).numpy() for parts in found]


def _with_predicted(parts: Any, method: Method, scores: Tensor | InputError, rows: int, classes: int) -> Any:
    """The predicted classes of one part of the rows more, or the InputError that ends them."""
    if isinstance(scores, InputError):
        return scores
    try:
        check_scores(method, scores, rows, classes)
    except InputError as error:
        return error
    return [*parts, scores.argmax(dim=1)]


def best_first(records: Iterable[Record]) -> list[Record]:
    """What was trained, by validation score; of equal ones the lower validation loss, then the earlier, comes first."""
    trained = [record for record in records if record["ended"] in ("finished", "stopped")]
    return sorted(trained, key=lambda record: (-record["validation"], record["loss"] or 0.0))


def settings_of(method: Method, one: Configuration) -> Any:
    """A configuration's settings as the method's own type."""
    return method.Settings.model_validate(one["settings"])
