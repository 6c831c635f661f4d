"""Pretraining and Muon on a GPU against the processor's own."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from tests.integration.workspace import REPOSITORY
from tests.vocabsem_core.pretraining.test_trainer import RECIPE, rows
from vocabsem_core.pretraining.muon import orthogonal
from vocabsem_core.pretraining.trainer import Pretraining, rows_of_step

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def training(device=GPU, bf16=False, compiled=False, recipe=RECIPE):
    return Pretraining(recipe, 0, 1, device, bf16, compiled)


def losses(run, steps):
    data = rows()
    return [run.advance(data[rows_of_step(run.recipe, run.step, len(data))]) for _ in range(steps)]


def test_steps_in_float32_are_the_processors():
    ours, theirs = training(), training(CPU)
    assert losses(ours, 8) == pytest.approx(losses(theirs, 8), rel=1e-4)
    for name, value in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name].cpu(), value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
def test_compiled_it_takes_the_same_steps(bf16):
    """In a process of its own: torch.compile cannot trace the checks of types that tests put around functions."""
    script = (
        "import json; from tests.gpu.test_pretraining import losses, training; "
        f"print(json.dumps([losses(training(bf16={bf16}, compiled=compiled), 6) for compiled in (False, True)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plain, compiled = json.loads(done.stdout.splitlines()[-1])
    assert compiled == pytest.approx(plain, rel=2e-2 if bf16 else 1e-4)


def test_products_in_bfloat16_learn_and_weights_stay_float32():
    recipe = dataclasses.replace(RECIPE, steps=120)
    run = training(bf16=True, recipe=recipe)
    found = losses(run, 120)
    assert found[:3] == pytest.approx(losses(training(CPU), 3), rel=2e-2)
    assert found[-1] < 0.5 * found[0]
    assert run.model.transformer.wte.weight.dtype == torch.float32


def test_a_checkpoint_goes_from_a_gpu_to_a_processor_and_back(tmp_path):
    undisturbed = training()
    expected = losses(undisturbed, 9)
    first = training()
    found = losses(first, 4)
    first.save(tmp_path / "first.safetensors")
    middle = training(CPU)
    middle.load(tmp_path / "first.safetensors")
    found += losses(middle, 2)
    middle.save(tmp_path / "second.safetensors")
    last = training()
    last.load(tmp_path / "second.safetensors")
    assert found + losses(last, 3) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (64, 64)])
def test_muons_steps_keep_singular_vectors_and_make_singular_values_one(shape, bf16):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    found = orthogonal(matrix.to("cuda"), bf16).cpu().double()
    along = left.T @ found @ right.T
    large = values > 0.1 * values.max()
    assert ((along.diagonal() > 0.6) & (along.diagonal() < 1.3))[large].all()
    assert (along - along.diagonal().diag()).abs().max() < (0.1 if bf16 else 1e-4)
