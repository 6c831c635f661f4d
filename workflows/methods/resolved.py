"""A method as a workflow file asks for it: looked up and checked once (`resolve`), then handed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from vocabsem_core.names import LabelTokens
from workflows.config.compare import Demonstrations, MethodConfig
from workflows.config.layers import ALL
from workflows.config.space import Domain
from workflows.config.task import TaskConfig, row_tokens
from workflows.errors import ConfigError, Place, nearest
from workflows.methods.adapter import PeftAdapter
from workflows.methods.base import OF_LABEL_WORDS, Method, Need
from workflows.methods.custom import naming_the_file
from workflows.methods.registry import method_named


@dataclass(frozen=True)
class ResolvedMethod:
    """A method and what the workflow file says of it.

    Attributes:
        method: the method itself; a user's own file was read, run and hashed for it.
        config: the entry of the file: label, layer, shots, folds, and its own budget, seeds and models.
        settings: those that the user fixed, checked.
        space: setting -> what it is searched in; not those that are fixed.
        demonstrations: what stands before its prompts.
    """

    method: Method
    config: MethodConfig
    settings: Mapping[str, Any]
    space: Mapping[str, Domain]
    demonstrations: Demonstrations

    @property
    def label(self) -> str:
        """Its name in results."""
        return self.config.label

    @property
    def learns(self) -> bool:
        """Whether training rows, or their labels, have a say in what is fitted."""
        return "train" in self.needs(searched=True)

    @property
    def reads_training_rows(self) -> bool:
        """Whether it reads training rows at all, with their labels or without."""
        return not self.needs(searched=True).isdisjoint({"train", "unlabelled"})

    @property
    def reads_label_words(self) -> bool:
        """Whether the words that stand for the labels have a say; a model that reads prompts predicts by them."""
        return self.method.input_kind == "prompts" or not self.needs(searched=True).isdisjoint(OF_LABEL_WORDS)

    def label_tokens(self, task: TaskConfig) -> LabelTokens:
        """By which rule it reads the label words."""
        return task.label_tokens if self.method.scores_words else row_tokens(task)

    @property
    def whole_settings(self) -> dict[str, Any]:
        """The fixed settings with every default written out: a default that changes is another setting."""
        return self.method.Settings.model_validate(self.settings).model_dump(mode="json")

    def depends_on_seed(self, train_size: int | str) -> bool:
        """Whether fits with different seeds can differ: by the method itself, or by the rows it is trained on."""
        drawn = self.learns or self.demonstrations != "none"
        draws = self.method.draws(self.settings, self.space)
        return draws or self.demonstrations == "random" or (train_size != "full" and drawn)

    def needs(self, searched: bool) -> frozenset[Need]:
        """What it reads with its settings, where a search sets the others or nothing does.

        Raises ConfigError where a user's own method fails to say it, or names what there is not.
        """
        with naming_the_file(self.method):
            needs = frozenset(self.method.reads(self.settings, self.space if searched else ()))
        if unknown := sorted(map(str, needs - set(get_args(Need)))):
            told = nearest(unknown[0], list(get_args(Need)))
            raise ConfigError(f"method {self.method.name!r}: reads() names {unknown[0]!r}; {told}")
        return needs


def resolve(config: MethodConfig, base: Path = Path(), place: Place = ()) -> ResolvedMethod:
    """The method that an entry of a workflow file asks for.

    Args:
        config: the entry.
        base: the folder that the file of a user's own method is relative to.
        place: where the entry stands in the workflow file.

    Raises ConfigError naming method, setting or layer, and what was expected.
    """
    try:
        _check_adapter(config)
        method = method_named(config.reference, base)
        demonstrations = _demonstrations(method, config)
        _check_layer(method, config)
        settings = _settings(method, config.settings)
        space = {name: domain for name, domain in method.space.items() if name not in settings}
        found = ResolvedMethod(method, config, settings, space, demonstrations)
        if demonstrations in ("bm25", "dense") and "content_free" in found.needs(searched=True):
            raise ConfigError(
                f"method {config.label!r}: content-free prompts (contextual, centre: content-free) need demonstrations "
                f"that all prompts share, found demonstrations: {demonstrations}; take random ones, or leave it out",
                ("settings",),
            )
        if config.folds > 1 and not method.holds_out:
            told = "learns from all rows at once, so there are no folds to average"
            raise ConfigError(f"method {config.label!r} {told}; leave `folds` out", ("folds",))
        if config.folds > 1 and (method.input_kind == "prompts" or not found.learns or demonstrations != "none"):
            told = "folds are for methods that are fitted to training rows alone"
            raise ConfigError(f"method {config.label!r}: {told}, found folds: {config.folds}; leave it out", ("folds",))
    except ConfigError as error:
        raise ConfigError(str(error), (*place, *(error.place or ("method",)))) from error
    return found


def _check_adapter(config: MethodConfig) -> None:
    """Raises ConfigError where the folder of an adapter is missing, or given to another method."""
    if (config.method == PeftAdapter.name) != (config.adapter is not None):
        told = "needs `adapter`, the folder" if config.adapter is None else "takes no `adapter`; method peft does"
        raise ConfigError(f"method {config.method!r} {told}", ("adapter",) if config.adapter else ("method",))


def _check_layer(method: Method, config: MethodConfig) -> None:
    if method.input_kind == "prompts" and config.layer != "head":
        told = "trains the model itself and reads no stored layer; leave out `layer`"
        raise ConfigError(f"method {method.name!r} {told}", ("layer",))
    if not method.several_layers and (config.layer == ALL or not isinstance(config.layer, str)):
        told = "reads one layer, for it compares states with what the head holds"
        raise ConfigError(f"method {method.name!r} {told}", ("layer",))


def _settings(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        checked = method.Settings.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        place, name = ("settings", *problem["loc"]), ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = list(method.Settings.model_fields)
            hint = nearest(name, known) if known else "it has no settings"
            raise ConfigError(f"method {method.name!r} has no setting {name!r}; {hint}", place) from error
        told = f"found {problem['input']!r}; {problem['msg']}"
        raise ConfigError(f"method {method.name!r}, setting {name!r}: {told}", place) from error
    return checked.model_dump(include=set(given))


def _demonstrations(method: Method, config: MethodConfig) -> Demonstrations:
    own = method.demonstrations
    if method.input_kind == "prompts" and config.demonstrations not in (None, "none"):
        raise ConfigError(
            f"method {config.method!r} is trained on bare prompts, found demonstrations: {config.demonstrations}; take "
            "them out",
            ("demonstrations",),
        )
    if own != "none" and config.demonstrations not in (None, own):
        raise ConfigError(
            f"method {config.method!r} has {own} demonstrations, found demonstrations: {config.demonstrations}; take "
            "`zero-shot` with them",
            ("demonstrations",),
        )
    return config.demonstrations or own
