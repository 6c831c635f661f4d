"""A feature extractor that is no language model: a small torch module on a table of numbers.

This file is all that it takes, but for its line in `workflows.extractors.registry`, which the tests add.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from orchestration.execution.work import StepContext
from orchestration.graph import Step, called
from orchestration.store.arrow import ROW_ID, column_array, read_table, table_of
from orchestration.store.files import checksum, json_bytes
from orchestration.store.fingerprint_cache import FingerprintCache
from vocabsem_core.names import LabelTokens
from workflows.config.compare import Encoding, Execution, Limit
from workflows.config.layers import stored_layers
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError
from workflows.extractors.base import Described, ExtractorKind, FeatureExtractor, Outline
from workflows.findings import Words
from workflows.inputs.catalog import Task
from workflows.inputs.row_files import Value
from workflows.inputs.tables import SplitFile, fields_of_rows
from workflows.steps.basis import basis_steps
from workflows.steps.code import code_of
from workflows.steps.data import fill_rows, labels_step, rows_step
from workflows.steps.measures import measured
from workflows.steps.states import stored_states

WIDTH, CLASSES = 8, ["red", "green", "blue", "grey"]  # before the head, and its rows
_HERE = "tests.workflows.extractors.numbers"


def net(weights: Mapping[str, Tensor] | None = None) -> nn.Sequential:
    """Two numbers in, logits of four classes out."""
    made = nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh(), nn.Linear(WIDTH, len(CLASSES)))
    if weights is not None:
        made.load_state_dict(dict(weights))
    return made


class Numbers(Described):
    """What is known with and without weights."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def layers(self) -> Sequence[str]:
        return ["layer_00", "head"]


@dataclass(frozen=True)
class Net(Numbers, FeatureExtractor):
    """A net whose weights are known by their digest."""

    path: Path
    digest: str

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in net().parameters())

    def materials(
        self, task: Task, limits: Limit, encoding: Encoding, execution: Execution, facts: FingerprintCache
    ) -> dict[str, Step]:
        head = Step(
            name="head",
            label=f"head {self.name}",
            version=1,
            run=f"{_HERE}:fill_head",
            identity={"net": self.digest},
            local={"path": str(self.path)},
            cost="basis",
            files=(str(self.path),),
            sources=code_of(fill_head),
        )
        verbalizer = Step(
            name="verbalizer",
            label=f"verbalizer {self.name} {task.config.name}",
            version=1,
            run=f"{_HERE}:fill_verbalizer",
            identity={"classes": [[label, word] for label, word in task.config.words.items()]},
            sources=code_of(fill_verbalizer),
        )
        steps = {"head": head, **basis_steps(self.name, head), "verbalizer": verbalizer}
        for split, limit in (("train", limits.train), ("test", limits.test)):
            rows = rows_step("numbers", fill_numbers, task, split, limit, facts)  # type: ignore[arg-type]
            steps |= {f"{split}_rows": rows, split: self._states(rows, encoding)}
            steps[f"{split}_labels"] = labels_step(task, split, facts)  # type: ignore[arg-type]
        return steps

    def _states(self, rows: Step, encoding: Encoding) -> Step:
        subject = {"model": self.name, **rows.subject}
        layers = stored_layers(encoding.layers, self.layers)
        return Step(
            name="encode",
            label=f"encode {called(subject)}",
            version=1,
            run=f"{_HERE}:fill_states",
            identity={"net": self.digest, "layers": layers, "store_dtype": encoding.store_dtype},
            inputs={"rows": rows},
            local={"path": str(self.path)},
            cost="encode",
            files=(str(self.path),),
            subject=subject,
            sources=code_of(fill_states),
        )


def number_rows(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[dict[str, float]]:
    """The fields of every row. Raises ConfigError for one that is no number."""
    if problems := field_problems(file, columns):
        raise ConfigError(problems[0])
    return fields_of_rows(file, columns)


def field_problems(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[str]:
    return [
        f"{file.path}: row {number}: column {file.columns[field]!r} is {value!r}; expected a number"
        for number, row in enumerate(fields_of_rows(file, columns), 1)
        for field, value in row.items()
        if not isinstance(value, float)
    ]


def fill_numbers(work: StepContext) -> None:
    fill_rows(work, number_rows)


def fill_head(work: StepContext) -> dict[str, float]:
    with measured() as took:
        linear: Any = net(load_file(work.local["path"]))[-1]
        columns = {"weight": linear.weight.detach().numpy(), "bias": linear.bias.detach().numpy()}
        work.out.write_shard(0, table_of(range(len(CLASSES)), columns))
        work.out.write("head.json", json_bytes({"scale": 1.0, "softcap": None, "bias": True}))
    return took


def fill_verbalizer(work: StepContext) -> None:
    tokens = [[CLASSES.index(word)] for _, word in work.identity["classes"]]
    work.out.write("verbalizer.json", json_bytes({"tokens": tokens}))


def fill_states(work: StepContext) -> dict[str, float]:
    with measured() as took, torch.inference_mode():
        body = net(load_file(work.local["path"]))[:-1]
        for shard, path in enumerate(work.inputs["rows"].shards()):
            rows = read_table(path)
            numbers = torch.tensor([rows.column(name).to_pylist() for name in ("x", "y")]).T
            found = {"layer_00": numbers, "head": body(numbers)}
            dtype = work.identity["store_dtype"]
            layers = {name: stored_states(name, found[name], dtype) for name in work.identity["layers"]}
            columns = {"row_hash": column_array(rows, "row_hash"), **layers}
            work.out.write_shard(shard, table_of(column_array(rows, ROW_ID), columns))
    return took


@dataclass(frozen=True)
class NetOutline(Numbers, Outline):
    """What `validate` asks of it."""

    path: Path

    def words(self, task: TaskConfig, rule: LabelTokens) -> Words:
        return Words(self.name, "first", {label: [word] for label, word in task.words.items()})


def _path(reference: str, base: Path) -> Path:
    if not (path := base / reference).is_file():
        raise ConfigError(f"no net {path}")
    return path


def _open(reference: str, base: Path, facts: FingerprintCache) -> Net:
    path = _path(reference, base)
    return Net(path, facts.get("net", [path], lambda: checksum(path)))


NUMBERS = ExtractorKind(
    knows=lambda reference, base: reference.endswith(".safetensors"),
    open=_open,
    outline=lambda reference, base, problems: NetOutline(_path(reference, base)),
    field_problems=field_problems,
    files=lambda reference, base: [_path(reference, base)],
)
