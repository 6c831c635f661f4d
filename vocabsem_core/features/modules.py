"""Any torch module that ends in a linear layer: its head, and the states before it.

The head is the linear layer whose output the module returns. It is found by running the module once, so that neither
names nor the order of layers matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vocabsem_core.errors import InputError
from vocabsem_core.features.heads import OutputHead

BATCH_ROWS = 256
_TOLERANCE = 1e-3  # of rebuilt logits, as a share of the largest


class ModuleEncoder:
    """Reads states before the linear head of a module.

    Args:
        module: any module; it is put into evaluation mode.
        example: one input without the axis of a batch, such as zeros: its shape and type are those of every input.
        head: the name of the linear layer, as `module.named_modules()` has it; None: the one whose output is returned.

    Attributes:
        name: of the head.
        head: its weight [v, d] and bias [v]; the tensors are shared, not copied.

    Raises:
        InputError: where the module does not return what one linear layer of two classes or more gives.

    Example:
        >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> encoder = ModuleEncoder(module, example=torch.zeros(2))
        >>> encoder.name, tuple(encoder.head.weight.shape)
        ('2', (3, 8))
        >>> tuple(encoder.encode(torch.rand(5, 2)).shape)
        (5, 8)
    """

    def __init__(self, module: nn.Module, example: Tensor, head: str | None = None) -> None:
        self.module, self._example, self._checked = module.eval(), example, False
        self.name, self._linear = _find_head(self.module, example.unsqueeze(0), head)
        bias = self._linear.bias
        self.head = OutputHead(self._linear.weight.detach(), None if bias is None else bias.detach())

    def encode(
        self,
        inputs: Tensor,
        batch_rows: int = BATCH_ROWS,
        after_batch: Callable[[int], object] | None = None,
    ) -> Float[Tensor, "n d"]:
        """The states of inputs, float32, on the CPU.

        Args:
            inputs: [n, ...], on any device.
            batch_rows: rows that the module reads at a time.
            after_batch: called with the number of rows done.

        Raises InputError where the first batch's logits are not those of the head.
        """
        found, done, device = [], 0, self.head.weight.device
        for batch in inputs.split(batch_rows):
            found.append(self._states(batch.to(device)).float().cpu())
            done += len(batch)
            if after_batch is not None:
                after_batch(done)
        return torch.cat(found) if found else torch.empty(0, self.head.weight.shape[1])

    def check(self, given: Any) -> str | None:
        """Why something cannot be one of the inputs; None where it can."""
        if not isinstance(given, Tensor):
            return f"is a {type(given).__name__}; expected a tensor"
        expected = (tuple(self._example.shape), self._example.dtype)
        if (found := (tuple(given.shape), given.dtype)) != expected:
            return f"has shape {found[0]} and type {found[1]}; expected {expected[0]} and {expected[1]}, as the example"
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            return "has values that are not finite"
        return None

    @torch.inference_mode()
    def _states(self, batch: Tensor) -> Tensor:
        kept: list[Tensor] = []
        handle = self._linear.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
        try:
            returned = self.module(batch)
        finally:
            handle.remove()
        if len(kept) != 1 or kept[0].ndim != 2 or len(kept[0]) != len(batch):
            shapes = ", ".join(str(tuple(one.shape)) for one in kept) or "none"
            raise InputError(
                f"head {self.name!r} was given inputs of shape {shapes} for {len(batch)} rows; expected one of "
                "[rows, width]: a state for each row"
            )
        if not self._checked:
            self._check_rebuilt(kept[0], returned)
            self._checked = True
        return kept[0]

    def _check_rebuilt(self, states: Tensor, returned: Any) -> None:
        """Raises InputError where the module's logits are not its head's."""
        rebuilt = self.head.logits(states)
        gaps = [float((one - rebuilt).abs().max()) for one in _tensors(returned) if one.shape == rebuilt.shape]
        if not gaps or not min(gaps) <= _TOLERANCE * max(1.0, float(rebuilt.abs().max())):
            raise InputError(
                f"head {self.name!r}: logits rebuilt from its input differ from the module's own by "
                f"{min(gaps, default=float('nan')):.3g}; the module changes them after the head"
            )


def _find_head(module: nn.Module, batch: Tensor, name: str | None) -> tuple[str, nn.Linear]:
    """The linear layer whose output the module returns."""
    linears = {one: part for one, part in module.named_modules() if isinstance(part, nn.Linear)}
    if name is not None and name not in linears:
        raise InputError(f"no linear layer {name!r}; the module has {_listed(linears)}")
    given: dict[str, list[Tensor]] = {one: [] for one in linears}
    handles = [
        part.register_forward_hook(lambda _, __, made, one=one: given[one].append(made))
        for one, part in linears.items()
    ]
    try:
        with torch.inference_mode():
            returned = list(_tensors(module(batch.to(_device(module)))))
    finally:
        for handle in handles:
            handle.remove()
    heads = [one for one, made in given.items() if any(tensor is other for tensor in made for other in returned)]
    if name is None and len(heads) > 1:
        raise InputError(f"the module returns the outputs of {len(heads)} linear layers: {_listed(heads)}; name one")
    chosen = name if name is not None else next(iter(heads), None)
    if chosen is None or chosen not in heads:
        told = f"linear layer {name!r}" if name is not None else "a linear layer"
        raise InputError(
            f"{type(module).__name__} does not return what {told} gives: nothing may follow the head, such as a "
            f"softmax. Its linear layers: {_listed(linears)}"
        )
    if (classes := linears[chosen].out_features) < 2:
        raise InputError(f"head {chosen!r} has {classes} class; expected two or more, with a logit for each")
    return chosen, linears[chosen]


def _tensors(returned: Any) -> Iterator[Tensor]:
    """The tensors of what a module returns: one, several, or named ones."""
    if isinstance(returned, Tensor):
        yield returned
    elif isinstance(returned, Mapping):
        yield from (one for part in returned.values() for one in _tensors(part))
    elif isinstance(returned, Sequence) and not isinstance(returned, str):
        yield from (one for part in returned for one in _tensors(part))


def _device(module: nn.Module) -> torch.device:
    return next((weight.device for weight in module.parameters()), torch.device("cpu"))


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"
