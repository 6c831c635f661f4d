"""The catalog's tasks and models, and how a reference becomes one."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from string import Formatter

import pytest
from safetensors import safe_open

import workflows.inputs.catalog
from orchestration.store.files import checksum
from workflows.config.pretrain import PretrainConfig
from workflows.config.yaml_file import read_yaml
from workflows.errors import ConfigError
from workflows.inputs.catalog import find_model, find_task, model_names, task_names
from workflows.inputs.tables import split_file

CATALOG = Path(workflows.inputs.catalog.__file__).parents[1] / "catalog"
BUNDLED = ["reference", "reference-3m", "reference-1m"]  # the largest first
TASK = 'name: mine\nsource: {train: a.csv, test: b.csv}\ntemplate: "{text} is"\nwords: {x: good, y: bad}\n'
STARTERS = [("starter-topics", 360, 240), ("starter-sentiment", 300, 200)]


def rows(task: str, split: str, base: Path) -> list[dict[str, str]]:
    path = split_file(find_task(task, base, None), split).path  # type: ignore[arg-type]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_catalog_holds_the_starter_tasks_and_the_reference_model() -> None:
    assert {"starter-topics", "starter-sentiment"} <= set(task_names())
    assert "reference" in model_names()


@pytest.mark.parametrize("name", task_names())
def test_a_catalog_task_loads_under_its_files_name(name: str, tmp_path: Path) -> None:
    config = find_task(name, tmp_path, None).config
    named = {field for _, field, _, _ in Formatter().parse(config.template) if field}
    assert config.name == name
    assert len(config.words) >= 2
    assert named
    assert named <= set(config.source.columns)


@pytest.mark.parametrize("name", task_names())
def test_a_catalog_task_names_different_words_and_only_its_own_labels(name: str, tmp_path: Path) -> None:
    config = find_task(name, tmp_path, None).config
    assert len(set(config.words.values())) == len(config.words)
    if config.source.values is not None:
        assert sorted(config.source.values.values()) == sorted(config.words)


@pytest.mark.parametrize("name", task_names())
def test_a_catalog_task_from_the_hub_is_pinned_to_a_commit(name: str, tmp_path: Path) -> None:
    source = find_task(name, tmp_path, None).config.source
    assert source.hub is None or (len(source.revision) == 40 and set(source.revision) <= set("0123456789abcdef"))


@pytest.mark.parametrize("name", model_names())
def test_a_catalog_model_loads_under_its_files_name(name: str, tmp_path: Path) -> None:
    assert find_model(name, tmp_path).config.name == name


@pytest.mark.parametrize("name", model_names())
def test_a_catalog_model_is_pinned(name: str, tmp_path: Path) -> None:
    config = find_model(name, tmp_path).config
    assert config.hub is None or re.fullmatch("[0-9a-f]{40}", config.revision)
    assert config.package is None or config.sha256


@pytest.mark.parametrize(("name", "train", "test"), STARTERS)
def test_a_starter_task_has_its_rows(name: str, train: int, test: int, tmp_path: Path) -> None:
    assert (len(rows(name, "train", tmp_path)), len(rows(name, "test", tmp_path))) == (train, test)


@pytest.mark.parametrize("name", [name for name, _, _ in STARTERS])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_starter_split_has_every_label_equally_often_and_no_other(name: str, split: str, tmp_path: Path) -> None:
    counts = Counter(row["label"] for row in rows(name, split, tmp_path))
    assert set(counts) == set(find_task(name, tmp_path, None).config.words)
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("name", [name for name, _, _ in STARTERS])
def test_no_text_of_a_starter_task_stands_twice_in_train_and_test_together(name: str, tmp_path: Path) -> None:
    texts = [row["text"].strip().lower() for split in ("train", "test") for row in rows(name, split, tmp_path)]
    assert len(set(texts)) == len(texts)
    assert all(texts)


def test_an_unknown_task_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown task 'starter-topic'; did you mean 'starter-topics'\?.*\.yaml file"
    ):
        find_task("starter-topic", tmp_path, None)


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'refrence'; did you mean 'reference'\?.*Hugging Face id"):
        find_model("refrence", tmp_path)


def test_a_task_file_is_found_beside_the_workflow_and_its_paths_start_there(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text(TASK)
    task = find_task("tasks/mine.yaml", tmp_path, None)
    assert (task.config.name, task.base) == ("mine", (tmp_path / "tasks").resolve())


def test_a_missing_task_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: no such file"):
        find_task("mine.yaml", tmp_path, None)


def test_a_model_file_is_found_beside_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("name: mine\nfolder: weights\ndtype: bfloat16\n")
    entry = find_model("mine.yml", tmp_path)
    assert (entry.config.folder, entry.config.dtype, entry.base) == ("weights", "bfloat16", tmp_path.resolve())


@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_is_a_model_named_after_it(tmp_path: Path, absolute: bool) -> None:
    folder = tmp_path / "runs" / "my model"
    folder.mkdir(parents=True)
    entry = find_model(str(folder) if absolute else "runs/my model", tmp_path)
    assert (entry.config.name, entry.config.folder) == ("my-model", str(folder.resolve()))


@pytest.mark.parametrize(("reference", "revision"), [("org/name-2.b", "main"), ("org/name-2.b@abc123", "abc123")])
def test_a_hub_id_is_a_model_with_its_revision(tmp_path: Path, reference: str, revision: str) -> None:
    config = find_model(reference, tmp_path).config
    assert (config.name, config.hub, config.revision, config.folder) == ("name-2.b", "org/name-2.b", revision, None)


def test_a_folder_comes_before_a_hub_id_of_the_same_form(tmp_path: Path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert find_model("org/name", tmp_path).config.hub is None


@pytest.mark.parametrize("reference", ["./org", "../up/model", "a/b/c", "org/"])
def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ConfigError, match="unknown model"):
        find_model(reference, tmp_path)


def test_data_dir_takes_over_only_where_it_has_the_tasks_folder(tmp_path: Path) -> None:
    (tmp_path / "trec").mkdir()
    assert find_task("trec", tmp_path, tmp_path).local_data == tmp_path / "trec"
    assert find_task("sst2", tmp_path, tmp_path).local_data is None
    assert find_task("trec", tmp_path, None).local_data is None


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_is_what_its_recipe_makes(name: str) -> None:
    recipe = read_yaml(CATALOG / "recipes" / f"{name}.yaml", PretrainConfig)
    shape = json.loads((CATALOG / "models" / name / "config.json").read_text(encoding="utf-8"))
    assert recipe.name == name
    assert (shape["n_embd"], shape["n_layer"], shape["n_head"]) == (
        recipe.model.width,
        recipe.model.layers,
        recipe.model.heads,
    )
    assert (shape["n_positions"], shape["vocab_size"]) == (recipe.model.context, recipe.vocabulary)
    card = (CATALOG / "models" / name / "README.md").read_text(encoding="utf-8")
    assert recipe.description.strip() in card
    assert f"tokens: {recipe.training.tokens}\n" in card
    assert checksum(CATALOG / "models" / name / "tokenizer.json") in card


def test_the_bundled_models_are_small_and_half_precision() -> None:
    folders = [CATALOG / "models" / name for name in BUNDLED]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 25_000_000
    for folder in folders:
        with safe_open(folder / "model.safetensors", framework="np") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_bundled_models_are_in_order_of_bits_per_byte() -> None:
    found = []
    for name in BUNDLED:
        card = (CATALOG / "models" / name / "README.md").read_text(encoding="utf-8")
        lines = re.findall(r"^\| ([\w-]+) \| [\d,]+ \| ([\d.]+) \|", card, re.MULTILINE)
        found.append({task: float(bits) for task, bits in lines})
    assert set(found[0]) == {"held-out", "sst2", "trec", "agnews", "subj"}
    for task in found[0]:
        assert found[0][task] < found[1][task] < found[2][task]
