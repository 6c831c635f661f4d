"""Batches, rates and steps of pretraining, against a plain loop; and what a checkpoint brings back."""

import dataclasses
import itertools

import pytest
import torch

from vocabsem_core.errors import InputError
from vocabsem_core.pretraining import trainer
from vocabsem_core.pretraining.trainer import Pretraining, Recipe, new_model, rows_of_step

RECIPE = Recipe(
    vocabulary=40,
    width=16,
    layers=2,
    heads=2,
    context=8,
    batch_rows=4,
    steps=20,
    learning_rate=0.01,
    warmup_steps=5,
    weight_decay=0.1,
    seed=3,
)


CPU = torch.device("cpu")


def rows(count: int = 12) -> torch.Tensor:
    return torch.randint(0, 40, (count, 9), generator=torch.Generator().manual_seed(0))


def training(recipe: Recipe = RECIPE) -> Pretraining:
    return Pretraining(recipe, 0, 1, CPU, bf16=False, compiled=False)


def losses(run: Pretraining, steps: int) -> list[float]:
    data = rows()
    return [run.advance(data[rows_of_step(run.recipe, run.step, len(data))]) for _ in range(steps)]


def test_every_row_is_seen_once_an_epoch_and_in_another_order_each():
    seen = torch.cat([rows_of_step(RECIPE, step, 12) for step in range(6)]).tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_a_batch_may_reach_over_the_end_of_an_epoch():
    seen = torch.cat([rows_of_step(RECIPE, step, 10) for step in range(5)]).tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_the_rate_rises_then_falls_to_nothing():
    rates = [RECIPE.rate(step) for step in range(20)]
    assert rates[0] == pytest.approx(0.002)
    assert rates[4] == rates[5] == 0.01
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[5:]))
    assert rates[-1] == pytest.approx(0.01 / 15)


def test_the_loss_of_a_step_is_that_of_a_plain_forward():
    data = rows(4)
    with torch.no_grad():
        model = new_model(RECIPE)
        logits = model(data[:, :-1]).logits
    expected = float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), data[:, 1:].flatten()))
    assert training().advance(data) == pytest.approx(expected, rel=1e-5)


def test_a_step_taken_in_parts_is_the_same_step(monkeypatch):
    whole, parts = training(), training()
    losses(whole, 3)
    monkeypatch.setattr(trainer, "_CHUNK_TOKENS", 8)  # one row at a time
    losses(parts, 3)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "fit", "rows"), [("cpu", 4096, 2), ("cpu", 8, 1), ("cuda", 4096, 4), ("cuda", 8, 1)]
)
def test_a_pass_takes_what_memory_holds_and_on_a_processor_what_its_cache_does(monkeypatch, device, fit, rows):
    run = training()
    run._device = torch.device(device)
    monkeypatch.setattr(trainer, "_CHUNK_TOKENS", 16)  # two rows
    monkeypatch.setattr(trainer, "tokens_of_a_pass", lambda config: fit)
    assert run._part_rows(4) == rows


def test_a_plain_loop_takes_the_same_steps():
    """The same optimizers by hand, on the whole batch at once."""
    run, model, data = training(), new_model(RECIPE).train(), rows()
    matrices = [p for name, p in model.named_parameters() if ".h." in name and p.ndim == 2]
    tables = [model.transformer.wte.weight, model.transformer.wpe.weight]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizers = [
        torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(tables, betas=(0.9, 0.95), weight_decay=0.1),
        torch.optim.AdamW(vectors, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for step in range(4):
        batch = data[rows_of_step(RECIPE, step, len(data))]
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = RECIPE.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        assert run.advance(batch) == pytest.approx(loss.item(), rel=1e-4)


def test_it_learns():
    found = losses(training(dataclasses.replace(RECIPE, steps=120)), 120)
    assert found[-1] < 0.5 * found[0]


def test_a_training_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path):
    undisturbed = training()
    expected = losses(undisturbed, 9)
    first = training()
    found = losses(first, 4)
    first.save(tmp_path / "state.safetensors")
    second = training()
    second.load(tmp_path / "state.safetensors")
    assert second.step == 4
    assert found + losses(second, 5) == expected
    assert second.model.lm_head.weight is second.model.transformer.wte.weight


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    training().save(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="a checkpoint of another configuration"):
        training(dataclasses.replace(RECIPE, learning_rate=0.02)).load(tmp_path / "state.safetensors")


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written .* make room"):
        training().save(tmp_path / "gone" / "state.safetensors")


def test_a_checkpoint_that_was_cut_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    training().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        training().load(path)


@pytest.mark.parametrize(
    ("change", "world", "told"),
    [({"heads": 3}, 1, "cannot be cut into 3 heads"), ({}, 3, "cannot be shared by 3 workers")],
)
def test_a_shape_or_share_that_does_not_come_out_even_is_refused(change, world, told):
    with pytest.raises(InputError, match=told):
        Pretraining(dataclasses.replace(RECIPE, **change), 0, world, CPU, bf16=False, compiled=False)


def test_products_in_half_precision_learn_too():
    run = Pretraining(RECIPE, 0, 1, CPU, bf16=True, compiled=False)
    exact = training()
    assert losses(run, 3) == pytest.approx(losses(exact, 3), rel=2e-2)
    assert run.model.transformer.wte.weight.dtype == torch.float32
