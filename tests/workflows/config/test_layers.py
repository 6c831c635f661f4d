"""Names of layers: what `all` and `:mean` stand for, and what is refused."""

import pytest
from pydantic import ValidationError

from tests.integration.workspace import WORKFLOW
from workflows.config.compare import CompareConfig, MethodConfig
from workflows.config.layers import layer_problems, layers_read, stored_layers
from workflows.errors import ConfigError
from workflows.methods.resolved import resolve

KNOWN = ["layer_00", "layer_01", "layer_02", "head"]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (["head"], ["head"]),
        (["layer_02", "head"], ["layer_02", "head"]),
        (["all"], ["head", "layer_00", "layer_01", "layer_02"]),
        (["head", "all:mean"], ["head", "head:mean", "layer_00:mean", "layer_01:mean", "layer_02:mean"]),
        (["layer_01", "all"], ["layer_01", "head", "layer_00", "layer_02"]),
    ],
)
def test_all_is_every_layer_once_the_head_first(asked, stored):
    assert stored_layers(asked, KNOWN) == stored


def test_a_layer_that_a_model_lacks_is_named():
    told = "encoding.layers: tiny has no layer {!r}; it has layer_00 to layer_02, and head"
    asked = ["all", "all:mean", "head:mean", "layer_03", "layer_9:mean"]
    assert layer_problems("tiny", asked, KNOWN) == [told.format("layer_03"), told.format("layer_9:mean")]


@pytest.mark.parametrize(
    ("reads", "found"),
    [
        ("layer_01", "layer_01"),
        (("head", "layer_01"), ["head", "layer_01"]),
        ("all", ["head", "layer_01", "head:mean"]),
    ],
)
def test_what_a_method_reads(reads, found):
    assert layers_read(reads, ["layer_01", "head", "head:mean"]) == found


@pytest.mark.parametrize("layer", ["layer_01", ["head", "layer_01"], "head:mean"])
def test_a_layer_that_is_not_stored_cannot_be_read(layer):
    document = {**WORKFLOW, "methods": [{"method": "knn", "layer": layer}], "encoding": {"layers": ["head"]}}
    with pytest.raises(ValidationError, match=r"is not stored; add it to encoding.layers \['head'\]"):
        CompareConfig.model_validate(document)
    assert CompareConfig.model_validate({**document, "encoding": {"layers": ["all", "all:mean"]}})


@pytest.mark.parametrize("name", ["affinity", "zero-shot", "knn-lm", "knn-prompting", "calibration-paper"])
@pytest.mark.parametrize("layer", ["all", ("head", "layer_01")])
def test_a_method_that_compares_with_the_heads_space_reads_one_layer(name, layer):
    with pytest.raises(ConfigError, match="reads one layer"):
        resolve(MethodConfig(method=name, layer=layer))
