"""What a method sees: states, labels and label words' rows, loaded from artifacts when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, assert_never

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from orchestration.store.arrow import ROW_ID, column_array, read_table
from orchestration.store.artifacts import Artifact
from vocabsem_core.calibration.modules import Labelled
from vocabsem_core.calibration.targets import as_wide_as, random_orthogonal
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.features.heads import OutputHead
from vocabsem_core.names import WHOLE, Centre, LabelRows
from vocabsem_core.semantics.basis import SemanticBasis
from vocabsem_core.semantics.centring import moments
from workflows.inputs.labels import rows_of, smaller_labels
from workflows.methods.inputs.split import check_has_rows, split_rows

DEMONSTRATIONS = "demonstrations.json"


@dataclass(frozen=True)
class TaskFeatures:
    """One task's stored states and label words under one model.

    Attributes:
        inputs: role -> artifact: what the method needs of train, train_labels, test, verbalizer, head, basis, spectrum,
            content_free; and demonstrations, where they stand before the training rows' prompts.
        layer: the stored layer to read, or several whose states stand side by side: d is then the sum of their widths;
            `whole`: in place of states stand the log-likelihoods of whole label words.
        labels: label names in class order.
        train_size: rows per class (validation included) or "full".
        seed: of the subsample.
        fold: which fifth of the training rows is held out for validation, from 0.
        hold_out: whether any is; without, `train` are all rows.
        device: where batched work runs.
    """

    inputs: Mapping[str, Artifact]
    layer: str | Sequence[str]
    labels: list[str]
    train_size: int | Literal["full"]
    seed: int
    fold: int = 0
    hold_out: bool = True
    device: str = "cpu"

    @cached_property
    def train(self) -> Labelled[Tensor]:
        """Training rows without the validation rows."""
        return _loaded(self.stored_train)

    @cached_property
    def validation(self) -> Labelled[Tensor]:
        """A fifth of the training rows of each class, chosen by hash of the row; of one row a class, that row."""
        return _loaded(self.stored_validation)

    @property
    def stored_train(self) -> Labelled[StoredRows]:
        """`train`, left in its files: what trains on it batch by batch needs the memory of a batch."""
        return self._labelled[0]

    @property
    def stored_validation(self) -> Labelled[StoredRows]:
        """`validation`, left in its files."""
        return self._labelled[1]

    @property
    def held_out(self) -> tuple[StoredRows, Tensor]:
        """The validation rows' states, and their class numbers."""
        return self.stored_validation.states, self.stored_validation.labels

    @property
    def has_train(self) -> bool:
        """Whether there are training rows beside the validation rows: prompts with demonstrations may have none."""
        return "train_labels" in self.inputs and len(self._split(self._train_labels)[0]) > 0

    @property
    def has_validation(self) -> bool:
        """Whether the validation rows are others than those that are learned from."""
        return not np.array_equal(*self._split(self._train_labels))

    @cached_property
    def _labelled(self) -> tuple[Labelled[StoredRows], Labelled[StoredRows]]:
        labels = self._train_labels
        kept, held = self._split(labels)
        classes = torch.from_numpy(labels.astype(np.int64))
        first, second = (Labelled(self._stored(part), classes[part]) for part in (kept, held))
        return first, second

    @property
    def labelled_rows(self) -> int:
        """How many rows' labels are read, for training or validation."""
        return len(np.union1d(*self._split(self._train_labels)))

    @property
    def smaller_classes(self) -> dict[str, int]:
        """Labels with fewer rows than the training size asks for, and how many they have."""
        size = self.train_size
        return {} if size == "full" else smaller_labels(rows_of(self.labels, self._train_labels.tolist()), size)

    def _stored(self, rows: np.ndarray) -> StoredRows:
        tables = read_tables(self.inputs["train"])
        return StoredRows([[column_array(table, name) for name in self.layers] for table in tables], rows)

    @cached_property
    def unlabelled(self) -> StoredRows:
        """Every training row that was encoded, whatever the training size; their labels are not read."""
        return self._stored(np.arange(self.inputs["train"].rows))

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the unlabelled rows, by dimension."""
        return moments(self.unlabelled)

    def centre(self, kind: Centre) -> Tensor:
        """What states are seen from, [d]: the mean of unlabelled training rows, of content-free prompts, or zero."""
        if kind == "training":
            return self.moments[0]
        if kind == "content-free":
            return self.content_free.mean(dim=0)
        if kind == "none":
            return torch.zeros(self.width)
        assert_never(kind)

    def _split(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers for training and for validation; with demonstrations, the two lists that these were drawn by."""
        if "demonstrations" in self.inputs:
            assert self.fold == 0, "demonstrations are drawn from the training rows of the first fold"
            listed, rows = self.inputs["demonstrations"].json(DEMONSTRATIONS), read_column(self.inputs["train"], ROW_ID)
            kept, held = (np.flatnonzero(np.isin(rows, listed[name])) for name in ("train", "validation"))
            every = np.union1d(kept, held)
            return (kept, held) if self.hold_out else (every, every)
        check_has_rows(labels, self.labels)
        hashes = read_column(self.inputs["train"], "row_hash")
        return split_rows(labels, hashes, len(self.labels), self.train_size, self.seed, self.fold, self.hold_out)

    @cached_property
    def _train_labels(self) -> np.ndarray:
        """Class numbers of the encoded rows."""
        return labels_of(self.inputs["train"], self.inputs["train_labels"])

    def load(self) -> Tensor:
        """The test states, [n, d], float32; loads what else the method reads, so that its time is its own."""
        self.load_training()
        return self._states("test")

    def load_training(self) -> None:
        """Load what the method learns from."""
        read = {
            "train_labels": ("train", "validation"),
            "head": ("label_head",),
            "basis": ("class_basis",),
            "spectrum": ("spectrum",),
            "embedding": ("class_embedding",),
            "content_free": ("content_free",),
        }
        for name in (name for role, names in read.items() if role in self.inputs for name in names):
            getattr(self, name)

    def _states(self, role: str) -> Tensor:
        return torch.cat([read_states(self.inputs[role], name) for name in self.layers], dim=1)

    def states_of(self, columns: Callable[[str], np.ndarray]) -> Tensor:
        """States side by side, [n, d], float32, from what gives the column of a layer."""
        return torch.cat([torch.from_numpy(np.array(columns(name))).float() for name in self.layers], dim=1)

    @property
    def width(self) -> int:
        """Dimensions of the states that are read."""
        return self.unlabelled.shape[1]

    @property
    def head_width(self) -> int:
        """Dimensions of the first of them, which the head and the basis share."""
        return self.unlabelled.widths[0]

    @property
    def layers(self) -> Sequence[str]:
        """The names of what is read."""
        return [self.layer] if isinstance(self.layer, str) else self.layer

    @cached_property
    def content_free(self) -> Tensor:
        """The states of content-free prompts, [m, d], float32."""
        return self._states("content_free")

    @cached_property
    def tokens(self) -> list[list[int]]:
        """The vocabulary rows that stand for each class."""
        return self.inputs["verbalizer"].json("verbalizer.json")["tokens"]

    @cached_property
    def label_head(self) -> OutputHead:
        """The head's rows of all label tokens, class after class."""
        return self._head(lambda column: read_rows(self.inputs["head"], column, self._flat_tokens))

    @cached_property
    def head(self) -> OutputHead:
        """The whole head, float32."""
        return self._head(lambda column: read_column(self.inputs["head"], column))

    def _head(self, read: Callable[[str], np.ndarray]) -> OutputHead:
        form = self.inputs["head"].json("head.json")
        weight = torch.from_numpy(read("weight")).float()
        bias = torch.from_numpy(read("bias")).float() if form["bias"] else None
        return OutputHead(weight, bias, form["scale"], form["softcap"])

    @cached_property
    def class_basis(self) -> Tensor:
        """The basis row of each class, [c, d]: the mean of its tokens' rows."""
        rows = torch.from_numpy(read_rows(self.inputs["basis"], "basis", self._flat_tokens))
        return self.class_mean(rows, dim=0)

    @cached_property
    def spectrum(self) -> SemanticBasis:
        """The eigendecomposition of the head's Gram matrix, from which basis rows of any shrinkage follow."""
        return read_spectrum(self.inputs["spectrum"])

    def label_rows(self, kind: LabelRows, shrinkage: float) -> Tensor:
        """What stands for each class in the space of the states, [c, d]. `shrinkage` of the basis: 0 is the paper's."""
        if kind == "basis":
            return self.class_mean(self.spectrum.rows(self.label_head.weight, shrinkage), dim=0)
        head = self.class_mean(self.label_head.weight, dim=0)
        if kind == "head":
            return head
        if kind == "embedding":
            return as_wide_as(self.class_embedding, head)
        if kind == "random":
            return random_orthogonal(head)
        assert_never(kind)

    def unrelated_rows(self, shrinkage: float) -> Tensor:
        """The basis rows of tokens that are no label's, one for each class, [c, d]; each seed draws its own."""
        others = np.setdiff1d(np.arange(self.inputs["head"].rows), self._flat_tokens)
        drawn = np.random.default_rng(self.seed).choice(others, len(self.labels), replace=False)
        rows = torch.from_numpy(read_rows(self.inputs["head"], "weight", drawn.tolist())).float()
        return self.spectrum.rows(rows, shrinkage)

    @cached_property
    def class_embedding(self) -> Tensor:
        """The input embedding of each class, [c, width of the embedding]: the mean of its tokens' rows."""
        return self.class_mean(torch.from_numpy(read_column(self.inputs["embedding"], "embedding")), dim=0)

    @cached_property
    def other_head(self) -> Vocabulary:
        """The head's rows of the vocabulary, without those that are a class's own row, [v - c, d]."""
        return Vocabulary(self.head.weight[self._others(len(self.head.weight))])

    @cached_property
    def other_basis(self) -> Vocabulary:
        """The basis rows of the vocabulary, [v - c, d], without those that are a class's own row."""
        whole = torch.from_numpy(np.concatenate([column_array(t, "basis") for t in read_tables(self.inputs["basis"])]))
        return Vocabulary(whole[self._others(len(whole))])

    def _others(self, rows: int) -> Tensor:
        """Which rows of the vocabulary are no class's own row, [v]."""
        kept = torch.ones(rows, dtype=torch.bool)
        kept[[tokens[0] for tokens in self.tokens if len(tokens) == 1]] = False
        return kept

    def label_scores(self, states: Tensor) -> Tensor:
        """What the model says of each label, [n, c]: its logit, of several tokens the mean, or its log-likelihood."""
        if self.layer == WHOLE:
            return states
        return self.class_mean(self.label_head.logits(states), dim=1)

    def class_mean(self, values: Tensor, dim: int) -> Tensor:
        """Means over each class's tokens of values that stand class after class along `dim`."""
        groups = values.split([len(tokens) for tokens in self.tokens], dim=dim)
        return torch.stack([group.mean(dim=dim) for group in groups], dim=dim)

    @property
    def _flat_tokens(self) -> list[int]:
        return [token for tokens in self.tokens for token in tokens]


class StoredRows:
    """Some rows of columns of mapped files, [n, d]; asked for by number, they come as float32, columns side by side.

    The files' pages are shared by all processes of a machine that read them.
    """

    dtype = torch.float32

    def __init__(self, parts: list[list[np.ndarray]], rows: np.ndarray) -> None:
        """`parts` holds for each file its columns, [rows, width] each; `rows`: which of them all these are."""
        self._parts, self._starts = parts, np.cumsum([0] + [len(columns[0]) for columns in parts])
        self._rows = rows
        self.widths = [column.shape[1] for column in parts[0]]
        self.shape = (len(rows), sum(self.widths))

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Rows by number, in any shape: [*rows, d]."""
        wanted = self._rows[rows.flatten().numpy()]
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        found = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        for place in np.unique(places):
            mine, end = places == place, 0
            for column in self._parts[place]:
                start, end = end, end + column.shape[1]
                found[mine, start:end] = column[wanted[mine] - self._starts[place]]
        return torch.from_numpy(found).unflatten(0, rows.shape)


def _loaded(stored: Labelled[StoredRows]) -> Labelled[Tensor]:
    return Labelled(stored.states[torch.arange(len(stored.labels))], stored.labels)


def labels_of(rows: Artifact, labels: Artifact) -> np.ndarray:
    """Class numbers of an artifact's rows, [n]: a part of the data set may be used, its labels are all stored."""
    by_row = dict(zip(*(read_column(labels, name).tolist() for name in (ROW_ID, "label")), strict=True))
    return np.array([by_row[row] for row in read_column(rows, ROW_ID).tolist()])


def read_spectrum(artifact: Artifact) -> SemanticBasis:
    """The basis of a stored eigendecomposition."""
    stored = load(artifact.path("spectrum.safetensors").read_bytes())
    return SemanticBasis(stored["values"], stored["vectors"])


def read_tables(artifact: Artifact) -> list[Any]:
    """The tables of all shards, mapped."""
    return [read_table(path) for path in artifact.shards()]


def read_column(artifact: Artifact, name: str) -> np.ndarray:
    """One column over all shards; copied, since the files are mapped read-only."""
    return np.concatenate([column_array(table, name) for table in read_tables(artifact)])


def has_column(artifact: Artifact, name: str) -> bool:
    """Whether its shards have such a column."""
    return name in read_tables(artifact)[0].column_names


def read_states(artifact: Artifact, layer: str) -> Tensor:
    """The states of one layer over all shards, [n, d], float32."""
    return torch.from_numpy(read_column(artifact, layer)).float()


def read_rows(artifact: Artifact, name: str, rows: list[int]) -> np.ndarray:
    """Some rows of a column whose row ids count from 0 through all shards: maps the files, reads only these rows."""
    tables = read_tables(artifact)
    starts = np.cumsum([0] + [table.num_rows for table in tables])
    places = np.searchsorted(starts, rows, side="right") - 1
    columns = [column_array(table, name) for table in tables]
    return np.stack([columns[place][row - starts[place]] for row, place in zip(rows, places, strict=True)])
