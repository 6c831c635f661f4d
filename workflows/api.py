"""VocabSem from Python: plan and run a workflow, and read what it stored. `import vocabsem` shows these names.

A workflow is the path of a YAML file, or a mapping of the same fields. What fails raises what the command line prints:
`ConfigError` for a mistake in the workflow, `StoreError` for a store or a run that is not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from orchestration.errors import StoreError
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Artifact, Store
from workflows.errors import ConfigError, nearest
from workflows.runtime.environment import store_place, tracking_uri

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from datasets import Dataset
    from torch import Tensor

    from workflows.session import Session, Source

Workflow = str | Path | Mapping[str, Any]
Place = str | Path  # of a file or folder
Form = Literal["torch", "numpy", "dataset"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Failure:
    """A step that failed, by its name in the plan, and why."""

    step: str
    error: str


@dataclass(frozen=True)
class Run:
    """A finished run, and what it stored.

    Attributes:
        run_id: names the run in its store.
        counts: how many steps `ran`, were `cached` and `failed`; empty for an earlier run.
        failures: steps that failed. Steps that need one of them did not run.
        notes: what a reader of the results should know, such as truncated prompts.
        record: the folder of the run, with its workflow, graph, results and reports.
        store: where the states lie.
    """

    run_id: str
    counts: Mapping[str, int]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    record: RunRecord = field(repr=False)
    store: Store = field(repr=False)

    def table(self) -> pd.DataFrame:
        """One row per result, with the columns of `vocabsem run --json`; nested ones are joined by `_`."""
        import pandas as pd

        from workflows.results.document import flat_row
        from workflows.results.model import read_stored

        return pd.DataFrame([flat_row(found) for found in read_stored(self.record.read("results.json") or [])])

    def best(self) -> dict[str, Any]:
        """Of a sweep: a compare workflow of its best settings and the defaults on the test rows, for `run`.

        Raises ConfigError for a run that is no finished sweep.
        """
        import yaml

        file = self.record.folder / "best.yaml"
        if not file.is_file():
            raise ConfigError(f"run {self.run_id} is no finished sweep; only a sweep has best settings")
        return yaml.safe_load(file.read_text(encoding="utf-8"))

    @overload
    def states(
        self, model: str, task: str, split: Split, layer: str = "head", form: Literal["torch"] = "torch"
    ) -> Tensor: ...
    @overload
    def states(
        self, model: str, task: str, split: Split, layer: str = "head", *, form: Literal["numpy"]
    ) -> np.ndarray: ...
    @overload
    def states(
        self, model: str, task: str, split: Split, layer: str = "head", *, form: Literal["dataset"]
    ) -> Dataset: ...
    def states(self, model: str, task: str, split: Split, layer: str = "head", form: Form = "torch") -> Any:
        """The stored hidden states of a task's prompts without demonstrations, in their stored precision.

        Args:
            model: its name in the results.
            task: its name in the results.
            split: `train` (which holds the validation rows) or `test`.
            layer: a stored layer.
            form: `torch` or `numpy`: [n, d]. `dataset`: a `datasets.Dataset` with the columns row_id (the row's place
                in the task's file), label and the layer.

        Files are memory-mapped; states in several files become one tensor or array in memory, a Dataset does not.
        Raises ConfigError for states or a layer that the run does not have, StoreError where they are not stored.
        """
        if form not in (forms := ("torch", "numpy", "dataset")):
            raise ConfigError(f"form: found {form!r}; expected one of {', '.join(forms)}")
        stored = self._encoded(model, task, split)
        _check_layer(stored, layer)
        if form == "dataset":
            return _dataset(stored, layer, self._labels(task, split), self.labels(model, task, split))
        array = _column(stored, layer)
        if form == "numpy":
            return array
        import torch

        return torch.from_numpy(array)

    def labels(self, model: str, task: str, split: Split) -> np.ndarray:
        """The class number of each row of `states`, [n]. Classes are in the order of the task's `words`."""
        from workflows.methods.inputs.states import labels_of

        return labels_of(self._encoded(model, task, split), self._labels(task, split)).astype("int64")

    def _encoded(self, model: str, task: str, split: str) -> Artifact:
        return self._artifact("encode", "states", {"model": model, "task": task, "split": split})

    def _labels(self, task: str, split: str) -> Artifact:
        return self._artifact("labels", "labels", {"task": task, "split": split})

    def _artifact(self, kind: str, noun: str, subject: dict[str, str]) -> Artifact:
        """What a step of the run made, by what the step is about."""
        from orchestration.graph import called, folder_of

        steps = [step for step in self.record.steps() if step["step"] == kind]
        about = [step["subject"] for step in steps if step["subject"].keys() == subject.keys()]
        what = f"{noun} of {', '.join(subject.values())}"
        if subject not in about:
            known = [called({name: one[name] for name in subject}) for one in about]
            raise ConfigError(f"run {self.run_id} has no {what}; {nearest(called(subject), known)}")
        key = next(step["key"] for step in steps if step["subject"] == subject)
        artifact = self.store.at(folder_of(kind, key))
        if artifact is None:
            raise StoreError(f"{what} of run {self.run_id} are not in {self.store}; run the workflow again")
        return artifact


def plan(
    workflow: Workflow,
    *,
    base: Place | None = None,
    store: Place | None = None,
    data_dir: Place | None = None,
) -> pd.DataFrame:
    """What a run would do: a row per step, with its state (cached, run or blocked) and why. Runs nothing.

    The arguments are those of `run`.
    """
    import pandas as pd

    planned = open_workflow(workflow, store, data_dir, base=base).plan()
    rows = [(entry.step.label, entry.step.key, entry.state, entry.why) for entry in planned]
    return pd.DataFrame(rows, columns=["step", "key", "state", "why"])


def run(
    workflow: Workflow,
    *,
    base: Place | None = None,
    store: Place | None = None,
    data_dir: Place | None = None,
    mlflow: str | None = None,
    executor: Literal["ray", "inline"] | None = None,
    address: str | None = None,
    progress: bool = True,
) -> Run:
    """Compute what is not cached, and track it in MLflow.

    Args:
        workflow: path of a YAML file, or a mapping of the same fields.
        base: the folder that relative paths in a mapping start from; None: the current one. A file has its own.
        store: folder of the results, or s3://bucket/prefix; None: $VOCABSEM_STORE, the workflow's field `store`, or
            ./.vocabsem/store.
        data_dir: a folder with rows of catalog tasks, <task>/train.jsonl and test.jsonl.
        mlflow: tracking URI; None: $MLFLOW_TRACKING_URI, or an SQLite file beside the store.
        executor: `ray`, or `inline` for this process; None: as the workflow says, which is Ray where it says nothing.
        address: host:port of a running Ray cluster; None: as the workflow says.
        progress: print a line or a bar for each step to stderr. Warnings are printed in any case.

    A step that fails is in `failures` and raises nothing: what does not depend on it is done.
    """
    session = open_workflow(workflow, store, data_dir, mlflow, executor, address, base)
    return _run(session, progress)


def sweep(
    workflow: Workflow,
    *,
    base: Place | None = None,
    store: Place | None = None,
    data_dir: Place | None = None,
    mlflow: str | None = None,
    executor: Literal["ray", "inline"] | None = None,
    address: str | None = None,
    progress: bool = True,
) -> Run:
    """Run a `workflow: sweep`; `best()` of the result is the workflow that tests the best settings.

    The arguments are those of `run`. Raises ConfigError for a workflow of another kind.
    """
    return _run(open_workflow(workflow, store, data_dir, mlflow, executor, address, base, "sweep"), progress)


def open_run(run: str = "latest", *, store: Place | None = None) -> Run:
    """An earlier run, by the first characters of its id or `latest`. Raises StoreError where there is none."""
    from orchestration.runs.lookup import find_run
    from orchestration.store.artifacts import existing_store

    opened = existing_store(store_place(_text(store), None))
    record = find_run(run, opened)
    return Run(record.run_id, {}, (), (), record, opened)


def load_model(
    model: str, *, base: Place | None = None, device: str | None = None, store: Place | None = None
) -> tuple[Any, Any]:
    """A language model with its head, and its tokenizer.

    Args:
        model: catalog name (`reference` is bundled), folder, GGUF or model YAML file, or Hugging Face id (id@revision).
        base: the folder that a relative path starts from; None: the current one.
        device: None: a GPU where there is one.
        store: where a GGUF file's dequantised weights are kept; no other model needs one.
    """
    import torch

    from orchestration.store.artifacts import open_store
    from orchestration.store.fingerprint_cache import FingerprintCache
    from vocabsem_core.features import checkpoints
    from workflows.inputs.catalog import find_model
    from workflows.inputs.models import find_files
    from workflows.inputs.precision import tried_out

    entry, root = find_model(model, Path(base or ".")), Path()
    if entry.config.gguf is not None:
        root = open_store(store_place(_text(store), None)).root
    folder = find_files(entry, FingerprintCache(root / "facts.json"))
    device, dtype = device or ("cuda" if torch.cuda.is_available() else "cpu"), str(entry.config.dtype)
    if dtype == "auto":
        dtype = tried_out().dtype(dtype, checkpoints.stored_dtype(folder), float(device != "cpu"))
    loaded = checkpoints.load_model(folder, dtype, device, entry.config.quantization == "4bit")
    return loaded, checkpoints.load_tokenizer(folder)


def open_workflow(
    workflow: Workflow,
    store: Place | None = None,
    data_dir: Place | None = None,
    mlflow: str | None = None,
    executor: str | None = None,
    address: str | None = None,
    base: Place | None = None,
    kind: str | None = None,
) -> Session:
    """A workflow made into a graph, on its store; the arguments are those of `run`. `kind`: the only one it may be."""
    from orchestration.store.artifacts import open_store
    from workflows.config.yaml_file import check_workflow, naming_lines, read_workflow
    from workflows.registry import WORKFLOWS
    from workflows.session import open_session

    source: Path | Source
    if isinstance(workflow, Mapping):
        fields, source = _source(workflow, Path(base or "."))
        config = check_workflow(fields, WORKFLOWS)
    elif base is not None:
        raise ConfigError("base: is for a mapping; relative paths in a file start from the file's folder")
    else:
        source = Path(workflow)
        config = read_workflow(source, WORKFLOWS)
    with naming_lines(source if isinstance(source, Path) else None):
        if kind not in (None, config.workflow):
            told = f"holds `workflow: {config.workflow}`; expected `workflow: {kind}`. `run` takes every kind"
            raise ConfigError(told, ("workflow",))
    given = {name: value for name, value in (("executor", executor), ("address", address)) if value is not None}
    if executor not in (None, "ray", "inline"):
        raise ConfigError(f"executor: found {executor!r}; expected 'ray' or 'inline'")
    config = config.model_copy(update={"execution": config.execution.model_copy(update=given)})
    opened = open_store(store_place(_text(store), config.store))
    return open_session(config, source, opened, _data_dir(data_dir), tracking_uri(mlflow))


def _source(workflow: Mapping[str, Any], base: Path) -> tuple[dict[str, Any], Source]:
    """The fields as YAML would give them, and their text, which the record of the run keeps."""
    import yaml

    from workflows.session import Source

    try:
        fields = json.loads(json.dumps(dict(workflow), default=_plain))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"workflow: {error}; expected what YAML can hold: text, numbers, lists, mappings") from error
    return fields, Source(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), base.resolve())


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"found {type(value).__name__} {value!r}")


def _text(place: Place | None) -> str | None:
    return None if place is None else str(place)


def _data_dir(data_dir: Place | None) -> Path | None:
    if data_dir is not None and not Path(data_dir).is_dir():
        raise ConfigError(f"data_dir: {data_dir}: no such folder")
    return Path(data_dir).absolute() if data_dir is not None else None


def _run(session: Session, progress: bool) -> Run:
    from orchestration.runs.lookup import find_run
    from workflows import session as sessions
    from workflows.runtime.progress import watching_on

    done = sessions.run(session, _print, watching_on(sys.stderr) if progress else _silent)
    failures = tuple(Failure(label, str(outcome.error)) for label, outcome in done.failures)
    record = find_run(done.run_id, session.store)
    return Run(done.run_id, done.counts, failures, tuple(done.notes), record, session.store)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _silent(*_: Any) -> Iterator[Any]:
    yield lambda *_: None


def _check_layer(stored: Artifact, layer: str) -> None:
    known: Sequence[str] = json.loads((stored.path("identity.json")).read_text())["identity"]["layers"]
    if layer not in known:
        raise ConfigError(f"layer: found {layer!r}; stored are {', '.join(known)}. Name more in `encoding.layers`.")


def _column(stored: Artifact, name: str) -> np.ndarray:
    import numpy as np

    from orchestration.store.arrow import private_column

    parts = [private_column(path, name) for path in stored.shards()]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _dataset(stored: Artifact, layer: str, labels: Artifact, numbers: np.ndarray) -> Dataset:
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, DatasetInfo, Features

    from orchestration.store.arrow import ROW_ID
    from workflows.methods.inputs.states import read_tables

    table = pa.concat_tables([part.select([ROW_ID, layer]) for part in read_tables(stored)])
    table = table.add_column(1, "label", pa.array(numbers))
    names = json.loads(labels.path("identity.json").read_text())["identity"]["names"]
    features = Features({**Features.from_arrow_schema(table.schema), "label": ClassLabel(names=names)})
    # A fingerprint of our own: by default, datasets would read all states for it.
    fingerprint = f"{stored.manifest['key'][:16]}-{labels.manifest['key'][:16]}-{layer}"
    return Dataset(table, DatasetInfo(features=features), fingerprint=fingerprint.replace(":", "-"))
