"""The YAML schema of the `layers` workflow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from vocabsem_core.names import LayerBasis
from workflows.config.compare import Encoding, Execution, ExperimentField, Limit, Seed, StoreField, listed_once
from workflows.config.layers import ALL, check_stored
from workflows.config.strict import PathText, Strict


class LayerEncoding(Encoding):
    """How prompts are encoded. All fields are part of the states' cache key."""

    layers: tuple[str, ...] = Field((ALL,), min_length=1, description="stored layers: see `workflow: compare`")


class Steering(Strict):
    """States are moved from the basis row of the predicted label to another's; does the model's own prediction follow?

    Each move is compared with a random direction of the same length.
    """

    rows: int = Field(32, ge=0, description="test rows; 0: no steering")
    layers: tuple[str, ...] | None = Field(
        None, min_length=1, description="blocks' outputs that are moved; none: at a quarter, half, and so on of the way"
    )
    length: float = Field(0.5, gt=0, description="of the move, in lengths of the state that it is added to")


Bases = Annotated[tuple[LayerBasis, ...], AfterValidator(listed_once)]


class LayersConfig(Strict):
    """What every layer means in the vocabulary's terms: `workflow: layers`."""

    workflow: Literal["layers"]
    models: tuple[PathText, ...] = Field(
        min_length=1, description="catalog names, folders, model YAML files, or Hugging Face ids (id@revision)"
    )
    tasks: tuple[PathText, ...] = Field(min_length=1, description="catalog names or task YAML files")
    layers: tuple[str, ...] = Field((ALL,), min_length=1, description="layers to study, of those that are stored")
    bases: Bases = Field(
        ("head", "embedding", "interpolated", "affine"),
        min_length=1,
        description="what stands for a label at a layer: head (states go through the model's tail to the semantic "
        "basis: the logit lens), embedding (its rows), interpolated (between the two by depth, unit vectors), "
        "interpolated-raw (the same, of rows as they are), affine (a map a layer, learned from the training states, "
        "before the tail: as the tuned lens)",
    )
    calibrated: Bases = Field(("head",), description="bases whose states are calibrated too, at every layer")
    neighbours: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(listed_once)] = Field(
        (1, 16, 256), description="numbers of neighbours of kNN"
    )
    vocabulary_rows: int = Field(
        64, ge=1, description="test rows that are compared with the whole vocabulary, for rank and entropy"
    )
    steering: Steering = Steering()
    seed: Seed = Field(0, description="of calibration, clusters and random directions")
    limit: Limit = Limit()
    encoding: LayerEncoding = LayerEncoding()
    execution: Execution = Execution()
    store: StoreField = None
    experiment: ExperimentField = "vocabsem"

    @model_validator(mode="after")
    def _layers_are_stored(self) -> LayersConfig:
        for name in self.layers:
            check_stored(name, self.encoding.layers)
        if not set(self.encoding.layers) & {ALL, "head"}:
            raise ValueError(f"layer 'head' is not stored; add it to encoding.layers {list(self.encoding.layers)}")
        if beyond := sorted(set(self.calibrated) - set(self.bases)):
            raise ValueError(f"calibrated names {beyond[0]!r}, which is not in `bases` {list(self.bases)}")
        return self
