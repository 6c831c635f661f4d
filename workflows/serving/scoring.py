"""Class scores of texts by a fit that lies in files, as the run computed them: from states, or by an adapted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workflows.methods.base import Method
from workflows.methods.ensembles import predict_folds

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures

Scores = Callable[[Sequence[Mapping[str, str]]], "Tensor"]  # rows -> [n, classes]
_BATCH_TOKENS = 1024


def by_states(method: Method, told: Mapping[str, Any], fitted: Path, folder: Path) -> Scores:
    """Scores by a method that reads the states of the language model in `folder`."""
    import torch
    from safetensors.torch import load_file

    from vocabsem_core.features.checkpoints import load_model, load_tokenizer
    from vocabsem_core.features.encoder import Encoder
    from workflows.steps.model import prompts_of
    from workflows.steps.states import stored_states

    prompts, names = told["prompts"], told["layers"]
    settings, tensors = method.Settings.model_validate(told["settings"]), load_file(fitted)
    tokenizer = load_tokenizer(folder)
    encoder = Encoder(load_model(folder, prompts["dtype"], "cpu", prompts["four_bit"]), prompts["layers"])
    unused = cast("TaskFeatures", None)  # a portable method reads none

    def scores(rows: Sequence[Mapping[str, str]]) -> Tensor:
        tokenized = prompts_of(tokenizer, prompts, rows)
        found = encoder.encode([p.ids for p in tokenized], _BATCH_TOKENS, [p.position for p in tokenized])
        layers = names if isinstance(names, list) else [names]
        kept = [torch.from_numpy(stored_states(name, found[name], prompts["store_dtype"])).float() for name in layers]
        return predict_folds(method, settings, tensors, torch.cat(kept, dim=1), unused, told["folds"])

    return scores


def by_prompts(method: Any, told: Mapping[str, Any], fitted: Path, folder: Path) -> Scores:
    """Scores by the language model in `folder` with the weights that were trained."""
    from contextlib import ExitStack

    from safetensors.torch import load_file

    from vocabsem_core.features.checkpoints import load_model, load_tokenizer
    from vocabsem_core.features.prompts import tokenize
    from vocabsem_core.finetuning.adapters import adapted, use
    from vocabsem_core.finetuning.trainer import Classifier
    from workflows.methods.inputs.prompts import read_prompts

    reading, settings = told["prompts"], method.Settings.model_validate(told["settings"])
    dtype = "float32" if reading["dtype"] == "float16" else reading["dtype"]  # as it was trained
    model, tokenizer = load_model(folder, dtype, "cpu"), load_tokenizer(folder)
    held = ExitStack()
    use(held.enter_context(adapted(model, method.adaptation(settings), 0)), load_file(fitted))
    classifier = Classifier(model, told["tokens"], reading.get("products", reading["dtype"]) == "bfloat16")

    # `held` takes the trained weights out of the model again once nobody has it any more
    def scores(rows: Sequence[Mapping[str, str]], held: ExitStack = held) -> Tensor:
        found = tokenize(tokenizer, reading["template"], rows, reading["max_tokens"], reading["kind"] != "causal")
        return classifier.scores(read_prompts(found))

    return scores
