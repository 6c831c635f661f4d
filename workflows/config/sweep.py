"""The YAML schema of the `sweep` workflow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from workflows.config.compare import (
    READS,
    Encoding,
    Execution,
    ExperimentField,
    Limit,
    Seed,
    StoreField,
    checked_train_size,
)
from workflows.config.layers import check_stored
from workflows.config.space import Domain
from workflows.config.strict import PathText, Strict


class SweepSearch(Strict):
    """Which configurations are tried, and when they are stopped."""

    algorithm: Literal["random", "grid", "optuna"] = Field(
        "random", description="random draws, every combination, or Optuna's tree-structured Parzen estimator"
    )
    trials: int | None = Field(
        None, ge=2, description="number of configurations; the first is the defaults; none: 64; not for a grid"
    )
    seed: Seed = Field(0, description="seed of the draws and of every fit")
    stopping: Literal["none", "asha", "median"] = Field(
        "none", description="stop poor configurations early, by validation loss; which ones depends on the timing"
    )
    grace: int = Field(5, ge=1, description="epochs that each configuration runs before it may be stopped")
    time_limit: float | None = Field(
        None,
        gt=0,
        description="time limit of one attempt in seconds; then no pack is started, and fits end after their epoch",
    )

    @model_validator(mode="after")
    def _a_grid_is_whole(self) -> SweepSearch:
        if self.algorithm == "grid" and self.trials is not None:
            raise ValueError("trials and grid exclude each other: a grid has as many as its space; remove `trials`")
        return self


class Confirm(Strict):
    """The best are fitted again, with new seeds, and scored on rows not used for the choice."""

    best: int = Field(3, ge=1, description="number of best configurations, in addition to the defaults")


class SweepExecution(Execution):
    """Where the steps run; not part of a cache key. Changes no result without early stopping and time limit."""

    concurrent: int | None = Field(None, ge=1, description="number of parallel workers; none: as many as fit")
    cores: float = Field(1, gt=0, description="CPU cores per worker")
    gpus: float | None = Field(
        None,
        ge=0,
        le=1,
        description="GPUs per worker, at most one, fractions allowed; none: one if there are GPUs and the method "
        "uses it",
    )
    pack: int | None = Field(
        None, ge=1, description="maximum number of configurations a worker trains together; none: limited by memory"
    )


class SweepConfig(Strict):
    """Search a method's settings on one task with one model: `workflow: sweep`."""

    workflow: Literal["sweep"]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="short name of the sweep")
    model: PathText = Field(description="catalog name, folder, model YAML file, or Hugging Face id (id@revision)")
    task: PathText = Field(description="catalog name or task YAML file")
    method: PathText = Field(description="name of the method")
    layer: str | tuple[str, ...] = Field("head", min_length=1, description=READS)
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the method's defaults; these are not searched"
    )
    space: dict[str, Domain] | None = Field(
        None, description="setting -> range to search, see below; none: the method's default space"
    )
    search: SweepSearch = SweepSearch()
    confirm: Confirm = Confirm()
    train_size: Annotated[int | str, AfterValidator(checked_train_size)] = Field(
        "full", description="training rows per class, validation included, or full"
    )
    limit: Limit = Limit()
    encoding: Encoding = Encoding()
    execution: SweepExecution = SweepExecution()
    store: StoreField = None
    experiment: ExperimentField = "vocabsem"

    @model_validator(mode="after")
    def _the_layer_is_stored(self) -> SweepConfig:
        check_stored(self.layer, self.encoding.layers)
        return self
