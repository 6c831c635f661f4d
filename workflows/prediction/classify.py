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
        self.fitted = load_file(here / "fitted.safetensors") if self.told["form"] == "features" else {}

    def label(self, row: dict[str, str]) -> str:
        """The label of a row, given by the fields of the prompt."""
        return self.told["labels"][int(self.scores(row).argmax())]

    @torch.inference_mode()
    def scores(self, row: dict[str, str]) -> torch.Tensor:
        """A score for each label, the largest being the prediction. Raises ValueError for a text that is too long."""
        ids, position = self._prompt(row)
        seen: list[torch.Tensor] = []
        hook = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, position].float()
        hook.remove()
        if self.told["form"] != "features":
            return torch.stack([logits[tokens].mean() for tokens in self.told["tokens"]])
        state = seen[0][0, position].to(getattr(torch, self.told["store_dtype"])).float()
        if "centroids" in self.fitted:
            return -(self.fitted["centroids"] - state).norm(dim=1)
        return self.fitted["weight"] @ state + self.fitted["bias"]

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


if __name__ == "__main__":
    classifier = Classifier()
    (field,) = classifier.told["fields"]
    for text in sys.argv[1:]:
        print(f"{classifier.label({field: text})}\t{text}")
