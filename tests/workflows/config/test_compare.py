"""The schema of workflow, task and model files."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from workflows.config import compare as config
from workflows.config import task as task_config
from workflows.config.compare import CompareConfig, MethodConfig, ModelConfig
from workflows.config.task import TaskConfig, prompt_template
from workflows.errors import ConfigError


def compare(**changes: Any) -> CompareConfig:
    fields = {"workflow": "compare", "models": ["reference"], "tasks": ["starter-topics"], "methods": ["knn"]}
    return CompareConfig.model_validate({**fields, **changes})


def task(**changes: Any) -> TaskConfig:
    fields: dict[str, Any] = {
        "name": "mine",
        "source": {"train": "a.csv", "test": "b.csv"},
        "template": "{text} is",
        "words": {"x": "good", "y": "bad"},
    }
    return TaskConfig.model_validate({**fields, **changes})


def test_a_method_given_by_name_has_no_settings_of_the_user() -> None:
    assert compare(methods=["knn"]).methods == (MethodConfig(method="knn"),)


def test_a_method_given_as_a_mapping_keeps_its_settings_and_name() -> None:
    (method,) = compare(methods=[{"method": "knn", "name": "one", "settings": {"k": 1}}]).methods
    assert (method.label, method.settings, method.layer) == ("one", {"k": 1}, "head")


def test_a_method_is_labelled_by_its_own_name_where_none_is_given() -> None:
    assert MethodConfig(method="knn").label == "knn"


@pytest.mark.parametrize(
    "methods",
    [["knn", "knn"], ["knn", {"method": "knn", "settings": {"k": 1}}], ["knn", {"method": "affinity", "name": "knn"}]],
)
def test_two_methods_of_one_name_are_refused(methods: list[Any]) -> None:
    with pytest.raises(ValidationError, match="method 'knn' is listed twice"):
        compare(methods=methods)


def test_a_method_may_stand_twice_under_two_names() -> None:
    both = compare(methods=["knn", {"method": "knn", "name": "knn-1"}])
    assert [method.label for method in both.methods] == ["knn", "knn-1"]


def test_a_method_that_reads_a_layer_not_stored_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'knn' reads layer 'layer_01'.*encoding\.layers \['head'\]"):
        compare(methods=[{"method": "knn", "layer": "layer_01"}])


def test_a_method_may_read_any_stored_layer() -> None:
    assert compare(methods=[{"method": "knn", "layer": "layer_01"}], encoding={"layers": ["layer_01"]})


@pytest.mark.parametrize(
    "changes",
    [{"seeds": [0, 1, 0]}, {"tasks": ["trec", "trec"]}, {"models": ["reference", "reference"]}],
    ids=["seeds", "tasks", "models"],
)
def test_an_entry_that_stands_twice_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is listed twice"):
        compare(**changes)


@pytest.mark.parametrize("field", ["models", "tasks", "methods", "seeds"])
def test_an_empty_list_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        compare(**{field: []})


@pytest.mark.parametrize("size", ["half", -1, 0])
def test_train_size_is_full_or_rows_of_each_class(size: Any) -> None:
    assert compare(train_size="full").train_size == "full"
    assert compare(train_size=1).train_size == 1
    with pytest.raises(ValidationError, match="train_size"):
        compare(train_size=size)


@pytest.mark.parametrize("template", ["{body} is", "{text} {body}", "{} is", "no field", "", "{text.x}"])
def test_a_template_must_name_fields_of_the_source_and_no_others(template: str) -> None:
    with pytest.raises(ValidationError, match=r"expected one or more of \['text'\]"):
        task(template=template)


@pytest.mark.parametrize("template", ["{text", "text}"])
def test_a_template_with_an_open_brace_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match=r"write a field as \{text\}"):
        task(template=template)


def test_a_template_may_use_several_fields_and_doubled_braces() -> None:
    pair = {"train": "a.csv", "test": "b.csv", "columns": {"text_a": "p", "text_b": "h"}}
    assert task(source=pair, template="{text_a} {{x}} {text_b}").source.columns == {"text_a": "p", "text_b": "h"}


def test_a_language_model_needs_a_template_of_its_kind() -> None:
    masked = task(template=None, masked_template="{text}: {mask}")
    assert prompt_template(masked, "masked") == "{text}: {mask}"
    with pytest.raises(ConfigError, match=r"task 'mine' has no template, which a language model needs, such as: "):
        prompt_template(masked, "causal")
    with pytest.raises(ValidationError, match=r"expected \{mask\} once"):
        task(template=None, masked_template="{text}")


def test_a_task_needs_two_words() -> None:
    with pytest.raises(ValidationError, match="words"):
        task(words={"x": "good"})


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Upper", "a b"])
def test_a_name_that_is_no_plain_path_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        task(name=name)


@pytest.mark.parametrize("place", [{}, {"folder": "f", "hub": "o/n"}], ids=["neither", "both"])
def test_a_model_has_exactly_one_place(place: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of `folder`, `hub`, `package` and `gguf`"):
        ModelConfig.model_validate({"name": "m", **place})


@pytest.mark.parametrize("place", [{"folder": "f"}, {"hub": "o/n"}])
def test_a_model_with_one_place_is_taken(place: dict[str, str]) -> None:
    model = ModelConfig.model_validate({"name": "m", **place})
    assert (model.revision, model.dtype) == ("main", "auto")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        compare().experiment = "other"  # type: ignore[misc]


def test_every_field_but_the_workflows_name_and_the_groups_has_a_description() -> None:
    kinds = {**vars(config), **vars(task_config)}.values()
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    silent = {
        name
        for model in models
        for name, field in model.model_fields.items()
        if not field.description and not isinstance(field.default, BaseModel)
    }
    assert silent == {"workflow", "source"}


def test_several_training_sizes_are_sorted_with_all_rows_last() -> None:
    assert compare(train_size=["full", 64, 4]).train_sizes == (4, 64, "full")
    assert compare(train_size=16).train_sizes == (16,)


@pytest.mark.parametrize("sizes", [[], [4, 4], [4, 0], [4, "all"], [4, 2.5]])
def test_training_sizes_that_make_no_sense_are_refused(sizes: Any) -> None:
    with pytest.raises(ValidationError, match="train_size"):
        compare(train_size=sizes)


def test_the_reference_method_is_calibration_or_the_first_or_the_one_named() -> None:
    assert compare(methods=["knn", "calibration"]).reference == "calibration"
    assert compare(methods=["knn", "affinity"]).reference == "knn"
    assert compare(methods=["knn", "affinity"], reference_method="affinity").reference == "affinity"


def test_an_unknown_reference_method_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ValidationError, match=r"reference_method names 'afinity'.*did you mean 'affinity'"):
        compare(methods=["knn", "affinity"], reference_method="afinity")


def test_a_method_may_run_under_some_of_the_models() -> None:
    chosen = [{"method": "knn", "models": ["b"]}, "affinity"]
    found = compare(models=["a", "b"], methods=chosen, reference_method="affinity")
    assert found.methods[0].models == ("b",)
    with pytest.raises(ValidationError, match=r"methods: 'knn' names the model 'b'; expected one of \['a'\]"):
        compare(models=["a"], methods=chosen, reference_method="affinity")
    with pytest.raises(ValidationError, match="'knn' is the reference method, which runs with every model"):
        compare(models=["a", "b"], methods=chosen)
