"""A torch module with its rows as a feature extractor: whatever ends in a linear head."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.graph import Step
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from vocabsem_core.names import LabelTokens
from workflows.config.compare import Encoding, Execution, Limit
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError
from workflows.extractors.base import Described, ExtractorKind, FeatureExtractor, Outline, Reader
from workflows.findings import Words
from workflows.inputs.catalog import Task, short_name
from workflows.inputs.network_sources import is_network, open_network
from workflows.inputs.networks import OpenNetwork
from workflows.inputs.tables import Split
from workflows.steps.basis import basis_steps
from workflows.steps.data import labels_step
from workflows.steps.networks.head import files_of, head_step, verbalizer_step
from workflows.steps.networks.states import (
    LAYERS,
    NetworkWorker,
    missing_values,
    network_encode_step,
    network_rows_step,
)


class _Own(Described):
    """A network, for a run or for `validate`: it is called up for both."""

    network: OpenNetwork

    @property
    def name(self) -> str:
        return short_name(self.network.source.title)

    @property
    def layers(self) -> Sequence[str]:
        return LAYERS


@dataclass(frozen=True)
class OwnNetwork(_Own, FeatureExtractor):
    """A network that makes features."""

    network: OpenNetwork

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.network.network.module.parameters())

    def materials(
        self, task: Task, limits: Limit, encoding: Encoding, execution: Execution, facts: FingerprintCache
    ) -> dict[str, Step]:
        head = head_step(self.name, self.network)
        steps = {"head": head, **basis_steps(self.name, head)}
        steps["verbalizer"] = verbalizer_step(self.name, self.network, task)
        splits: tuple[tuple[Split, int | None], ...] = (("train", limits.train), ("test", limits.test))
        for split, limit in splits:
            steps[f"{split}_rows"] = rows = network_rows_step(task, split, limit, facts)
            steps[split] = network_encode_step(self.name, self.network, task, rows, encoding, execution)
            steps[f"{split}_labels"] = labels_step(task, split, facts)
        return steps

    def reader(self, encode: Step, store: Store) -> Reader:
        """Files are given as base64 text, numbers as numbers or text."""
        from orchestration.store.arrow import read_table
        from workflows.inputs.contents import Unreadable, decoded
        from workflows.inputs.tables import FILE_DIGEST

        worker = NetworkWorker(encode.setup or {})
        known = read_table(store.need(encode.inputs["rows"]).shard(0)).slice(0, 1).to_pylist()[0]

        def value_of(field: str, given: Any, name: str) -> Any:
            example = known[field]
            try:
                if isinstance(example, str) and example.startswith(FILE_DIGEST):
                    return decoded(base64.b64decode(given, validate=True), name)
                return float(given) if isinstance(example, float | int) else given
            except (Unreadable, ValueError, TypeError, binascii.Error) as error:
                raise ConfigError(f"{name}: field {field!r}: {error}") from error

        def read(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
            inputs = []
            for number, row in enumerate(rows, 1):
                name = f"row {number}"
                values = {field: value_of(field, given, name) for field, given in row.items()}
                inputs.append(worker.input_of(values, name))
            return worker.columns(encode.identity, inputs)

        return read


@dataclass(frozen=True)
class OwnNetworkOutline(_Own, Outline):
    """What `validate` asks of it."""

    network: OpenNetwork

    def words(self, task: TaskConfig, rule: LabelTokens) -> Words:
        rows = self.network.rows_of(task.name, task.words)
        return Words(self.name, "first", {label: [self.network.classes[row]] for label, row in rows.items()})


def _files(reference: str, base: Path) -> list[Path]:
    if Path(reference).is_absolute():
        return []
    return [Path(name) for name in files_of(open_network(reference, base))]


NETWORK = ExtractorKind(
    knows=is_network,
    open=lambda reference, base, facts: OwnNetwork(open_network(reference, base)),
    outline=lambda reference, base, problems: OwnNetworkOutline(open_network(reference, base)),
    field_problems=missing_values,
    files=_files,
)
