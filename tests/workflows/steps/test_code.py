"""What code a step's result comes from is read off the imports of the function that makes it."""

from __future__ import annotations

from tests.test_architecture import NAMES
from workflows.methods.registry import METHODS, method_named
from workflows.steps import basis, finetune, fit, model, sweep
from workflows.steps.code import code_of, method_code
from workflows.steps.registry import STEPS


def of_fit(name: str) -> set[str]:
    return set(code_of(fit.fill_fit, *method_code(method_named(name))))


def test_a_step_is_of_what_its_function_imports_and_not_of_the_function_beside_it() -> None:
    embedding, encoder = (code_of(fill) for fill in (model.fill_embedding, model.EncodeWorker))
    assert "vocabsem_core.semantics.basis" in code_of(basis.fill_basis)
    assert "workflows.steps.model" in embedding
    assert "vocabsem_core.features.encoder" not in embedding
    assert "vocabsem_core.features.encoder" in encoder
    assert "vocabsem_core.numerics.matmul" in encoder, "which the encoder's module imports"


def test_a_fit_is_of_its_method_and_of_no_other() -> None:
    assert {"vocabsem_core.baselines.knn", "workflows.methods.neighbours"} <= of_fit("knn")
    assert "vocabsem_core.baselines.linear_probe" in of_fit("linear-probe") - of_fit("knn")
    assert "vocabsem_core.statistics.paired_tests" not in of_fit("knn")


def test_what_workers_run_counts_though_it_is_named_by_a_text() -> None:
    assert "vocabsem_core.finetuning.trainer" in code_of(finetune.fill_finetune)
    assert "workflows.search.trials" in code_of(sweep.fill_sweep)


def test_all_that_computes_is_watched_by_some_step() -> None:
    """A module that no step watches is used by nothing, or is reached in a way that `code_of` does not see."""
    fills = [fill for kinds in STEPS.values() for _, fill in kinds]
    owners = [fill.__globals__[fill.__qualname__.partition(".")[0]] for fill in fills]  # of a method, its class
    methods = {module for name in METHODS for module in method_code(method_named(name))}
    watched = {module for owner in owners for module in code_of(owner, *sorted(methods))}
    core = {name for name in NAMES if name.startswith("vocabsem_core.") and name.count(".") == 2}
    before_steps = {"vocabsem_core.features.gguf"}  # makes a model's files, whose content is part of every key
    by_hand = {f"vocabsem_core.{room}.anomalies" for room in ("baselines", "statistics")}  # examples/anomalies.py
    assert core - watched == before_steps | by_hand
    assert watched <= NAMES
