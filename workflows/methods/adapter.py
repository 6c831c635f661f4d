"""A LoRA or IA3 adapter that is there already, as peft saved it: scored beside the methods that learn, by its folder.

Nothing is trained. Its two files' digests are part of every key, and where it lies is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vocabsem_core.names import ADAPTER_WEIGHTS
from workflows.config.strict import Strict
from workflows.errors import ConfigError
from workflows.methods.finetuned import Finetuned

if TYPE_CHECKING:
    from torch import Tensor

    from vocabsem_core.finetuning.adapters import Adaptation

_CONFIG = "adapter_config.json"  # peft's name


@dataclass
class _Fit:
    """A fit in the manner of `Finetuning` whose one epoch trains nothing: it ends with the weights of the files."""

    weights: Any
    best: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)
    over: bool = False

    def epoch(self) -> None:
        """Nothing to learn."""
        self.over = True

    def use_best(self) -> None:
        """The model has the weights now."""
        from vocabsem_core.finetuning.adapters import use

        use(self.weights, self.best)

    def save(self, path: Path) -> None:
        """The file that `load` expects; all that there is to know is that it is over."""
        path.touch()

    def load(self, path: Path) -> None:
        """Go on after the epoch."""
        self.over = True


class PeftAdapter(Finetuned):
    """An adapter of yours: LoRA or IA3 as `save_pretrained` of peft wrote it, for the model of the comparison."""

    name = "peft"
    needs: ClassVar = frozenset()
    Settings = Strict
    seeded = False
    has_epochs = False

    @property
    def files(self) -> tuple[str, ...]:
        if self.source_file is None:
            return ()
        return (self.source_file, str(Path(self.source_file).with_name(_CONFIG)))

    def adaptation(self, settings: Any) -> Adaptation:
        from vocabsem_core.finetuning.adapters import Adaptation

        assert self.source_file is not None, "`resolve` refuses it without its folder"
        return Adaptation(kind="stored", folder=Path(self.source_file).parent)

    def begin(self, settings: Any, seed: int, texts: Any, weights: Any, **team: Any) -> Any:
        return _Fit(weights, self._stored())

    def fit(self, settings: Any, materials: Any, seed: int) -> dict[str, Tensor]:
        return self._stored()

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        return 0  # here

    def _stored(self) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(str(self.source_file))


def is_adapter(reference: str) -> bool:
    """Whether a method is named by the file of an adapter's weights."""
    return Path(reference).name == ADAPTER_WEIGHTS


def adapter_method(weights: Path) -> PeftAdapter:
    """The method of an adapter's folder, known by its weights. Raises ConfigError where a file is not there."""
    stamps = []
    for path in (weights, weights.with_name(_CONFIG)):
        try:
            stat = path.stat()
        except OSError as error:
            raise ConfigError(
                f"adapter {weights.parent}: no {path.name} ({error.strerror}); expected a folder that "
                "PeftModel.save_pretrained wrote"
            ) from error
        stamps.append((str(path.absolute()), stat.st_size, stat.st_mtime_ns))
    return _read(*stamps)


@lru_cache
def _read(*stamps: tuple[str, int, int]) -> PeftAdapter:
    digest = hashlib.sha256(b"".join(hashlib.sha256(Path(path).read_bytes()).digest() for path, _, _ in stamps))
    method = PeftAdapter()
    method.source_file, method.source_digest = stamps[0][0], digest.hexdigest()
    return method
