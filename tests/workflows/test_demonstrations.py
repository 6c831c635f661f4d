"""Methods on prompts with demonstrations, inline on tiny models, against plain forwards of the whole text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from orchestration.graph import Step, in_order
from orchestration.store.artifacts import Artifact, Store
from tests import tiny
from tests.workflows import test_steps
from tests.workflows.films import TASK
from tests.workflows.test_steps import ROWS, Compared, failure
from workflows.compare.graph import Cell
from workflows.config.compare import Encoding, Execution, MethodConfig
from workflows.config.sweep import SweepConfig
from workflows.errors import ConfigError
from workflows.inputs.catalog import find_task
from workflows.inputs.models import Model
from workflows.inputs.precision import Machine
from workflows.methods.inputs.states import DEMONSTRATIONS, TaskFeatures, read_column, read_states
from workflows.methods.resolved import resolve
from workflows.steps.demonstrations import CONTENT_FREE, content_free_step
from workflows.steps.model import encode_step
from workflows.sweep.checks import sweep_method

compare = test_steps.compare  # the fixture
PALP = {"method": "linear-probe", "name": "palp", "demonstrations": "random"}
KNN_PROMPTING = {"method": "knn-prompting", "demonstrations": "random"}
TRAIN = ROWS[::-1]  # row ids count through the file, which the fixture writes in this order
CLASSES = ["bad", "good"]
TOKENIZER = tiny.tokenizer()
WORDS = [TOKENIZER(f" {word}")["input_ids"][0] for word in TASK["words"].values()]


def steps_of(cells: list[Cell], name: str) -> list[Step]:
    return [step for step in in_order([cell.score for cell in cells]) if step.name == name]


def demonstration_artifact(store: Store, fit: Step) -> Artifact:
    found = store.find(fit.inputs["test"].inputs["demonstrations"])
    assert found is not None
    return found


def demonstrations(store: Store, fit: Step) -> dict[str, Any]:
    return demonstration_artifact(store, fit).json(DEMONSTRATIONS)


@torch.no_grad()
def plain(model: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The head's input and the logits after a text, by a forward of it all."""
    output = model(input_ids=torch.tensor([TOKENIZER(text)["input_ids"]]), output_hidden_states=True)
    return output.hidden_states[-1][0, -1], output.logits[0, -1]


def prompt(row: dict[str, str]) -> str:
    return TASK["template"].format(**row)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2", "phi"])
def test_icl_scores_are_the_logits_of_the_concatenated_prompt(name: str, compare: Compared) -> None:
    model = tiny.ALL[name]()
    store, (cell,), outcomes = compare(model, methods=["icl"], encoding={"store_dtype": "float32"})
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    found = demonstrations(store, cell.fits[0])
    whole = "".join(f"{prompt(TRAIN[row])} {TASK['words'][TRAIN[row]['label']]}\n\n" for row in found["rows"])
    assert found["text"] == whole
    scores = read_column(store.find(cell.fits[0]), "scores")
    for row, expected in zip(ROWS, scores, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(expected), plain(model, whole + prompt(row))[1][WORDS], rtol=1e-3, atol=1e-4
        )


def test_demonstrations_are_balanced_and_no_validation_rows(compare: Compared) -> None:
    store, cells, _ = compare(methods=["linear-probe", "icl", PALP], seeds=[0, 1, 2], search={"trials": 2})
    probe, icl, palp = cells
    bare = TaskFeatures(
        {role: store.find(step) for role, step in probe.fits[0].inputs.items()}, "head", CLASSES, "full", 0
    )
    validation = set(bare.stored_validation.states._rows.tolist())
    seen = set()
    for seed in (0, 1, 2):
        found = demonstrations(store, icl.fits[seed])
        assert found == demonstrations(store, palp.fits[seed])
        assert set(Counter(TRAIN[row]["label"] for row in found["rows"]).values()) == {found["shots"]}
        assert set(found["validation"]) == validation
        assert set(found["rows"]) | set(found["train"]) == set(range(24)) - validation
        assert not set(found["rows"]) & set(found["train"])
        seen.add(tuple(found["rows"]))
    assert len(seen) == 3


def test_a_subsample_bounds_demonstrations_too(compare: Compared) -> None:
    store, (cell,), _ = compare(methods=["icl"], train_size=4, seeds=[0, 1])
    for fit in cell.fits.values():
        found = demonstrations(store, fit)
        assert len(found["rows"] + found["train"]) == 6  # of 4 a class, one is for validation
        assert len(found["validation"]) == 2
        assert found["shots"] >= 1


def test_what_learns_beside_demonstrations_has_rows_left_of_each_class(compare: Compared) -> None:
    store, (cell,), _ = compare(methods=[PALP], train_size=3)
    found = demonstrations(store, cell.fits[0])
    assert found["shots"] == 1  # two rows per class are for training
    assert Counter(TRAIN[row]["label"] for row in found["train"]) == {"bad": 1, "good": 1}


def test_knn_prompting_with_demonstrations_follows_the_original_rule(compare: Compared) -> None:
    """Anchors are the training rows that are no demonstrations, after the same prefix; KL(anchor ‖ test), k = 3."""
    model = tiny.phi()
    store, (cell,), _ = compare(model, methods=[KNN_PROMPTING], encoding={"store_dtype": "float32"})
    found = demonstrations(store, cell.fits[0])

    def distribution(row: dict[str, str]) -> np.ndarray:
        return softmax(plain(model, found["text"] + prompt(row))[1].double().numpy())

    anchors = [distribution(TRAIN[row]) for row in found["train"]]
    labels = np.array([CLASSES.index(TRAIN[row]["label"]) for row in found["train"]])
    expected = []
    for row in ROWS:
        test = distribution(row)
        gaps = [rel_entr(anchor, test).sum() for anchor in anchors]
        expected.append(int(np.bincount(labels[np.argsort(gaps, kind="stable")[:3]], minlength=2).argmax()))
    assert read_column(store.find(cell.fits[0]), "prediction").tolist() == expected


def test_palp_learns_from_states_of_the_concatenated_prompts(compare: Compared) -> None:
    model = tiny.llama()
    store, (cell,), _ = compare(model, methods=[PALP], encoding={"store_dtype": "float32"})
    inputs = {role: store.find(step) for role, step in cell.fits[0].inputs.items()}
    found = inputs["demonstrations"].json(DEMONSTRATIONS)
    materials = TaskFeatures(inputs, "head", CLASSES, "full", 0)
    rows = {"train": materials.train, "validation": materials.validation}
    for name, held in rows.items():
        assert held.labels.tolist() == [CLASSES.index(TRAIN[row]["label"]) for row in sorted(found[name])]
        for row, state in zip(sorted(found[name]), held.states, strict=True):
            expected = plain(model, found["text"] + prompt(TRAIN[row]))[0]
            torch.testing.assert_close(state, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["icl", "zero-shot"])
def test_contextual_calibration_divides_by_the_shares_of_prompts_that_say_nothing(
    method: str, compare: Compared
) -> None:
    model = tiny.phi()
    asked = {"method": method, "settings": {"contextual": True}}
    store, (cell,), _ = compare(model, methods=[asked], encoding={"store_dtype": "float32"})
    fit = store.find(cell.fits[0])
    ahead = demonstrations(store, cell.fits[0])["text"] if method == "icl" else ""

    def chances(text: str) -> np.ndarray:
        return softmax(plain(model, ahead + prompt({"text": text}))[1][WORDS].double().numpy())

    lean = np.mean([chances(text) for text in CONTENT_FREE], axis=0)
    divided = [chances(row["text"]) / lean for row in ROWS]
    expected = [one / one.sum() for one in divided]
    np.testing.assert_allclose(softmax(read_column(fit, "scores"), axis=1), expected, rtol=1e-3)
    assert fit.json("fit.json") == {"settings": {"contextual": True}, "trained_weights": 0}


def test_texts_that_say_nothing_to_a_masked_model_hold_no_mask() -> None:
    task = find_task("starter-topics", Path(), None)
    texts = {kind: content_free_step(task, kind).identity["texts"] for kind in ("causal", "masked", "seq2seq")}
    assert texts == {"causal": list(CONTENT_FREE), "masked": ["N/A", ""], "seq2seq": list(CONTENT_FREE)}


def test_icl_encodes_no_training_row_but_validation_rows_for_its_search(compare: Compared) -> None:
    _, cells, _ = compare(methods=["icl"])
    assert [step.label for step in steps_of(cells, "encode")] == ["encode model films test random seed 0"]
    store, cells, _ = compare(methods=["icl"], seeds=[0, 3], search={"trials": 2})
    assert sorted(step.label for step in steps_of(cells, "encode")) == [
        "encode model films content-free random seed 0",
        "encode model films content-free random seed 3",
        "encode model films test random seed 0",
        "encode model films test random seed 3",
        "encode model films validation random seed 0",
    ]
    (search,) = steps_of(cells, "search")
    trials = store.find(search).json("trials.json")["trials"]
    assert [trial["settings"] for trial in trials] == [{"contextual": False}, {"contextual": True}]
    assert all(0 <= trial["validation"] <= 1 for trial in trials)


def test_zero_shot_reads_prompts_that_say_nothing_only_where_asked(compare: Compared) -> None:
    _, cells, _ = compare(methods=["zero-shot"], search={"trials": 4})
    assert [step.label for step in steps_of(cells, "encode")] == ["encode model films test"]
    assert not steps_of(cells, "search")


def test_a_key_of_states_without_demonstrations_is_what_it_always_was(tmp_path: Path) -> None:
    layers = ["layer_00", "head"]
    sizes = {"kept_rows": 8, "window": 64, "layers": layers, "parameters": 100, "width": 8}
    digests = {"weights": "w", "tokenizer": "t", "head": "h"}
    kind = {"kind": "causal", "four_bit": False, "stamp": "s", "machine": Machine(False, False, False)}
    model = Model("m", tmp_path, "float32", "float32", **digests, **sizes, **kind)
    task, texts = find_task("starter-topics", tmp_path, None), Step("texts", "texts", 1, "a:b", local={"rows": 4})
    key = "b1479e2c3063929bb0b4b5096c4a0f63f83d65e6c75cf925729acfe01d876c40"
    assert encode_step(model, task, texts, Encoding(), Execution()).key == key
    some = Step("demonstrations", "demonstrations", 1, "a:b", subject={"demonstrations": "random seed 0"})
    assert encode_step(model, task, texts, Encoding(), Execution(), some).key != key


def test_test_rows_have_no_say_in_demonstrations(compare: Compared) -> None:
    _, cells, _ = compare(methods=["icl"])
    _, fewer, _ = compare(methods=["icl"], limit={"test": 6})
    (before,), (after,) = steps_of(cells, "demonstrations"), steps_of(fewer, "demonstrations")
    assert before.key == after.key


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"execution": {"batch_tokens": 64}}, True),
        ({"search": {"trials": 2}}, True),
        ({"encoding": {"store_dtype": "float32"}}, True),
        ({"encoding": {"max_tokens": 90}}, False),
        ({"train_size": 6}, False),
        ({"seeds": [1]}, False),
        ({"task": {**TASK, "words": {"bad": "cold", "good": "warm"}}}, False),
        ({"methods": [{"method": "icl", "shots": 1}]}, False),
    ],
)
def test_demonstrations_are_keyed_by_what_decides_them(change: dict, same: bool, compare: Compared) -> None:
    _, cells, _ = compare(methods=["icl"])
    _, others, _ = compare(**{"methods": ["icl"], **change})
    keys = [step.key for step in steps_of(cells, "demonstrations")]
    assert (set(keys) <= {step.key for step in steps_of(others, "demonstrations")}) == same


def test_the_order_of_rows_in_the_file_changes_no_demonstration(compare: Compared) -> None:
    store, (cell,), _ = compare(methods=["icl"])
    before = demonstrations(store, cell.fits[0])["text"]
    store, (cell,), _ = compare(rows=[*ROWS[12:], *ROWS[:12]], methods=["icl"])
    assert demonstrations(store, cell.fits[0])["text"] == before


def retrieved(store: Store, fit: Step, role: str) -> dict[int, str]:
    """The text before each row's prompt, by row id."""
    found = store.find(fit.inputs[role].inputs["demonstrations"]).json(DEMONSTRATIONS)
    return {int(row): "".join(found["texts"][str(one)] for one in ids) for row, ids in found["before"].items()}


def whole_of(row: dict[str, str]) -> str:
    return f"{prompt(row)} {TASK['words'][row['label']]}\n\n"


@pytest.mark.parametrize("name", ["bm25", "dense"])
def test_retrieved_demonstrations_end_with_the_nearest_and_fill_the_window(name: str, compare: Compared) -> None:
    model = tiny.gpt2()
    store, (probe, icl), outcomes = compare(
        model, methods=["linear-probe", f"icl-{name}"], encoding={"store_dtype": "float32"}
    )
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    bare = TaskFeatures(
        {role: store.find(step) for role, step in probe.fits[0].inputs.items()}, "head", CLASSES, "full", 0
    )
    pool = [TRAIN[row] for row in bare.stored_train.states._rows]
    before = retrieved(store, icl.fits[0], "test")
    scores = read_column(store.find(icl.fits[0]), "scores")
    for number, row in enumerate(ROWS):
        text = before[number]
        tokens = len(TOKENIZER(text + prompt(row))["input_ids"])
        shortest = min(len(TOKENIZER(whole_of(other))["input_ids"]) for other in pool)
        assert 128 - shortest - 8 < tokens <= 128
        best = text.split("review: ")[-1].split("\n")[0]
        if name == "dense":
            state = plain(model, prompt(row))[0]
            near = torch.cosine_similarity(state, torch.stack([plain(model, prompt(other))[0] for other in pool]))
            assert near[[other["text"] for other in pool].index(best)] == pytest.approx(float(near.max()), abs=1e-5)
        else:
            words = [{word for word in one["text"].split() if len(word) > 1} for one in (row, {"text": best}, *pool)]
            assert len(words[0] & words[1]) == max(len(words[0] & other) for other in words[2:])
        torch.testing.assert_close(
            torch.from_numpy(scores[number]), plain(model, text + prompt(row))[1][WORDS], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_a_training_row_never_stands_before_itself_nor_a_validation_row_before_any(
    kind: str, compare: Compared
) -> None:
    store, (cell,), _ = compare(methods=[{**PALP, "demonstrations": kind}], train_size=8, seeds=[0, 1])
    for fit in cell.fits.values():
        found = store.find(fit.inputs["demonstrations"]).json(DEMONSTRATIONS)
        assert len(found["train"]) + len(found["validation"]) == 16
        assert set(map(int, found["before"])) == {*found["train"], *found["validation"]}
        assert all(int(row) not in ids and set(ids) <= set(found["train"]) for row, ids in found["before"].items())
        assert all(found["before"].values())
        rows = read_column(store.find(fit.inputs["train"]), "row_id")
        assert set(rows) == {*found["train"], *found["validation"]}


def test_retrieved_demonstrations_follow_no_seed_but_of_a_subsample(compare: Compared) -> None:
    assert not resolve(MethodConfig(method="icl-bm25")).depends_on_seed("full")
    assert resolve(MethodConfig(method="icl-dense")).depends_on_seed(8)
    _, cells, _ = compare(methods=["icl-bm25"], seeds=[0, 1])
    assert [step.label for step in steps_of(cells, "encode")] == ["encode model films test bm25"]
    assert not steps_of(cells, "search")


def test_nothing_that_fits_before_any_prompt_is_told(compare: Compared) -> None:
    long = [{**row, "text": f"{row['text']} {'and so on ' * 30}"} for row in ROWS]
    told = failure(compare(rows=long, methods=["icl-bm25"])[2])
    assert told.error.startswith("task 'films': no demonstration fits before any prompt: the shortest takes ")
    assert told.exit_code == 2


def test_dense_demonstrations_need_the_head_layer(compare: Compared) -> None:
    method = {**PALP, "demonstrations": "dense", "layer": "layer_01"}
    with pytest.raises(ConfigError, match=r"nearest by layer head; add it to encoding\.layers"):
        compare(methods=[method], encoding={"layers": ["layer_01"]})


def test_a_fit_with_random_demonstrations_depends_on_the_seed() -> None:
    assert resolve(MethodConfig(method="icl")).depends_on_seed("full")
    assert resolve(MethodConfig(method="knn", demonstrations="random")).depends_on_seed("full")


def test_demonstrations_that_do_not_fit_are_told_with_task_window_and_tokens(compare: Compared) -> None:
    long = [{**row, "text": f"{row['text']} {'and so on ' * 12}"} for row in ROWS]
    told = failure(compare(rows=long, methods=["icl", "zero-shot"])[2])
    assert told.exit_code == 2
    assert told.error.startswith("task 'films': one demonstration of each of its 2 labels takes ")
    assert "with a window of 128 more than 1 prompt in 20 would be cut" in told.error


def test_a_label_without_training_rows_is_named(compare: Compared) -> None:
    third = {**TASK, "words": {**TASK["words"], "odd": "warm"}}
    told = failure(compare(task=third, methods=["icl"])[2])
    assert told.error.startswith("label 'odd' has no training row")
    assert told.exit_code == 2


def test_one_row_a_class_cannot_be_both_demonstration_and_lesson(compare: Compared) -> None:
    told = failure(compare(methods=[PALP], train_size=2)[2])
    assert "a label has 1 training row, validation rows not counted" in told.error


@pytest.mark.parametrize(("model", "kind"), [(tiny.bert, "masked"), (tiny.t5, "seq2seq")])
def test_demonstrations_need_a_causal_model(model: Any, kind: str, compare: Compared) -> None:
    with pytest.raises(ConfigError, match=rf"needs a causal model; model is a {kind} one") as told:
        compare(model(), methods=["zero-shot", "icl"], encoding={"max_tokens": 64})
    assert told.value.place == ("methods", 1)


def test_what_is_finetuned_has_none() -> None:
    with pytest.raises(ConfigError, match="'lora' is trained on bare prompts, found demonstrations: random"):
        resolve(MethodConfig(method="lora", demonstrations="random"))


def test_icl_has_demonstrations_of_its_own() -> None:
    with pytest.raises(ConfigError, match="method 'icl' has random demonstrations, found demonstrations: none"):
        resolve(MethodConfig(method="icl", demonstrations="none"))


def test_a_truncated_prompt_keeps_its_demonstrations(compare: Compared) -> None:
    rows = [{"text": "word " * 200, "label": "good"}, *ROWS]
    store, (cell,), _ = compare(rows=rows, methods=["icl"])
    test: Artifact = store.find(cell.fits[0].inputs["test"])
    assert read_column(test, "tokens")[0] == 128
    assert read_column(test, "cut")[0] > 0
    assert torch.isfinite(read_states(test, "head")).all()


def test_json_and_yaml_take_the_fields(tmp_path: Path) -> None:
    method = MethodConfig.model_validate(json.loads(json.dumps({**PALP, "shots": 2})))
    assert (method.label, method.demonstrations, method.shots) == ("palp", "random", 2)


def test_a_sweep_has_no_demonstrations() -> None:
    document = {"workflow": "sweep", "name": "s", "model": "m", "task": "t", "method": "icl"}
    with pytest.raises(ConfigError, match="method 'icl' has demonstrations before its prompts, which a sweep has not"):
        sweep_method(SweepConfig.model_validate(document))
