"""The YAML schema of the `pretrain` workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from orchestration.host.paths import expanded
from workflows.config.compare import AnyExecution, ExperimentField, StoreField
from workflows.config.strict import PathText, Strict


class Corpus(Strict):
    """The text: UTF-8, one paragraph per line, an empty line between documents; indentation is kept."""

    files: tuple[PathText, ...] = Field(
        min_length=1, description="files or patterns such as corpus/*.txt; .txt or .txt.gz; relative to this YAML file"
    )
    hub: str | None = Field(None, description="id of the Hugging Face data set with the files; none: local files")
    revision: str = Field("main", description="commit of `hub`; pin it, since `main` may change")
    held_out: float = Field(0.02, gt=0, lt=1, description="share of the text that is held out, by hash, for evaluation")

    @model_validator(mode="after")
    def _files_of_a_hub_are_named(self) -> Corpus:
        if self.hub is not None and (patterns := [file for file in self.files if "*" in file]):
            raise ValueError(f"files {patterns}: patterns are for local files; name the files of {self.hub} one by one")
        return self


class Shape(Strict):
    """The model: GPT-2's architecture."""

    width: int = Field(256, ge=8, description="width of the hidden states")
    layers: int = Field(6, ge=1, description="transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads; they divide the width")
    context: int = Field(512, ge=16, description="context window in tokens")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Shape:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Training(Strict):
    """The recipe: Muon for the blocks' matrices, AdamW for the rest."""

    tokens: int = Field(
        gt=0, description="total number of training tokens; more than the corpus has means several epochs"
    )
    batch_tokens: int = Field(8192, ge=16, description="tokens per step; a multiple of model.context")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate; it rises, then falls linearly to zero")
    warmup: float = Field(0.02, ge=0, lt=1, description="share of the steps during which the rate rises")
    weight_decay: float = Field(0.1, ge=0, description="of matrices, as a share of the learning rate")
    seed: int = Field(0, ge=0, description="of weights and order")
    stop_after: int | None = Field(
        None,
        ge=1,
        description="stop after this many steps of the schedule, for a trial or to reproduce the first losses",
    )


class Evaluation(Strict):
    """Texts to evaluate bits per byte on, in addition to the held-out part of the corpus."""

    tasks: tuple[PathText, ...] = Field(
        (), description="tasks whose test texts are used: catalog names or task YAML files"
    )
    rows: int = Field(300, ge=1, description="texts per task, chosen by hash")


class TrainingExecution(AnyExecution):
    """Where the steps run. These fields are not part of a cache key; results agree within rounding."""

    workers: int = Field(1, ge=1, description="processes that share each batch")
    cores: float | None = Field(
        None,
        gt=0,
        description="CPU cores per worker; none: the node's cores divided among them; with a GPU at most 4",
    )
    gpus: float | None = Field(
        None, ge=0, le=1, description="GPUs per worker, at most one; none: one if there are GPUs"
    )
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints: at most this many are lost")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of matrix products; auto: bfloat16 if a GPU supports it, on a CPU if a trial finds it much faster",
    )
    compile: bool = Field(
        False,
        description="use torch.compile: a minute at the start; seldom faster on a CPU, 1.4 times as fast on an H200",
    )


class PretrainConfig(Strict):
    """Pretrain a small language model on text: `workflow: pretrain`."""

    workflow: Literal["pretrain"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="short name of the model")
    corpus: Corpus
    vocabulary: int = Field(8192, ge=257, description="size of the byte-level BPE tokenizer, trained on the corpus")
    model: Shape = Shape()
    training: Training
    evaluation: Evaluation = Evaluation()
    execution: TrainingExecution = TrainingExecution()
    output: Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))] | None = Field(
        None,
        description="folder to write the finished model to; relative to this YAML file; none: models/<name>",
    )
    description: str = Field(
        "", description="text for the model card in addition to the recipe: sources, licences, limits"
    )
    store: StoreField = None
    experiment: ExperimentField = "vocabsem"

    @model_validator(mode="after")
    def _batches_are_whole_rows(self) -> PretrainConfig:
        if self.training.batch_tokens % self.model.context:
            raise ValueError(
                f"training.batch_tokens {self.training.batch_tokens} is not a multiple of model.context "
                f"{self.model.context}"
            )
        if self.training.tokens < self.training.batch_tokens:
            raise ValueError(f"training.tokens {self.training.tokens} is less than one batch")
        rows = self.training.batch_tokens // self.model.context
        if rows % self.execution.workers:
            raise ValueError(
                f"execution.workers {self.execution.workers} do not divide a batch of {rows} rows of "
                f"{self.model.context} tokens"
            )
        return self
