"""Which weights of a language model are trained: low-rank updates (LoRA), learned scales (IA3), or all of them.

LoRA (arXiv 2106.09685) and IA3 (arXiv 2205.05638) are those of `peft`, and so are their target modules, where it knows
the family.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from vocabsem_core.errors import InputError
from vocabsem_core.names import ADAPTER_WEIGHTS

_ALL = "all-linear"  # peft's word


@dataclass(frozen=True)
class Adaptation:
    """What is trained.

    Attributes:
        kind: "lora", "ia3", or "full": every weight.
        rank, alpha, dropout: of LoRA, whose update is alpha / rank times the product of its two matrices.
        target_modules: names of the linear layers that are changed, the end of their path being enough, or
            all-linear alone, as in peft, for all but the head; None: peft's for the family.
        feedforward_modules: those of them whose input IA3 scales instead of the output; None: by peft's own list.
        folder: of "stored": an adapter that peft saved, LoRA or IA3, whose configuration says all of the above.
    """

    kind: Literal["lora", "ia3", "full", "stored"]
    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    feedforward_modules: tuple[str, ...] | None = None
    folder: Path | None = None


@contextmanager
def adapted(model: Any, how: Adaptation, seed: int) -> Iterator[dict[str, Parameter]]:
    """Within it, the model has the weights to be trained, given by name; after it, the model is as it was.

    The names are those of peft's files. Raises InputError where peft does not know what to change, or the names given
    are of no linear layer.
    """
    if how.kind == "full":
        before = {name: value.detach().to("cpu", copy=True) for name, value in model.named_parameters()}
        model.requires_grad_(True)
        try:
            yield dict(model.named_parameters())
        finally:
            with torch.no_grad():
                for name, value in model.named_parameters():
                    value.copy_(before[name])
            model.requires_grad_(False)
        return
    from peft import get_peft_model

    config = _peft_config(model, how)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # peft's call, in transformers
        torch.manual_seed(seed)
        try:
            wrapped: Any = get_peft_model(model, config)
        except ValueError as error:  # of a stored one for another family; ours are checked before
            raise InputError(f"adapter {how.folder}: does not fit the model: {error}") from error
    try:
        yield {name.replace(".default", ""): value for name, value in wrapped.named_parameters() if value.requires_grad}
    finally:
        wrapped.unload()


def use(weights: Mapping[str, Parameter], values: Mapping[str, Tensor]) -> None:
    """Give weights these values. Raises InputError where they are of another model or adaptation."""
    check_same(weights, {name: tuple(value.shape) for name, value in values.items()})
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(values[name])


def check_same(weights: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError where trained weights, given by their shapes, are of another model or adaptation."""
    if weights.keys() != shapes.keys():
        odd = sorted(weights.keys() ^ shapes.keys())
        raise InputError(f"trained weights of another model: {odd[0]} and {len(odd) - 1} more are in only one of them")
    for name, weight in weights.items():
        if tuple(weight.shape) != shapes[name]:
            raise InputError(f"trained weights of another model: {name} is {shapes[name]}, expected {(*weight.shape,)}")


def save_adapted(model: Any, how: Adaptation, values: Mapping[str, Tensor], folder: Path, base: str) -> None:
    """Write an adapter as peft does, or of `full` the model as transformers does; `base` names the model it is for.

    Raises InputError as `adapted` and `use`.
    """
    with adapted(model, how, 0) as weights:
        use(weights, values)
        if how.kind == "full":
            model.save_pretrained(folder)
            return
    from safetensors.torch import save_file

    config = _peft_config(model, how)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    save_file({name: value.contiguous() for name, value in values.items()}, folder / ADAPTER_WEIGHTS)


def check_possible(model: Any, how: Adaptation) -> None:
    """Raises InputError where `adapted` would; the model may be one without memory."""
    if how.folder is not None:
        with adapted(model, how, 0) as weights:
            check_same(weights, _stored_shapes(how.folder / ADAPTER_WEIGHTS))
    elif how.kind != "full":
        _peft_config(model, how)


def _stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the weights of an adapter") from error


def linear_layers(model: Any) -> dict[str, Any]:
    """The linear layers by their path, without the output head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def _peft_config(model: Any, how: Adaptation) -> Any:
    from peft import IA3Config, LoraConfig
    from transformers.pytorch_utils import Conv1D

    if how.folder is not None:
        return _stored_config(how.folder)
    layers = linear_layers(model)
    targets = _targets(model, how, layers)
    matched = [module for name, module in layers.items() if any(_ends(name, target) for target in targets)]
    transposed = isinstance(matched[0], Conv1D)  # GPT-2 stores weights as [in, out]
    if how.kind == "lora":
        return LoraConfig(
            r=how.rank,
            lora_alpha=how.alpha,  # type: ignore[arg-type]  # a scale: any number
            lora_dropout=how.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed,
        )
    return IA3Config(target_modules=targets, feedforward_modules=_feedforward(how, targets), fan_in_fan_out=transposed)


def _stored_config(folder: Path) -> Any:
    """Raises InputError for an adapter that peft cannot read, or of another kind."""
    from peft import PeftConfig

    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # peft lets through whatever a JSON file can provoke
        raise InputError(f"adapter {folder}: peft cannot read its configuration ({error})") from error
    if config.peft_type not in ("LORA", "IA3"):
        raise InputError(f"adapter {folder}: is of kind {config.peft_type.value}; expected LORA or IA3")
    config.inference_mode = False  # else its weights would not be told from the model's
    config.base_model_name_or_path = None  # where the model lay when it was trained
    return config


def _targets(model: Any, how: Adaptation, layers: Mapping[str, Any]) -> list[str]:
    """Names of what is changed, checked against the model's linear layers."""
    from peft.utils import constants

    known: Any = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    if how.kind == "ia3":
        known = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    family, names = model.config.model_type, sorted({name.rsplit(".", 1)[-1] for name in layers})
    targets = names if how.target_modules == (_ALL,) else list(how.target_modules or known.get(family, ()))
    if not targets:
        raise InputError(
            f"peft does not know which layers of model type {family!r} {how.kind} should change; name them in the "
            f"setting target_modules. Its linear layers: {', '.join(names)}"
        )
    for target in (*targets, *(how.feedforward_modules or ())):
        if not any(_ends(name, target) for name in layers):
            near = get_close_matches(target, names, n=3)
            told = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(names)}"
            raise InputError(f"target module {target!r} is no linear layer of model type {family!r}; {told}")
    return targets


def _feedforward(how: Adaptation, targets: list[str]) -> list[str]:
    """Which targets lie in feed-forward layers."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as BY_FAMILY

    if how.feedforward_modules is None:
        usual = {name for names in BY_FAMILY.values() for name in names}
        return [target for target in targets if target in usual]
    if strange := sorted(set(how.feedforward_modules) - set(targets)):
        raise InputError(f"feedforward module {strange[0]!r} is not among the target modules: {', '.join(targets)}")
    return list(how.feedforward_modules)


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
