"""A workflow file is checked as a whole: every problem is told at once, and what a run would accept is valid."""

import json
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.workflows.test_own_method import CONSTANT
from workflows.cli.validate import findings_document, findings_text, validate

ROWS = [{"text": f"a fine film, number {n}", "label": label} for n in range(4) for label in ("good", "bad")]
TASK = {
    "name": "mine",
    "source": {"train": "train.jsonl", "test": "test.jsonl"},
    "template": "review: {text}\n sentiment:",
    "words": {"good": "positive", "bad": "negative"},
}
WORKFLOW = {"workflow": "compare", "models": ["model"], "tasks": ["mine.yaml"], "methods": ["affinity", "knn"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "model", tiny.gpt2())


@pytest.fixture
def folder(tmp_path, model):
    (tmp_path / "model").symlink_to(model)
    rows(tmp_path, "train", ROWS)
    rows(tmp_path, "test", ROWS[:4])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TASK, sort_keys=False))
    return tmp_path


def rows(folder: Path, split: str, lines: list[dict]) -> None:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def check(folder: Path, task: dict | None = None, **changes):
    (folder / "mine.yaml").write_text(yaml.safe_dump({**TASK, **(task or {})}, sort_keys=False))
    (folder / "workflow.yaml").write_text(yaml.safe_dump({**WORKFLOW, **changes}))
    return validate(folder / "workflow.yaml", None)


def test_a_valid_file_shows_rows_by_class_and_the_words_tokens(folder):
    found = check(folder)
    assert (found.problems, found.notes) == ([], [])
    (task,) = found.tasks
    assert task.rows == {"train": {"good": 4, "bad": 4}, "test": {"good": 2, "bad": 2}}
    (words,) = task.words
    assert words.rule in ("first", "mean")
    assert set(words.tokens) == {"good", "bad"}
    text = findings_text(folder / "workflow.yaml", found)
    assert text.endswith("\nvalid")
    assert "good 4, bad 4" in text
    document = findings_document(folder / "workflow.yaml", found)
    assert json.loads(json.dumps(document))["valid"] is True


def test_all_problems_are_told_at_once(folder):
    rows(folder, "train", [*ROWS, {"text": " ", "label": "good"}, {"text": "x", "label": "goood"}])
    rows(folder, "test", [{"text": "x", "label": None}, *ROWS])
    found = check(
        folder,
        {"words": {"good": "fine", "bad": "fine"}},
        models=["model", "modell"],
        tasks=["mine.yaml", "trecc"],
        methods=["affinity", "kn", {"method": "knn", "settings": {"kk": 1}}],
        encoding={"layers": ["head", "layer_77"]},
    )
    expected = [
        "unknown method 'kn'; did you mean 'knn'?",
        "method 'knn' has no setting 'kk'",
        "has no layer 'layer_77'; it has layer_00",
        "unknown model 'modell'",
        "unknown task 'trecc'",
        "train.jsonl: row 9: column 'text' is ' '; expected non-empty text",
        "train.jsonl: row 10: label 'goood' has no word",
        "test.jsonl: row 1: column 'label' is empty",
        "task 'mine', model model: labels 'good' and 'bad' have the same tokens",
    ]
    for part in expected:
        assert sum(part in problem for problem in found.problems) == 1, (part, found.problems)
    assert len(found.problems) == len(expected)
    assert findings_text(folder / "workflow.yaml", found).endswith(f"9 problems in {folder / 'workflow.yaml'}")


@pytest.mark.parametrize("method", ["affinity-centred", "calibration", "semantic-prior", "calibration-paper", "icl"])
def test_label_words_that_cannot_be_told_apart_are_told_whatever_reads_them(method, folder):
    found = check(folder, {"words": {"good": "fine", "bad": "fine"}}, methods=[method])
    assert [problem for problem in found.problems if "have the same tokens" in problem]


def test_every_mistake_in_the_yaml_is_told(folder):
    found = check(folder, seeds=["x"], methodes=["knn"])
    assert any("unknown field 'methodes'; did you mean 'methods'?" in problem for problem in found.problems)
    assert any("seeds" in problem for problem in found.problems)
    assert [task.task for task in found.tasks] == ["mine"], "what else is wrong is still told"


def test_a_file_that_is_not_there_is_a_problem(folder):
    assert validate(folder / "none.yaml", None).problems == [f"{folder / 'none.yaml'}: no such file"]
    (folder / "test.jsonl").unlink()
    found = check(folder)
    assert len(found.problems) == 1
    assert "no file" in found.problems[0]
    assert found.tasks[0].rows == {"train": {"good": 4, "bad": 4}}


def test_every_missing_column_is_named(folder):
    source = {**TASK["source"], "columns": {"text": "txt"}, "label": "labell"}
    problems = check(folder, {"source": source}).problems
    assert sum("no column 'txt'" in problem for problem in problems) == 2
    assert sum("no column 'labell'" in problem for problem in problems) == 2


def test_many_bad_rows_are_counted_not_listed(folder):
    rows(folder, "train", [*ROWS, *({"text": "", "label": "good"} for _ in range(12))])
    problems = check(folder).problems
    assert len(problems) == 6
    assert problems[-1].endswith("train.jsonl: 7 more rows of this kind")


@pytest.mark.parametrize(("methods", "trained"), [(["knn"], True), (["affinity"], False)])
def test_a_class_with_one_training_row_is_a_note_where_something_is_trained(folder, methods, trained):
    rows(folder, "train", [row for row in ROWS if row["label"] == "good"] + ROWS[1:2])
    found = check(folder, methods=methods)
    told = ["task 'mine': label 'bad' has one training row, and so no validation row"]
    assert (found.problems, found.notes) == ([], told if trained else [])


@pytest.mark.parametrize(("methods", "trained"), [(["knn"], True), (["affinity"], False)])
def test_a_class_without_a_training_row_is_a_problem_where_something_is_trained(folder, methods, trained):
    rows(folder, "train", [row for row in ROWS if row["label"] == "good"])
    found = check(folder, methods=methods)
    told = ["task 'mine': label 'bad' has no training row; add rows, or remove the label from the task's `words`"]
    assert (found.problems, found.notes) == ((told, []) if trained else ([], told))


def test_a_class_smaller_than_a_training_size_is_a_note_where_something_is_trained(folder):
    rows(folder, "train", ROWS[:-1])
    assert check(folder, train_size=[2, 4, 8, "full"], methods=["affinity"]).notes == []
    found = check(folder, train_size=[2, 4, 8, "full"], methods=["knn"])
    assert found.notes == [
        "task 'mine': label 'good' has 4 training rows, fewer than the 8 of train_size; all of them are taken",
        "task 'mine': label 'bad' has 3 training rows, fewer than the 4 of train_size; all of them are taken",
    ]


def test_a_limit_counts_the_rows_it_keeps(folder):
    found = check(folder, limit={"train": 5})
    assert sum(found.tasks[0].rows["train"].values()) == 5


def test_a_class_without_test_rows_is_worth_a_note(folder):
    rows(folder, "test", [row for row in ROWS if row["label"] == "good"])
    found = check(folder)
    assert (found.problems, found.notes) == ([], ["task 'mine': label 'bad' has no test row"])


def test_words_are_not_checked_where_no_method_reads_them(folder):
    assert check(folder, {"words": {"good": "fine", "bad": "fine"}}, methods=["knn"]).problems == []


def test_a_task_without_a_template_is_told_once_for_language_models(folder):
    (problem,) = check(folder, {"template": None}).problems
    assert problem.startswith("task 'mine' has no template, which a language model needs, such as: '{text}")


def test_a_template_that_fills_the_window_is_a_problem(folder):
    template = "a review that somebody wrote about some other film: {text}\n sentiment:"
    (problem,) = check(folder, {"template": template}, encoding={"max_tokens": 8}).problems
    assert "alone takes" in problem


def test_a_template_that_formats_a_field_is_a_problem(folder):
    assert any("formats a field" in problem for problem in check(folder, {"template": "review: {text!r}"}).problems)


def test_demonstrations_need_rows_of_each_class_and_a_causal_model(folder):
    rows(folder, "train", [*ROWS, {"text": "so so", "label": "odd"}])
    odd = {"words": {**TASK["words"], "odd": "text"}}
    assert not check(folder, odd, methods=["zero-shot"]).problems
    rows(folder, "train", ROWS)
    (told,) = check(folder, odd, methods=["icl"]).problems
    assert told.startswith("task 'mine': label 'odd' has no training row")
    rows(folder, "train", ROWS)
    (folder / "model").unlink()
    tiny.save(folder / "model", tiny.bert())
    tiny.masked_tokenizer().save_pretrained(folder / "model")
    (told,) = check(folder, methods=["affinity", {"method": "knn", "demonstrations": "bm25"}]).problems
    assert "puts demonstrations before the prompt, which needs a causal model; model is a masked one" in told
    assert told.endswith("Name the models it runs under in its `models`, or compare this model in a file without it.")


def test_what_finetuning_cannot_do_is_told_as_a_run_tells_it(folder):
    (folder / "four.yaml").write_text(yaml.safe_dump({"name": "four", "folder": "model", "quantization": "4bit"}))
    models = ["model", "four.yaml"]
    (told,) = check(folder, methods=["knn", "lora"], models=models).problems
    assert "'lora' trains the model, and four is quantised to 4 bits" in told
    assert not check(folder, methods=["knn", {"method": "lora", "models": ["model"]}], models=models).problems
    lora = {"method": "lora", "layer": "layer_01"}
    (told,) = check(folder, methods=["knn", lora], encoding={"layers": ["head", "layer_01"]}).problems
    assert "'lora' trains the model itself and reads no stored layer" in told


def test_layers_that_cannot_be_adapted_are_told_as_a_run_tells_it(folder):
    def problems(method, **settings):
        return check(folder, methods=["knn", {"method": method, "settings": settings}]).problems

    assert problems("lora", target_modules=["all-linear"]) == []
    (told,) = problems("lora", target_modules=["c_atn"])
    assert told.startswith(f"{folder / 'workflow.yaml'}:")
    assert "method 'lora', model model: target module 'c_atn' is no linear layer" in told
    (folder / "model").unlink()
    tiny.save(folder / "model", tiny.cohere())
    (told,) = problems("ia3")
    assert "peft does not know which layers of model type 'cohere'" in told


def test_a_mask_in_a_text_is_told_by_file_and_row(folder):
    (folder / "model").unlink()
    tiny.save(folder / "model", tiny.bert())
    tiny.masked_tokenizer().save_pretrained(folder / "model")
    rows(folder, "train", [*ROWS, {"text": "a <mask> film", "label": "good"}])
    (told,) = check(folder).problems
    assert told.startswith(f"{folder / 'train.jsonl'}: row 9: the prompt holds 2 mask tokens, expected one")
    assert check(folder, methods=["zero-shot"]).problems == []  # which reads no training row
    rows(folder, "test", [{"text": "<mask>", "label": "good"}] * 7)
    found = check(folder, methods=["zero-shot"]).problems
    assert [told.split(": ")[1] for told in found] == [
        "row 1",
        "row 2",
        "row 3",
        "row 4",
        "row 5",
        "2 more rows of this kind",
    ]
    assert check(folder, methods=["zero-shot"], limit={"test": 1}).problems == found[:1]


def test_tokens_that_the_model_lacks_are_told(folder):
    (folder / "model").unlink()
    tiny.save(folder / "model", tiny.gpt2())
    tiny.larger_tokenizer().save_pretrained(folder / "model")
    assert check(folder).problems == []
    (told,) = check(folder, {"words": {"good": "zufrieden", "bad": "negative"}}).problems
    assert told.startswith("task 'mine', model model: label 'good', word 'zufrieden': token 'zufrieden' has id 320")
    rows(folder, "test", [*ROWS, {"text": "ein zufrieden", "label": "good"}])
    (told,) = check(folder).problems
    assert told.startswith(f"{folder / 'test.jsonl'}: row 9: token 'zufrieden' has id 320, the model has 320 tokens")


def test_a_begin_token_in_the_template_is_told_where_the_tokenizer_adds_one(folder):
    (folder / "model").unlink()
    tiny.save(folder / "model", tiny.gpt2())
    tiny.tokenizer(bos=True).save_pretrained(folder / "model")
    (told,) = check(folder, {"template": "<s>review: {text}"}).problems
    assert "begins with <s>, which the tokenizer adds itself" in told


def test_an_own_method_that_is_none_is_a_problem(folder):
    (folder / "own.py").write_text(CONSTANT.replace('"train"', '"trian"'))
    (told,) = check(folder, methods=["knn", "own.py"]).problems
    assert "own.py, line 4: class Constant needs 'trian'; did you mean 'train'?" in told


def test_what_is_reserved_for_a_kind_of_step_that_is_none_is_a_problem(folder):
    assert check(folder, execution={"resources": {"fit": {"cpus": 1}}}).problems == []
    (told,) = check(folder, execution={"resources": {"fitt": {"cpus": 1}}}).problems
    assert "execution.resources: no step of kind 'fitt' in this workflow; did you mean 'fit'?" in told
