"""Finetuning: the loss by hand, its order, resuming, and what cannot be trained."""

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.finetuning import trainer
from vocabsem_core.finetuning.adapters import Adaptation, adapted
from vocabsem_core.finetuning.trainer import (
    ALONE,
    Classifier,
    Finetuning,
    ProcessGroup,
    Prompts,
    Schedule,
    epoch_batches,
)

TOKENS = [[5], [7, 9], [11]]
LENGTHS = (4, 9, 3, 12, 6, 7, 5, 8, 10, 4)
BUILDERS = {**tiny.ALL, **tiny.MASKED, **tiny.SEQ2SEQ}
SCHEDULE = Schedule(learning_rate=1e-2, weight_decay=0.01, warmup=0.1, batch_size=3, epochs=4, patience=4)


def prompts():
    ids = tiny.prompts(*LENGTHS)
    return Prompts(ids, [len(one) - 1 for one in ids])


def labelled():
    labels = torch.arange(len(LENGTHS)) % 3
    return prompts(), labels


def begin(model, weights, schedule=SCHEDULE, seed=0, team=ALONE):
    return Finetuning(Classifier(model, TOKENS, bf16=False), weights, labelled(), labelled(), schedule, seed, team)


@pytest.mark.parametrize("name", BUILDERS)
def test_class_logits_are_the_models_own_of_the_label_words(name):
    model, found = BUILDERS[name](), prompts()
    classifier = Classifier(model, TOKENS, bf16=False)
    classifier.check(found)
    scores = classifier.scores(found)
    for row, (ids, position) in enumerate(zip(found.ids, found.positions, strict=True)):
        seq2seq = model.config.is_encoder_decoder
        extra = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if seq2seq else {}
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), **extra).logits[0, 0 if seq2seq else position]
        expected = torch.stack([logits[rows].mean() for rows in TOKENS])
        torch.testing.assert_close(scores[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_learns(name):
    model = BUILDERS[name]()
    with adapted(model, Adaptation("full"), 0) as weights:
        fit = begin(model, weights)
        before = functional.cross_entropy(Classifier(model, TOKENS, bf16=False).scores(prompts()), labelled()[1])
        while not fit.over:
            fit.epoch()
    assert min(fit.losses) < float(before)


def test_a_step_is_adamw_on_the_mean_loss_of_its_batch():
    """The same by hand: one prompt at a time, every logit computed, one step."""
    schedule = Schedule(1e-2, 0.1, 0.0, batch_size=10, epochs=1, patience=1)
    ours, theirs = tiny.gpt2(), tiny.gpt2()
    with adapted(ours, Adaptation("full"), 0) as weights:
        ours.config.resid_pdrop = 0.0
        for module in [*ours.modules(), *theirs.modules()]:
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        fit = begin(ours, weights, schedule)
        fit.epoch()
        found = {name: value.detach().clone() for name, value in weights.items()}
    losses = []
    for ids, label in zip(prompts().ids, labelled()[1], strict=True):
        logits = theirs(input_ids=torch.tensor([ids])).logits[0, -1]
        losses.append(functional.cross_entropy(torch.stack([logits[rows].mean() for rows in TOKENS]), label))
    theirs.requires_grad_(True)
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1).step()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(found[name], value.detach(), atol=2e-3, rtol=1e-3)


def test_a_large_model_reads_fewer_prompts_a_pass_and_learns_the_same(monkeypatch):
    losses = []
    for tokens in (4096, 13):
        monkeypatch.setattr(trainer, "tokens_of_a_pass", lambda config, tokens=tokens: tokens)
        model = tiny.llama()
        with adapted(model, Adaptation("lora"), 0) as weights:
            fit = begin(model, weights)
            assert fit._classifier.part_tokens == tokens
            while not fit.over:
                fit.epoch()
        losses.append(fit.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["lora", "ia3", "full"])
def test_interrupted_and_resumed_it_comes_to_the_same(kind, tmp_path):
    model, how = tiny.gpt2(), Adaptation(kind, dropout=0.2)  # GPT-2 has dropout of its own as well
    with adapted(model, how, 0) as weights:
        whole = begin(model, weights)
        while not whole.over:
            whole.epoch()
    with adapted(model, how, 0) as weights:
        first = begin(model, weights)
        first.epoch()
        first.epoch()
        first.save(tmp_path / "state.safetensors")
    torch.rand(7)
    with adapted(model, how, 5) as weights:
        second = begin(model, weights)
        second.load(tmp_path / "state.safetensors")
        while not second.over:
            second.epoch()
    assert second.losses == whole.losses
    assert all(torch.equal(second.best[name], value) for name, value in whole.best.items())


def test_it_stops_early_and_keeps_the_best_epoch(monkeypatch):
    model = tiny.gpt2()
    with adapted(model, Adaptation("lora"), 0) as weights:
        fit = begin(model, weights, Schedule(1e-2, 0.0, 0.1, 3, epochs=9, patience=2))
        losses = iter([3.0, 1.0, 2.0, 1.5])
        monkeypatch.setattr(fit, "_validation_loss", lambda: next(losses))
        kept = []
        while not fit.over:
            fit.epoch()
            kept.append({name: value.detach().clone() for name, value in weights.items()})
        assert (len(fit.losses), fit.best_epoch) == (4, 1)
        fit.use_best()
        assert all(torch.equal(value, kept[1][name]) for name, value in weights.items())


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    lengths = [(7 * row) % 23 + 1 for row in range(101)]
    first, again = epoch_batches(lengths, 8, 0, 0), epoch_batches(lengths, 8, 0, 0)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert sorted(torch.cat(first).tolist()) == list(range(101))
    assert len(first) == 13
    for other in (epoch_batches(lengths, 8, 0, 1), epoch_batches(lengths, 8, 1, 0)):
        assert [batch.tolist() for batch in other] != [batch.tolist() for batch in first]
    spread = [max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in first]
    assert sum(spread) / len(spread) < 6  # of 22: batches hold rows of like length


def test_a_loss_that_is_not_a_number_is_told():
    model = tiny.gpt2()
    with adapted(model, Adaptation("full"), 0) as weights:
        fit = begin(model, weights, Schedule(1e30, 0.0, 0.0, 3, 4, 4))
        with pytest.raises(InputError, match=r"not a number with learning_rate 1e\+30; try a lower one"):
            fit.epoch()


def test_a_checkpoint_of_another_fit_or_a_broken_one_is_refused(tmp_path):
    path, model = tmp_path / "state.safetensors", tiny.gpt2()
    with adapted(model, Adaptation("lora"), 0) as weights:
        fit = begin(model, weights)
        fit.epoch()
        fit.save(path)
        with pytest.raises(InputError, match="a checkpoint of another fit"):
            begin(model, weights, seed=1).load(path)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(InputError, match="not a whole checkpoint"):
            begin(model, weights).load(path)
        with pytest.raises(InputError, match="cannot be written"):
            fit.save(tmp_path / "nowhere" / "state.safetensors")


def share(rank, place, kind):
    """One of two processes that train together; the first leaves what came of it."""
    distributed.init_process_group("gloo", init_method=f"file://{place / 'group'}", rank=rank, world_size=2)
    model = tiny.llama()  # it has no dropout, whose noise differs with the number of processes
    with adapted(model, Adaptation(kind), 0) as weights:
        fit = begin(model, weights, team=ProcessGroup(rank, 2))
        while not fit.over:
            fit.epoch()
        scores = Classifier(model, TOKENS, bf16=False).scores(prompts(), ProcessGroup(rank, 2))
    if rank == 0:
        torch.save({"losses": fit.losses, "scores": scores}, place / "found.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_processes_come_to_the_same_as_one(kind, tmp_path):
    """Ten rows in batches of three: the second process has one row of each, and none of the last."""
    multiprocessing.spawn(share, (tmp_path, kind), nprocs=2)
    model = tiny.llama()
    with adapted(model, Adaptation(kind), 0) as weights:
        fit = begin(model, weights)
        while not fit.over:
            fit.epoch()
        scores = Classifier(model, TOKENS, bf16=False).scores(prompts())
    found = torch.load(tmp_path / "found.pt")
    assert found["losses"] == pytest.approx(fit.losses, rel=1e-3)
    torch.testing.assert_close(found["scores"], scores, atol=1e-2, rtol=1e-2)


def test_the_rate_rises_and_falls():
    model = tiny.gpt2()
    with adapted(model, Adaptation("ia3"), 0) as weights:
        fit = begin(model, weights, Schedule(1.0, 0.0, 0.25, 3, epochs=4, patience=4))  # 16 steps, 4 of them warm-up
    assert [fit.rate(step) for step in (0, 3, 4, 10, 15)] == pytest.approx([0.25, 1, 1, 0.5, 1 / 12])
