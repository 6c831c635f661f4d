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
    """What is tried, and when a try is given up."""

    algorithm: Literal["random", "grid", "optuna"] = Field(
        "random", description="random draws, every combination, or Optuna's tree-structured Parzen estimator"
    )
    trials: int | None = Field(
        None, ge=2, description="configurations, the defaults being the first; none: 64; a grid has its own number"
    )
    seed: Seed = Field(0, description="of the draws and of every fit")
    stopping: Literal["none", "asha", "median"] = Field(
        "none", description="end poor configurations early, by validation loss; which ones depends on the timing"
    )
    grace: int = Field(5, ge=1, description="epochs that each configuration gets before it may be ended")
    time_limit: float | None = Field(
        None,
        gt=0,
        description="seconds of one attempt; then no pack is begun, and what trains in epochs ends after this one",
    )

    @model_validator(mode="after")
    def _a_grid_is_whole(self) -> SweepSearch:
        if self.algorithm == "grid" and self.trials is not None:
            raise ValueError("trials and grid exclude each other: a grid has as many as its space; take `trials` out")
        return self


class Confirm(Strict):
    """The best are fitted anew, with fresh seeds, and scored on rows the search did not choose by."""

    best: int = Field(3, ge=1, description="how many, beside the defaults")


class SweepExecution(Execution):
    """Where the work runs; no part of a key. Without early stopping and time limit it changes no result."""

    concurrent: int | None = Field(None, ge=1, description="workers that search at once; none: as many as have room")
    cores: float = Field(1, gt=0, description="processor cores of each")
    gpus: float | None = Field(
        None,
        ge=0,
        le=1,
        description="GPUs of each, at most one, fractions allowed; none: one where there are any and the method "
        "uses it",
    )
    pack: int | None = Field(
        None, ge=1, description="configurations a worker trains side by side, at most; none: as memory allows"
    )


class SweepConfig(Strict):
    """Search a method's settings on one task under one model: `workflow: sweep`."""

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
        None, description="setting -> what to search it in, see below; none: what the method itself says"
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
