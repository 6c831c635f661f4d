"""Finetuning in a comparison: its steps, what they depend on, and what cannot be trained. One process, tiny model."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import in_order
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from tests.workflows.films import TASK, films, write_films
from vocabsem_core.errors import InputError
from vocabsem_core.finetuning.trainer import Classifier, Finetuning
from vocabsem_core.numerics import checkpoint
from workflows.compare.graph import comparison
from workflows.compare.results import read_result, remarks
from workflows.config.compare import CompareConfig
from workflows.config.sweep import SweepConfig
from workflows.errors import ConfigError
from workflows.methods.inputs.prompts import Texts
from workflows.methods.inputs.states import read_column
from workflows.methods.registry import METHODS
from workflows.results.costs import Ledger
from workflows.steps import finetune
from workflows.sweep.checks import sweep_method

ROWS = films(40)
QUICK = {"epochs": 2, "batch_size": 8}
LORA = {"method": "lora", "settings": QUICK}


class Folder:
    """A tiny model, a task, and comparisons on them."""

    def __init__(self, path, model=None):
        self.path, self.store = path, open_store(path / "store")
        tiny.save(path / "model", model or tiny.gpt2())
        self.rows(ROWS)

    def rows(self, train):
        write_films(self.path, train, ROWS[:10])

    def cells(self, *methods, **changes):
        document = {"workflow": "compare", "models": ["model"], "tasks": ["films.yaml"], "methods": list(methods)}
        place = {"execution": {"executor": "inline"}}
        config = CompareConfig.model_validate({**document, **place, "seeds": [0], "search": {"trials": 0}, **changes})
        return comparison(config, self.path, None, FingerprintCache(self.path / "facts.json"))

    def run(self, *methods, **changes):
        """Cells, and the outcome of each step by its label."""
        cells = self.cells(*methods, **changes)
        plan = make_plan([cell.score for cell in cells], self.store)
        outcomes = run_plan(plan, lambda: InlineEngine(self.store, lambda *_: None), lambda *_: None)
        return cells, {entry.step.label: outcomes[entry.step.key] for entry in plan}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def errors(outcomes):
    return {outcome.error: outcome.exit_code for outcome in outcomes.values() if outcome.state == "failed"}


def test_from_text_to_scores_with_the_seconds_of_each_fit(folder):
    cells, outcomes = folder.run(LORA, {"method": "ia3", "settings": QUICK}, {"method": "full", "settings": QUICK})
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    assert not [label for label in outcomes if "encode" in label]  # no state is stored for them
    expected = {
        "lora": 4 * 8 * tiny.WIDTH * tiny.DEPTH,
        "ia3": 7 * tiny.WIDTH * tiny.DEPTH,
        "full": sum(parameter.numel() for parameter in tiny.gpt2().parameters()),
    }
    for cell in cells:
        result, detail = read_result(cell, Ledger(folder.store))
        assert 0 <= result.low <= result.mean <= result.high <= 1
        assert result.n_test == 10
        assert detail.trained_weights == expected[cell.method]
        assert detail.costs.fit > 0
        assert detail.costs.peak_rss > 1 << 20
        (made,) = folder.store.find(cell.fits[0]).manifest["numerics"]
        assert {**made, "products": "?"} == {
            **{"device": "cpu", "threads": torch.get_num_threads(), "torch": torch.__version__},
            **{"dtype": "float32", "products": "?", "workers": 1},
        }
        assert detail.costs.fit_bytes > 4 * expected[cell.method]  # its float32 weights, and its predictions
        assert cell.trials == 0


def test_a_class_smaller_than_the_training_size_is_told(folder):
    folder.rows([row for row in ROWS if row["label"] == "bad"][:3] + [row for row in ROWS if row["label"] == "good"])
    cells, _ = folder.run({**LORA, "settings": {**QUICK, "epochs": 1}}, train_size=4)
    told = "task films: label 'bad' has 3 training rows, fewer than the 4 of train_size; all of them are taken"
    assert remarks(cells, folder.store) == [told]


def test_predictions_are_those_of_the_stored_weights(folder):
    """The stored weights, put into a model again, give the stored scores: one prompt at a time, every logit."""
    cells, _ = folder.run(LORA)
    fit = folder.store.find(cells[0].fits[0])
    weights = load(fit.path("fitted.safetensors").read_bytes())
    method, tokenizer = METHODS["lora"], tiny.tokenizer()
    words = [tokenizer(f" {word}")["input_ids"][0] for word in TASK["words"].values()]
    from vocabsem_core.finetuning.adapters import adapted, use

    model = tiny.gpt2()
    with adapted(model, method.adaptation(method.Settings()), 9) as ours, torch.no_grad():
        use(ours, weights)
        for row, scores in zip(ROWS[:10], read_column(fit, "scores"), strict=True):
            ids = torch.tensor([tokenizer(TASK["template"].format(**row))["input_ids"]])
            expected = model.eval()(input_ids=ids).logits[0, -1, words]
            torch.testing.assert_close(torch.from_numpy(scores), expected, atol=2e-2, rtol=2e-2)  # bfloat16, perhaps


def test_the_search_tries_the_budget_on_few_rows_and_the_fit_takes_the_best(folder, monkeypatch):
    seen = []
    plain = Texts.stored_train.fget
    monkeypatch.setattr(Texts, "stored_train", property(lambda self: seen.append(self.most) or plain(self)))
    cells, _ = folder.run(LORA, search={"trials": 3})
    assert set(seen) == {1000, None}
    search = next(step for step in in_order([cells[0].score]) if step.name == "search")
    trials = folder.store.find(search).json("trials.json")
    assert len(trials["trials"]) == cells[0].trials == 3
    assert trials["trials"][0]["settings"] == METHODS["lora"].Settings(**QUICK).model_dump(mode="json")
    took = folder.store.find(search).json("provenance.json")
    assert took["work_seconds"] == pytest.approx(sum(trial["seconds"] for trial in trials["trials"]), abs=1e-3)
    assert took["peak_rss"] == max(trial["peaks"]["peak_rss"] for trial in trials["trials"])
    best = max(trials["trials"], key=lambda trial: (trial["validation"], -trial["loss"]))
    assert folder.store.find(cells[0].fits[0]).json("fit.json")["settings"] == best["settings"] == trials["best"]


def test_a_method_may_have_seeds_and_a_budget_of_its_own(folder):
    cells = folder.cells("zero-shot", {**LORA, "trials": 0, "seeds": [3]}, "linear-probe", search={"trials": 2})
    assert [cell.trials for cell in cells] == [None, 0, 2]  # nothing to tune; its own; the common one
    assert [cell.seeds for cell in cells] == [(0,), (3,), (0,)]
    assert sorted(cells[1].fits) == [3]
    with pytest.raises(ValueError, match="an entry is listed twice"):
        folder.cells({**LORA, "seeds": [1, 1]})


def test_prompts_that_were_cut_are_counted_once_for_all_who_read_them(folder):
    folder.rows([{"text": "word " * 200, "label": "good"}, *ROWS])
    (train,) = remarks(folder.run(LORA)[0], folder.store)  # the test texts are short
    assert train.startswith("finetune model films lora seed 0, texts films train: 1 of 41 prompts cut to 128 tokens (")
    (shared,) = remarks(folder.run("linear-probe", LORA)[0], folder.store)
    assert shared == train.replace("finetune model films lora seed 0, texts films train", "encode model films train")
    assert len(remarks(folder.run(LORA, "linear-probe", encoding={"max_tokens": 60})[0], folder.store)) == 1


def test_a_token_that_the_model_lacks_is_told_by_row_whichever_method_reads_it(folder):
    tiny.larger_tokenizer().save_pretrained(folder.path / "model")
    folder.rows([*ROWS, {"text": "ein zufrieden", "label": "good"}])
    _, outcomes = folder.run(LORA, "linear-probe")
    told = sorted(errors(outcomes))
    assert [error.split(": token 'zufrieden' has id 320, ")[0] for error in told] == ["row 41", "train row 41"]
    assert set(errors(outcomes).values()) == {2}


def test_a_mask_in_a_text_is_told_by_row(tmp_path):
    folder = Folder(tmp_path, tiny.bert())
    tiny.masked_tokenizer().save_pretrained(folder.path / "model")
    folder.rows([*ROWS[:4], {"text": "a <mask> film", "label": "good"}, *ROWS[4:]])
    _, outcomes = folder.run(LORA, "linear-probe")
    told = sorted(errors(outcomes))
    assert [error.split(": the prompt holds 2 mask tokens")[0] for error in told] == ["row 5", "train row 5"]


def test_all_linear_layers_can_be_adapted(folder):
    cells, _ = folder.run({"method": "lora", "settings": {**QUICK, "target_modules": ["all-linear"]}})
    _, detail = read_result(cells[0], Ledger(folder.store))
    assert detail.trained_weights > 4 * 8 * tiny.WIDTH * tiny.DEPTH


def test_trial_rows_are_those_of_smallest_hash(folder):
    cells, _ = folder.run(LORA)
    step = cells[0].fits[0]
    inputs = {role: folder.store.find(source) for role, source in step.inputs.items()}
    place = (folder.path / "model", step.local["stamp"], ["bad", "good"])
    texts = Texts(inputs, step.identity["reading"], *place, "full", 0)
    few = replace(texts, most=5)
    assert len(texts.stored_train.labels) == 32
    assert len(few.stored_train.labels) == 5
    assert len(few.stored_validation.labels) == len(texts.stored_validation.labels) == 8
    whole = [tuple(ids) for ids in texts.stored_train.prompts.ids]
    assert all(tuple(ids) in whole for ids in few.stored_train.prompts.ids)
    assert few.shortened
    assert not texts.shortened
    assert not replace(texts, most=32).shortened


def test_trials_on_few_rows_are_said(folder, monkeypatch):
    monkeypatch.setattr("workflows.steps.finetune.TRIAL_ROWS", 5)
    cells, _ = folder.run(LORA, search={"trials": 2})
    _, detail = read_result(cells[0], Ledger(folder.store))
    assert (detail.trials, detail.trial_rows) == (2, 5)


def test_interrupted_it_goes_on_from_the_epoch_and_finished_seeds_are_not_trained_again(folder, monkeypatch):
    method = {"method": "lora", "settings": {"epochs": 3, "batch_size": 8}, "seeds": [0, 1]}
    (folder.path / "undisturbed").mkdir()
    whole = Folder(folder.path / "undisturbed")
    undisturbed, _ = whole.run(method)
    epochs, plain = [], Finetuning.epoch

    def epoch(self):
        if len(epochs) == 4:
            raise KeyboardInterrupt
        epochs.append(self._seed)
        return plain(self)

    monkeypatch.setattr(Finetuning, "epoch", epoch)
    with pytest.raises(KeyboardInterrupt):
        folder.run(method)
    monkeypatch.setattr(Finetuning, "epoch", lambda self: epochs.append(self._seed) or plain(self))
    cells, _ = folder.run(method)
    assert sorted(epochs) == [0, 0, 0, 1, 1, 1]
    for seed in (0, 1):
        found, expected = (
            store.find(c[0].fits[seed]) for store, c in ((folder.store, cells), (whole.store, undisturbed))
        )
        assert read_column(found, "scores").tolist() == read_column(expected, "scores").tolist()
    assert not list((folder.path / "store" / "scratch").glob("finetune/*"))


def test_a_disk_that_is_full_when_a_fit_is_done_is_told(tmp_path, monkeypatch):
    """By the error that safetensors has of its own, which is none of the system's."""

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match=r"No space left on device .* make room, then run again"):
        finetune._write_done(tmp_path / "done.safetensors", {}, {}, {}, torch.zeros(1), {})
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_not_numbers_are_no_result(folder, monkeypatch):
    plain = Classifier.scores

    def one_unknown(self, *given):
        found = plain(self, *given).clone()
        if len(found) == 10:  # the test rows; the validation rows are fewer
            found[3, 1] = float("nan")
        return found

    monkeypatch.setattr(Classifier, "scores", one_unknown)
    cells, outcomes = folder.run(LORA)
    assert errors(outcomes) == {"method 'lora': predict() returned scores that are not numbers": 2}
    assert folder.store.find(cells[0].fits[0]) is None


def test_another_seed_trains_that_seed_alone(folder):
    folder.run({**LORA, "seeds": [0]})
    _, outcomes = folder.run({**LORA, "seeds": [0, 1]})
    assert [label for label, outcome in outcomes.items() if outcome.state == "ran" and "finetune" in label] == [
        "finetune model films lora seed 1"
    ]


def test_a_rate_that_breaks_one_trial_leaves_the_others(folder, monkeypatch):
    spoilt = METHODS["full"].space["learning_rate"].model_copy(update={"log_uniform": (1e28, 1e30)})
    monkeypatch.setattr(type(METHODS["full"]), "space", {"learning_rate": spoilt})
    cells, _ = folder.run({"method": "full", "settings": QUICK}, search={"trials": 3})
    search = next(step for step in in_order([cells[0].score]) if step.name == "search")
    ended = [(trial["ended"], trial["error"]) for trial in folder.store.find(search).json("trials.json")["trials"]]
    assert [state for state, _ in ended] == ["finished", "failed", "failed"]
    assert "not a number with learning_rate" in ended[1][1]
    method = {"method": "full", "settings": {**QUICK, "learning_rate": 1e30}}
    assert list(errors(folder.run(method)[1]).values()) == [2]


def test_bad_input_is_told(folder):
    with pytest.raises(ConfigError, match="'lora' trains the model itself and reads no stored layer"):
        folder.cells({**LORA, "layer": "layer_01"}, encoding={"layers": ["head", "layer_01"]})
    _, outcomes = folder.run({"method": "lora", "settings": {"target_modules": ["c_atn"]}})
    assert errors(outcomes) == {
        "target module 'c_atn' is no linear layer of model type 'gpt2'; the nearest are c_attn": 2
    }
    folder.rows([row for row in ROWS if row["label"] == "good"])
    ((told, code),) = errors(folder.run(LORA)[1]).items()
    assert "label 'bad' has no training row" in told
    assert code == 2
    sweep = {"workflow": "sweep", "name": "s", "model": "model", "task": "films.yaml", "method": "lora"}
    with pytest.raises(ConfigError, match="'lora' trains the language model itself, and a sweep is over stored states"):
        sweep_method(SweepConfig.model_validate(sweep))


def test_all_weights_are_trained_in_float32_and_adapters_beside_what_the_model_has(tmp_path):
    """In bfloat16 a small step of a weight is rounded away; peft's own weights are float32 in any case."""
    folder = Folder(tmp_path, tiny.gpt2().bfloat16())
    (tmp_path / "half.yaml").write_text(json.dumps({"name": "half", "folder": "model", "dtype": "bfloat16"}))
    full = {"method": "full", "settings": {**QUICK, "learning_rate": 1e-5}}
    cells, outcomes = folder.run(LORA, full, models=["half.yaml"])
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    kinds = [cell.fits[0].identity["reading"]["dtype"] for cell in cells]
    assert kinds == ["bfloat16", "float32"]
    trained = load(folder.store.find(cells[1].fits[0]).path("fitted.safetensors").read_bytes())
    before = tiny.gpt2().bfloat16().float().state_dict()
    name = "transformer.h.0.attn.c_attn.weight"
    assert trained[name].dtype == torch.float32
    assert (trained[name] != before[name]).float().mean() > 0.9


def test_a_family_that_peft_does_not_know_is_told(tmp_path):
    folder = Folder(tmp_path, tiny.cohere())
    ((told, code),) = errors(folder.run(LORA)[1]).items()
    assert told.startswith("peft does not know which layers of model type 'cohere' lora should change")
    assert code == 2


OWN = """
from workflows.methods.finetuned import Lora

class Mine(Lora):
    name = "mine"
"""


def test_a_users_own_method_may_train_the_model_and_its_key_holds_its_file(folder):
    (folder.path / "mine.py").write_text(OWN)
    mine = {**LORA, "method": "mine.py"}
    (cell,), outcomes = folder.run(mine)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    key, before = cell.fits[0].key, folder.store.find(cell.fits[0])
    (lora,), _ = folder.run(LORA)
    assert torch.equal(
        *(torch.from_numpy(read_column(folder.store.find(one.fits[0]), "scores")) for one in (lora, cell))
    )
    assert before.folder != folder.store.find(lora.fits[0]).folder
    (folder.path / "mine.py").write_text(OWN + "# edited\n")
    assert folder.cells(mine)[0].fits[0].key != key


def test_four_bits_are_refused(folder):
    four = {"name": "four", "folder": "model", "quantization": "4bit"}
    (folder.path / "four.yaml").write_text(json.dumps(four))
    with pytest.raises(ConfigError, match="quantised to 4 bits, which cannot be finetuned"):
        folder.cells(LORA, models=["four.yaml"])


def test_keys_name_the_prompt_and_the_rows_but_not_the_place(folder):
    def keys(**changes):
        return {seed: step.key for seed, step in folder.cells(LORA, **changes)[0].fits.items()}

    plain = keys()
    assert keys(execution={"executor": "ray", "trainers": 2}) == plain
    assert keys(encoding={"store_dtype": "float32"}) == plain  # no state is stored
    assert keys(encoding={"max_tokens": 20}) != plain
    assert keys(train_size=4) != plain
