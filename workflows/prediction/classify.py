"""Labels texts with an exported classifier. Needs torch and transformers; peft as well where it is an adapter.

    python classify.py "a fine film" "a dull one"

Or in Python: `Classifier().label({"text": "a fine film"})`. Written by `vocabsem export-model`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
AUTO: dict[str, Any] = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}


class Classifier:
    """Holds the language model. `model`: its folder or hub id, where it is not the one that was noted at the export."""

    def __init__(self, model: str | None = None, here: Path = HERE) -> None:
        self.told = json.loads((here / "classifier.json").read_text(encoding="utf-8"))
        place = model or (str(here) if self.told["form"] == "model" else self.told["model"])
        dtype = getattr(torch, self.told["dtype"])
        self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
        self.model: Any = AUTO[self.told["kind"]].from_pretrained(place, dtype=dtype)
        if self.told["form"] == "adapter":
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, str(here))
        self.model.eval()
        features = self.told["form"] == "features"
        self.members = members_of(load_file(here / "fitted.safetensors"), self.told["folds"]) if features else []

    def label(self, row: dict[str, str]) -> str:
        """The label of a row, given by the fields of the prompt."""
        return self.told["labels"][int(self.scores(row).argmax())]

    @torch.inference_mode()
    def scores(self, row: dict[str, str]) -> torch.Tensor:
        """A score for each label, the largest being the prediction. Raises ValueError for a text that is too long."""
        ids, position = self._prompt(row)
        if self.told["form"] != "features":
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, position].float()
            return torch.stack([logits[tokens].mean() for tokens in self.told["tokens"]])
        seen, layers = states_of(self.model, self.told["layers"], ids), self.told["layers"]
        states = [seen[name].mean(0) if name.endswith(":mean") else seen[name][position] for name in layers]
        state = torch.cat([one.to(getattr(torch, self.told["store_dtype"])).float() for one in states])
        found = torch.stack([scores_of(state, member, self.told["similarity"]) for member in self.members])
        return found[0] if len(found) == 1 else found.softmax(dim=1).mean(dim=0).log()

    def _prompt(self, row: dict[str, str]) -> tuple[list[int], int]:
        """Token ids, and the position of the label."""
        ids = self.tokenizer(self.told["template"].format(**row, mask=self.tokenizer.mask_token or ""))["input_ids"]
        if self.told["kind"] == "causal":
            while len(ids) > 1 and ids[-1] in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
                ids.pop()
        if len(ids) > self.told["max_tokens"]:
            raise ValueError(f"a prompt of {len(ids)} tokens; at most {self.told['max_tokens']} fit")
        masked = self.told["kind"] == "masked"
        return ids, ids.index(self.tokenizer.mask_token_id) if masked else len(ids) - 1


def members_of(fitted: dict[str, torch.Tensor], folds: int) -> list[dict[str, torch.Tensor]]:
    """What each of several folds learned, whose probabilities are averaged."""
    if folds == 1:
        return [fitted]
    names = [f"fold {number}/" for number in range(folds)]
    return [{k.removeprefix(name): v for k, v in fitted.items() if k.startswith(name)} for name in names]


def states_of(model: Any, layers: list[str], ids: list[int]) -> dict[str, torch.Tensor]:
    """States [tokens, d]: `head` is what the head reads, `layer_00` what block 1 does, `layer_k` what block k gives."""
    seen: dict[str, torch.Tensor] = {}

    def before(name: str) -> Any:
        return lambda _, args, kwargs: seen.update({name: (args[0] if args else kwargs["hidden_states"])[0]})

    def after(name: str) -> Any:
        return lambda _, args, output: seen.update({name: (output if torch.is_tensor(output) else output[0])[0]})

    hooks = [model.get_output_embeddings().register_forward_pre_hook(before("head"), with_kwargs=True)]
    if layers != ["head"]:
        lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
        blocks = next(one for one in lists if len(one) == model.config.num_hidden_layers)
        hooks.append(blocks[0].register_forward_pre_hook(before("layer_00"), with_kwargs=True))
        hooks += [block.register_forward_hook(after(f"layer_{k:02d}")) for k, block in enumerate(blocks, 1)]
    model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {name: seen[name.removesuffix(":mean")] for name in layers}


def scores_of(state: torch.Tensor, w: dict[str, torch.Tensor], similarity: str | None) -> torch.Tensor:
    """Scores by what was fitted: linear, by distance to centroids, or by similarity to targets, once calibrated."""
    if "weight" in w:
        return w["weight"] @ state + w["bias"]
    if "centroids" in w:
        return -(w["centroids"] - state).norm(dim=1)
    moved = state - w.get("centre", torch.zeros(()))
    if "up.weight" in w:  # the residual module
        width, z = len(w["up.bias"]), (moved - w["mean"]) / w["deviation"]
        hidden = functional.gelu(w["down.weight"] @ z + w["down.bias"])
        moved = moved[:width] + w["deviation"][:width] * (w["up.weight"] @ hidden + w["up.bias"])
    elif "mlp.up" in w:  # the paper's
        attended = moved * (2 * (w["attention.expand"] @ torch.relu(w["attention.squeeze"] @ moved)))
        moved = w["mlp.down"] @ torch.relu(w["mlp.up"] @ attended)
        moved = functional.layer_norm(moved, moved.shape, w["norm.weight"], w["norm.bias"])
    targets = w.get("learned_targets", w["targets"])
    temperature = w.get("log_temperature", torch.zeros(())).exp()
    if similarity == "euclidean":
        return -(targets.double() - moved.double()).norm(dim=1) / temperature
    if similarity == "cosine":
        moved, targets = functional.normalize(moved, dim=0), functional.normalize(targets, dim=1)
    return targets @ moved / temperature


if __name__ == "__main__":
    classifier = Classifier()
    (field,) = classifier.told["fields"]
    for text in sys.argv[1:]:
        print(f"{classifier.label({field: text})}\t{text}")
