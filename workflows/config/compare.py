"""The YAML schema: every field with its meaning and default. Unknown fields are errors.

No torch here: a cached run and `--help` import this.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from vocabsem_core.names import ADAPTER_WEIGHTS
from workflows.config.layers import check_stored
from workflows.config.strict import PathText, Strict


class ModelConfig(Strict):
    """A language model: a local folder, a Hugging Face id, or a GGUF file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="short name")
    folder: PathText | None = Field(None, description="folder that save_pretrained wrote; relative to this YAML file")
    hub: str | None = Field(None, description="Hugging Face model id")
    revision: str = Field("main", description="commit of `hub`; pin it, since `main` may change")
    gguf: PathText | None = Field(
        None, description="GGUF file: relative to this YAML file, or the name of a file in `hub` or `package`"
    )
    package: str | None = Field(
        None, pattern=r"^[\w.-]+==[\w.+-]+$", description="installed Python package with the file `gguf`: name==version"
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the file `gguf`; checked if given")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="precision of the forward pass; auto: that of the stored weights on a GPU; on a CPU bfloat16 for "
        "16-bit weights if a trial finds it much faster, else float32",
    )
    quantization: Literal["none", "4bit"] = Field(
        "none", description="4bit: quantise the blocks on loading; needs bitsandbytes and a GPU"
    )

    @model_validator(mode="after")
    def _one_place(self) -> ModelConfig:
        places = [place for place in (self.folder, self.hub, self.package) if place is not None]
        if len(places) + (not places and self.gguf is not None) != 1:
            raise ValueError("expected exactly one of `folder`, `hub`, `package` and `gguf`")
        if self.gguf is not None and self.folder is not None:
            raise ValueError("expected `gguf` without `folder`: the path of the file itself")
        if self.gguf is None and (self.package or self.sha256):
            raise ValueError(f"`{'package' if self.package else 'sha256'}` needs `gguf`, the file that it is about")
        return self


class Search(Strict):
    """The search budget of every tunable method, on validation rows."""

    trials: int = Field(
        8, ge=0, description="settings tried for each method and task; the first is the defaults; 0: defaults only"
    )


class Limit(Strict):
    """Use a part of a large data set, chosen by hash of the row."""

    train: int | None = Field(
        None, ge=2, description="maximum number of training rows; two of each label are always kept"
    )
    test: int | None = Field(None, ge=1, description="maximum number of test rows")


class Encoding(Strict):
    """How prompts are encoded. All fields are part of the states' cache key."""

    layers: tuple[str, ...] = Field(
        ("head",),
        min_length=1,
        description="stored layers: head, layer_00 (input of block 1), layer_01, ..., or all; with :mean at the end "
        "(head:mean, all:mean), the mean over the prompt's tokens",
    )
    max_tokens: int | None = Field(None, ge=8, description="prompt length limit in tokens; none: the model's window")
    demonstration_tokens: int = Field(
        1024,
        ge=8,
        description="maximum tokens of the demonstrations before one prompt; a model with a long window would read "
        "thousands otherwise",
    )
    store_dtype: Literal["float16", "float32"] = Field("float16", description="precision of the stored states")


class StepResources(Strict):
    """Resources that each step of one kind reserves on its node; not part of a cache key."""

    cpus: float | None = Field(None, gt=0, description="CPU cores; none: the step's own value, mostly 1")
    memory_gb: float | None = Field(
        None, gt=0, description="memory in GB (10^9 bytes), reserved and enforced; none: no limit"
    )


Reserved = Annotated[
    dict[str, StepResources],
    Field(
        description="kind of step (the first word of its name in `vocabsem plan`: encode, search, fit, finetune) -> "
        "see below"
    ),
]


StoreField = Annotated[
    PathText | None,
    Field(
        description="folder for the artifacts, or s3://bucket/prefix; --store and $VOCABSEM_STORE take precedence; "
        "none: ./.vocabsem/store"
    ),
]
ExperimentField = Annotated[str, Field(description="MLflow experiment")]


class AnyExecution(Strict):
    """Where the work of any workflow runs."""

    executor: Literal["ray", "inline"] = Field(
        "ray", description="ray, or inline to run everything in this process, for debugging"
    )
    address: str | None = Field(None, description="host:port of a running Ray cluster; none: start Ray on this machine")
    stall_seconds: float = Field(
        600, ge=10, description="seconds without a heartbeat after which a worker is replaced; includes loading a model"
    )
    resources: Reserved = Field(default_factory=dict)


class Execution(AnyExecution):
    """Where the language model runs, in any workflow that reads its states."""

    encoders: int | None = Field(
        None,
        ge=1,
        description="maximum number of processes that hold the model; they wait for resources; none: one per GPU, "
        "or one",
    )
    gpus_per_encoder: float | None = Field(
        None,
        ge=0,
        description="GPUs per process: a fraction, one, or several that share the layers of a model too large for one; "
        "none: one if there are GPUs",
    )
    batch_tokens: int = Field(1024, ge=1, description="tokens per batch, padding included; on a GPU try 16384")

    @field_validator("gpus_per_encoder")
    @classmethod
    def _several_are_whole(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value % 1:
            raise ValueError("expected a fraction of a GPU, or a whole number of them")
        return value

    @property
    def spreads_layers(self) -> bool:
        """Whether several GPUs hold one model."""
        return self.gpus_per_encoder is not None and self.gpus_per_encoder > 1


class CompareExecution(Execution):
    """Where the steps run. These fields are not part of a cache key: results agree within rounding."""

    trainers: int | None = Field(
        None,
        ge=1,
        description="processes that share each batch of a final finetuning; none: one. With dropout each process "
        "draws separate masks, so results depend on this number",
    )
    cores_per_trainer: float | None = Field(
        None, ge=1, description="cores per process; none: the node's cores divided among them; with a GPU at most 4"
    )
    gpus_per_trainer: float | None = Field(
        None,
        ge=0,
        le=1,
        description="GPUs per process, at most one, and per trial of a finetuning's search; none: one if there are any",
    )
    gpus_per_fit: float | None = Field(
        None,
        ge=0,
        le=1,
        description="GPUs per search or fit of a method on stored states that uses one (calibration), at most one, "
        "fractions allowed; none: one if there are any",
    )


Demonstrations = Literal["none", "random", "bm25", "dense"]
SHOTS = 16  # the most of the paper and of KNN-Prompting where the window holds 2,000 tokens
READS = (
    "the stored layer to read; for several, or `all`, their states are concatenated, and calibration moves the "
    "first (for `all`, the head)"
)


def listed_once(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """The value. Raises ValueError for an entry that is listed twice."""
    if len(set(value)) != len(value):
        raise ValueError("an entry is listed twice; list each once")
    return value


LARGEST_SEED = 2**31 - 1  # what every library takes, with room for the seeds that are made of one
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Seeds = Annotated[tuple[Seed, ...], AfterValidator(listed_once)]


class MethodConfig(Strict):
    """A method with custom settings."""

    method: PathText = Field(
        description="name of the method, or a Python file with your own; relative to this YAML file"
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name in results; needed when a method is listed twice; none: the name of the method or file",
    )
    adapter: PathText | None = Field(
        None, description="of method peft: the folder that peft's save_pretrained wrote; relative to this YAML file"
    )
    layer: str | tuple[str, ...] = Field("head", min_length=1, description=READS)
    demonstrations: Demonstrations | None = Field(
        None,
        description="labelled training rows before each prompt, as many as fit the window: none, random (class-"
        "balanced, the same for all prompts), bm25 or dense (the nearest by words or by state, the nearest last); none "
        "given: the method's own",
    )
    shots: int = Field(
        SHOTS,
        ge=1,
        description="maximum number of demonstrations per class; for retrieved ones, times the number of classes",
    )
    folds: int = Field(
        1,
        ge=1,
        le=5,
        description="fits per seed, whose probabilities are averaged; each holds out a different fifth of the "
        "training rows. A search tries settings only on the first",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the method's defaults; these are not searched"
    )
    trials: int | None = Field(
        None, ge=0, description="budget for this method instead of search.trials; budgets are then no longer equal"
    )
    seeds: Seeds | None = Field(None, min_length=1, description="seeds for this method instead of the comparison's")
    models: tuple[PathText, ...] | None = Field(
        None, min_length=1, description="the models of the comparison to run it with; none: all"
    )

    def runs_under(self, model: str) -> bool:
        """Whether it runs under one of the comparison's models, given as the comparison names it."""
        return self.models is None or model in self.models

    @property
    def reference(self) -> str:
        """What names the method: of an adapter the file of its weights."""
        return f"{self.adapter}/{ADAPTER_WEIGHTS}" if self.adapter is not None else self.method

    @property
    def label(self) -> str:
        return self.name or Path(self.method).name.removesuffix(".py")


def checked_train_size(value: int | str) -> int | str:
    """Rows per class, or `full`. Raises ValueError for anything else."""
    if value != "full" and (isinstance(value, str) or value < 1):
        raise ValueError("expected `full`, or rows per class: a whole number of 1 or more")
    return value


def checked_train_sizes(value: int | str | tuple[int | str, ...]) -> int | str | tuple[int | str, ...]:
    """One training size, or several, each once. Raises ValueError for anything else."""
    if not isinstance(value, tuple):
        return checked_train_size(value)
    if not value:
        raise ValueError("expected one size or more")
    if len(set(value)) != len(value):
        raise ValueError("a size is listed twice; list each once")
    return tuple(checked_train_size(size) for size in value)


class CompareConfig(Strict):
    """Compare methods on tasks: `workflow: compare`."""

    workflow: Literal["compare"]
    models: tuple[PathText, ...] = Field(
        min_length=1,
        description="catalog names, folders, model YAML files, Hugging Face ids (id@revision); or networks: functions "
        "of your own (net.py:cnn), torchvision:NAME, timm:NAME, folders of transformers' image and audio classifiers",
    )
    tasks: tuple[PathText, ...] = Field(min_length=1, description="catalog names or task YAML files")
    methods: tuple[MethodConfig, ...] = Field(min_length=1, description="method names, or mappings with settings")
    seeds: Seeds = Field(
        (0, 1, 2), min_length=1, description="one fit per seed; seeds set subsample, initialisation and order"
    )
    train_size: Annotated[int | str | tuple[int | str, ...], AfterValidator(checked_train_sizes)] = Field(
        "full",
        description="training rows per class, validation included, or full; with 1 nothing is left to choose settings "
        "by: they are the defaults; a list: the table shows the largest, the report a learning curve",
    )
    reference_method: str | None = Field(
        None,
        description="the method, by its name in results, that all others are tested against; none: calibration if "
        "listed, else the first",
    )
    search: Search = Search()
    limit: Limit = Limit()
    encoding: Encoding = Encoding()
    execution: CompareExecution = CompareExecution()
    store: StoreField = None
    experiment: ExperimentField = "vocabsem"

    @field_validator("methods", mode="before")
    @classmethod
    def _names_are_methods(cls, value: Any) -> Any:
        return (
            [{"method": item} if isinstance(item, str) else item for item in value]
            if isinstance(value, list)
            else value
        )

    @field_validator("models", "tasks")
    @classmethod
    def _listed_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return listed_once(value)

    @model_validator(mode="after")
    def _methods_differ_and_layers_exist(self) -> CompareConfig:
        labels = [method.label for method in self.methods]
        if self.reference_method is not None and self.reference_method not in labels:
            from workflows.errors import nearest

            raise ValueError(
                f"reference_method names {self.reference_method!r}, which is not in `methods`; "
                f"{nearest(self.reference_method, labels)}"
            )
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"method {twice[0]!r} is listed twice; give one of them another `name`")
        for method in self.methods:
            if method.label == self.reference and not set(self.models) <= set(method.models or self.models):
                raise ValueError(
                    f"methods: {method.label!r} is the reference method, which runs with every model; remove `models`"
                )
            for model in method.models or ():
                if model not in self.models:
                    raise ValueError(
                        f"methods: {method.label!r} names the model {model!r}; expected one of {list(self.models)}"
                    )
            try:
                check_stored(method.layer, self.encoding.layers)
            except ValueError as error:
                raise ValueError(f"method {method.label!r} reads {error}") from error
        return self

    @property
    def train_sizes(self) -> tuple[int | str, ...]:
        """Every training size, the largest last."""
        sizes = self.train_size if isinstance(self.train_size, tuple) else (self.train_size,)
        return tuple(sorted(sizes, key=lambda size: math.inf if isinstance(size, str) else size))

    @property
    def reference(self) -> str:
        """The method that every other is tested against, by its name in results."""
        labels = [method.label for method in self.methods]
        return self.reference_method or ("calibration" if "calibration" in labels else labels[0])
