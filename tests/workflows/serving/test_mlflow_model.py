"""What a served classifier refuses; tests/integration/test_serving.py serves real ones."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from tests import tiny
from workflows.errors import ConfigError
from workflows.inputs.models import content_digests
from workflows.serving.mlflow_model import ServedClassifier

OWN = """
from workflows.methods.base import Method

class Sums(Method):
    name = "sums"
    needs = frozenset({"train"})
    portable = True

    def fit(self, settings, materials, seed):
        return {"weight": materials.train.states.sum(dim=0, keepdim=True).T.repeat(1, 2)}

    def predict(self, settings, fitted, states, materials):
        return states @ fitted["weight"]
"""


def test_a_method_edited_since_it_was_fitted_is_refused(tmp_path):
    model, data = tiny.save(tmp_path / "model", tiny.gpt2()), tmp_path / "data"
    data.mkdir()
    (data / "method.py").write_text(OWN)
    weight = torch.tensor([[1.0, -1.0]]).repeat(tiny.WIDTH, 1)
    save_file({"fold 0/weight": weight, "fold 1/weight": 2 * weight}, data / "fitted.safetensors")
    prompts = {
        **content_digests(model),
        "template": "review: {text}\n sentiment:",
        "max_tokens": 32,
        "dtype": "float32",
        "four_bit": False,
        "store_dtype": "float16",
        "layers": ["head"],
        "position": "last",
    }
    told = {"method": "sums", "settings": {}, "folds": 2, "layers": "head"}
    told |= {"labels": ["a", "b"], "fields": ["text"]}
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    (data / "classifier.json").write_text(json.dumps({**told, "prompts": prompts, "source": digest}))
    assert set(ServedClassifier(data, {"model": str(model)}).predict(["a fine film", "a dull one"])) <= {"a", "b"}
    (data / "method.py").write_text(OWN.replace("keepdim=True", "keepdim=1"))
    with pytest.raises(ConfigError, match=r"method.py: is not the file that was fitted"):
        ServedClassifier(data, {"model": str(model)})
