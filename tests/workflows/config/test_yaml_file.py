"""YAML files are read strictly, and each mistake is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.config.compare import CompareConfig
from workflows.config.pretrain import PretrainConfig
from workflows.config.task import TaskConfig
from workflows.config.yaml_file import read_workflow, read_yaml
from workflows.errors import ConfigError, nearest
from workflows.registry import WORKFLOWS

COMPARE = "workflow: compare\nmodels: [reference]\ntasks: [starter-topics]\nmethods: [knn]\n"
TASK = 'name: mine\nsource: {train: a.csv, test: b.csv}\ntemplate: "{text} is"\nwords: {x: good, y: bad}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.yaml"


def refusal(file: Path, text: str, model: type = CompareConfig) -> str:
    """What read_yaml says against a text."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(file, model)
    return str(caught.value)


def test_a_right_file_gives_the_checked_model(file: Path) -> None:
    file.write_text(COMPARE + "search: {trials: 3}\n", encoding="utf-8")
    config = read_yaml(file, CompareConfig)
    assert config.tasks == ("starter-topics",)
    assert config.search.trials == 3


def test_an_unknown_field_is_named_with_its_place_and_the_nearest_right_name(file: Path) -> None:
    message = refusal(file, COMPARE + "seedz: [1]\n")
    assert message == f"{file}:5: unknown field 'seedz'; did you mean 'seeds'?"


@pytest.mark.parametrize(
    ("extra", "line", "field", "right"),
    [
        ("search:\n  trails: 3\n", 6, "search.trails", "trials"),
        ("encoding:\n  store_dtype: float32\n  layer: [head]\n", 7, "encoding.layer", "layers"),
    ],
)
def test_a_nested_unknown_field_is_compared_with_its_own_neighbours(
    file: Path, extra: str, line: int, field: str, right: str
) -> None:
    message = refusal(file, COMPARE + extra)
    assert message == f"{file}:{line}: unknown field {field!r}; did you mean {right!r}?"


def test_an_unknown_field_of_a_list_entry_is_named_with_its_place(file: Path) -> None:
    message = refusal(file, COMPARE.replace("methods: [knn]", "methods:\n  - method: knn\n    setings: {k: 1}"))
    assert message == f"{file}:6: unknown field 'methods.0.setings'; did you mean 'settings'?"


def test_a_misspelt_field_of_a_tasks_source_is_named(file: Path) -> None:
    text = TASK.replace("{train: a.csv, test: b.csv}", "\n  train: a.csv\n  test: b.csv\n  colums: {text: body}")
    assert refusal(file, text, TaskConfig) == f"{file}:5: unknown field 'source.colums'; did you mean 'columns'?"


def test_an_ill_typed_value_is_told_with_line_field_value_and_expectation(file: Path) -> None:
    message = refusal(file, COMPARE + "search:\n  trials: many\n")
    assert message.startswith(f"{file}:6: search.trials: found 'many'; ")
    assert "valid integer" in message


def test_a_value_out_of_range_is_told_with_the_bound(file: Path) -> None:
    message = refusal(file, COMPARE + "search: {trials: -1}\n")
    assert message.startswith(f"{file}:5: search.trials: found -1; ")
    assert "greater than or equal to 0" in message


def test_every_mistake_is_told_at_once(file: Path) -> None:
    lines = refusal(file, COMPARE + "seedz: [1]\nsearch: {trials: many}\n").splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [f"{file}:5", f"{file}:6"]


def test_a_duplicate_key_is_told_with_both_lines(file: Path) -> None:
    message = refusal(file, COMPARE + "models: [other]\n")
    assert message.startswith(f"{file}:5: 'models' is listed twice")
    assert "line 2" in message


def test_a_nested_duplicate_key_is_told_with_both_lines(file: Path) -> None:
    message = refusal(file, COMPARE + "search:\n  trials: 1\n  trials: 2\n")
    assert message.startswith(f"{file}:7: 'trials' is listed twice")
    assert "line 6" in message


def test_a_missing_field_is_named(file: Path) -> None:
    message = refusal(file, COMPARE.replace("tasks: [starter-topics]\n", ""))
    assert message.startswith(f"{file}:")
    assert "field 'tasks' is missing" in message


def test_a_missing_nested_field_is_named_with_its_parents_line(file: Path) -> None:
    message = refusal(file, TASK.replace(", test: b.csv", ""), TaskConfig)
    assert message.startswith(f"{file}:2: source.test is missing; name the file of the test rows, or give `split: 0.2`")


def test_a_file_that_is_not_utf8_is_named_with_the_byte(file: Path) -> None:
    file.write_bytes(b"# caf\xe9\n" + COMPARE.encode())
    with pytest.raises(ConfigError, match=r"not UTF-8 text .*byte 5.*save it as UTF-8") as caught:
        read_yaml(file, CompareConfig)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        read_yaml(file, CompareConfig)
    assert str(file) in str(caught.value)


def test_a_folder_in_place_of_the_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path, CompareConfig)
    assert str(tmp_path) in str(caught.value)


def test_invalid_yaml_is_told_with_its_line(file: Path) -> None:
    message = refusal(file, "workflow: compare\nmodels: [reference\ntasks: [x]\n")
    assert message.startswith(f"{file}:3: not valid YAML: ")


@pytest.mark.parametrize("text", ["", "- compare\n", "compare\n"])
def test_a_file_that_holds_no_fields_is_refused(file: Path, text: str) -> None:
    assert "expected fields such as `workflow: compare`" in refusal(file, text)


def test_an_object_tag_is_refused(file: Path) -> None:
    assert "not valid YAML" in refusal(file, "workflow: !!python/object/apply:os.getcwd []\n")


@pytest.mark.parametrize(
    "line",
    ["template: {{text}}", "? [a, b]\n: c", "experiment: 2024-02-31"],
    ids=["braces without quotes", "a list as a key", "a date that is none"],
)
def test_a_slip_of_yaml_is_a_config_error_that_names_the_file(file: Path, line: str) -> None:
    assert refusal(file, COMPARE + line + "\n").startswith(f"{file}")


@pytest.mark.parametrize("key", ["yes", "true", "1", "1.0", "null", "2024-01-01"])
def test_a_key_is_the_text_that_is_written(file: Path, key: str) -> None:
    file.write_text(TASK.replace("{x: good,", f"{{{key}: good,"))
    assert key in read_yaml(file, TaskConfig).words


@pytest.mark.parametrize("word", ["yes", "true", "0", "1.0"])
def test_a_value_is_the_text_that_is_written_where_text_is_expected(file: Path, word: str) -> None:
    file.write_text(TASK.replace("{x: good,", f"{{x: {word},"))
    assert read_yaml(file, TaskConfig).words["x"] == word


def test_with_a_list_of_problems_fields_with_mistakes_are_left_out(file: Path) -> None:
    file.write_text(COMPARE + "methodes: [knn]\nsearch: {trials: many}\n")
    problems: list[str] = []
    assert read_yaml(file, CompareConfig, problems).search.trials == CompareConfig.model_fields["search"].default.trials
    assert sorted(line.split(": ")[0] for line in problems) == [f"{file}:5", f"{file}:6"]


def test_nearest_lists_all_names_where_none_is_near() -> None:
    assert nearest("qqq", ["knn", "affinity"]) == "known: affinity, knn."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: [reference]", r":1: field 'workflow' is missing; add it; known: compare, layers, pretrain"),
        ("\nworkflow: comprae", r":2: workflow: found 'comprae'; did you mean 'compare'\?"),
    ],
)
def test_a_workflow_of_no_known_kind_is_told(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_workflow(file, WORKFLOWS)


def test_the_kind_of_a_workflow_decides_its_schema(file: Path) -> None:
    file.write_text("workflow: pretrain\nname: x\ncorpus: {files: [a.txt]}\ntraining: {tokens: 100_000}\n")
    assert isinstance(read_workflow(file, WORKFLOWS), PretrainConfig)
    file.write_text("workflow: pretrain\nname: x\ncorpus: {files: [a.txt]}\ntraining: {tokens: 100}\n")
    with pytest.raises(ConfigError, match="less than one batch"):
        read_workflow(file, WORKFLOWS)


def test_a_template_that_names_no_field_is_told_with_its_own_line_and_nothing_else(file: Path) -> None:
    file.write_text(
        "name: x\nsource: {train: a.csv, test: a.csv}\nwords: {a: a, b: b}\ntemplate: 'Message {txt}'\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        read_yaml(file, TaskConfig)
    told = "template 'Message {txt}' names the fields ['txt']; expected one or more of ['text'] in braces"
    assert str(caught.value) == f"{file}:4: {told}"


def test_a_file_that_cannot_be_read_is_told_with_the_reason(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(COMPARE)
    with pytest.raises(ConfigError, match=r"w\.yaml/x: cannot be read \(Not a directory\)"):
        read_yaml(file / "x", CompareConfig)

    def closed(*_: object, **__: object) -> str:  # by mode it would be open to root, who may run the tests
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_text", closed)
    with pytest.raises(ConfigError, match=r"w\.yaml: cannot be read \(Permission denied\)"):
        read_yaml(file, CompareConfig)
