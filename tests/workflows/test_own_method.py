"""A user's own method: the documented example from end to end, its key, and every mistake told with file and line."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from orchestration.graph import Step
from orchestration.store.artifacts import open_store
from tests.integration.workspace import REPOSITORY, WORKFLOW, cli, cli_json, make_workspace, write
from workflows.config.compare import MethodConfig
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column, read_states
from workflows.methods.registry import method_named
from workflows.methods.resolved import resolve
from workflows.steps.fit import Conditions, method_identity

PAGE = (REPOSITORY / "docs" / "own-method.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
HEAD = "from workflows.methods.base import Method\n\n\n"
CONSTANT = f"""{HEAD}class Constant(Method):
    name = "constant"
    needs = frozenset({{"train"}})

    def fit(self, settings, materials, seed):
        return {{}}

    def predict(self, settings, fitted, states, materials):
        return states[:, :2] * 0
"""


def with_line(line: str) -> str:
    """The constant method, whose class has one more line, which counts for more than those before it."""
    return CONSTANT.replace("\n\n    def fit", f"\n    {line}\n\n    def fit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose states are stored."""
    made = make_workspace(tmp_path_factory.mktemp("own"))
    (made / "lda.py").write_text(EXAMPLE)
    write(made, "workflow.yaml", {**WORKFLOW, "methods": ["linear-probe", "lda.py"]})
    cli(made, "run", "workflow.yaml", "--executor", "inline")
    return made


def test_the_example_is_short():
    assert len(EXAMPLE.splitlines()) < 40


def test_the_example_joins_the_table_with_the_same_budget(folder: Path):
    results = {line["method"]: line for line in cli_json(folder, "run", "workflow.yaml")["results"]}
    assert set(results) == {"linear-probe", "lda"}
    searches = [artifact for artifact in open_store(store_of(folder)).artifacts() if "search" in str(artifact.folder)]
    assert [len(one.json("trials.json")["trials"]) for one in searches] == [2, 2]


def test_the_example_is_linear_discriminant_analysis(folder: Path):
    """Against scikit-learn's, whose shrinkage is towards the same multiple of the identity, on equal class shares."""
    store = open_store(store_of(folder))
    (fit,) = [a for a in store.artifacts() if a.folder.parent.name == "fit" and identity(a).get("method") == "lda"]
    settings = fit.json("fit.json")["settings"]
    states = {
        len(artifact.shards()) and artifact.rows: artifact
        for artifact in store.artifacts()
        if artifact.folder.parent.name == "encode"
    }
    train, test = states[60], states[30]
    from workflows.methods.inputs.split import split_rows

    (labels,) = [a for a in store.artifacts() if a.folder.parent.name == "labels" and a.rows == 60]
    classes = read_column(labels, "label")
    kept, _ = split_rows(classes, read_column(train, "row_hash"), 2, "full", 0)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=settings["shrinkage"], priors=[0.5, 0.5])
    oracle.fit(read_states(train, "head").numpy()[kept], classes[kept])
    expected = oracle.predict(read_states(test, "head").numpy())
    assert (read_column(fit, "prediction") == expected).mean() >= 0.9  # its shares weigh the classes' covariances


def test_an_edited_file_is_another_method_and_nothing_else_runs(folder: Path):
    (folder / "lda.py").write_text(EXAMPLE + "\n# edited\n")
    planned = [step for step in cli_json(folder, "plan", "workflow.yaml")["steps"] if step["state"] != "cached"]
    assert {step["name"].split()[0] for step in planned} == {"search", "fit", "score", "versus", "best"}
    assert all(" lda" in step["name"] or step["name"].startswith("best ") for step in planned)
    (folder / "lda.py").write_text(EXAMPLE)
    assert all(step["state"] == "cached" for step in cli_json(folder, "plan", "workflow.yaml")["steps"])


def test_a_file_is_found_relative_to_the_workflow_file_and_read_once(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text(CONSTANT)
    found = resolve(MethodConfig(method="sub/mine.py"), tmp_path)
    assert (found.method.name, found.label, found.learns) == ("constant", "mine", True)
    (tmp_path / "sub" / "mine.py").write_text(CONSTANT + "# edited\n")
    assert found.method.source_digest == sha256(CONSTANT.encode()).hexdigest()


MISTAKES = {
    "no class": ("x = 1\n", r"holds 0 methods \(none\); expected one class derived from Method"),
    "two classes": (CONSTANT + CONSTANT.replace("Constant", "Other"), r"holds 2 methods \(.*Constant.*\)"),
    "an error at import": (f"{HEAD}import nowhere\n", "line 4: ModuleNotFoundError: No module named 'nowhere'"),
    "a syntax error": ("class Broken(:\n", "line 1: SyntaxError"),
    "no name": (CONSTANT.replace('    name = "constant"\n', ""), "class Constant does not say its 'name'"),
    "no predict": (CONSTANT[: CONSTANT.index("    def predict")], r"class Constant has no predict\(\)"),
    "a misspelt need": (with_line('needs = {"trian"}'), "line 4: class Constant needs 'trian'; did you mean 'train'?"),
    "the model as a need": (with_line('needs = {"texts"}'), "line 4: class Constant needs 'texts'; known: "),
    "one need": (with_line('needs = "train"'), "line 4: class Constant has needs = 'train'; expected a set"),
    "a name that is none": (with_line("name = 1"), "line 4: class Constant has name = 1; expected text"),
    "plain settings": (with_line("Settings = dict"), "line 4: .* has Settings = .*; expected a class derived from"),
    "plain space": (with_line('space = {"k": [1, 2]}'), r"line 4: .* has space\['k'\] = \[1, 2\]; expected a .*Domain"),
    "a listed space": (with_line('space = ["k"]'), r"line 4: .* has space = \['k'\]; expected"),
    "no such setting": (
        "from workflows.config.space import Domain\n" + with_line('space = {"k": Domain(choice=(1, 2))}'),
        r"line 5: .* has space\['k'\], which is not one of its Settings",
    ),
    "arguments": (with_line("def __init__(self, k): ..."), r"line 4: Constant\(\): TypeError: .*'k'"),
    "an error when made": (with_line("def __init__(self): 1 / 0"), r"line 7: Constant\(\): ZeroDivisionError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_holds_no_method_is_told(mistake: str, tmp_path: Path):
    text, told = MISTAKES[mistake]
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        method_named(str(file))
    assert str(file) in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"mine\.py: cannot be read \(No such file or directory\)"):
        method_named(str(tmp_path / "mine.py"))


READS = {
    "raises": ("return settings['k']", r"constant', .*mine\.py, line 7: KeyError: 'k'"),
    "is no set": ("return 3", r"constant'.*: TypeError"),
    "is misspelt": ("return {'trian'}", r"method 'constant': reads\(\) names 'trian'; did you mean 'train'\?"),
}


@pytest.mark.parametrize("mistake", READS)
def test_a_method_that_cannot_say_what_it_reads_is_told(mistake: str, tmp_path: Path):
    body, told = READS[mistake]
    file = tmp_path / "mine.py"
    file.write_text(with_line(f"def reads(self, settings, searched): {body}"))
    with pytest.raises(ConfigError, match=told):
        resolve(MethodConfig(method=str(file))).needs(searched=False)


def test_a_method_that_reads_training_rows_with_some_settings_depends_on_them_there(tmp_path: Path):
    """Its key then holds the training size, and each seed draws rows of its own."""
    file = tmp_path / "mine.py"
    text = SETTINGS.replace('needs = {"train"}', "needs = set()")
    reads = 'def reads(self, settings, searched): return {"train"} if settings.get("k") == 2 else set()'
    file.write_text(text.replace("    has_epochs = True\n", f"    {reads}\n"))
    plain, trained = (resolve(MethodConfig(method=str(file), settings={"k": k})) for k in (1, 2))
    assert (plain.learns, trained.learns) == (False, True)
    assert (plain.depends_on_seed(8), trained.depends_on_seed(8)) == (False, True)
    identities = [
        method_identity(
            one, {"test": Step("encode", "", 1, "", {"layers": ["head"]})}, Conditions([], "accuracy", 8), 0
        )
        for one in (plain, trained)
    ]
    assert ["train_size" in one for one in identities] == [False, True]


RUNTIME = {
    "raises": ("states[:, :2] * 0", "states[:, 10**6]", r"constant', .*mine\.py, line 12: IndexError"),
    "wrong shape": (
        "states[:, :2] * 0",
        "states",
        r"predict\(\) returned scores of shape \(30, \d+\); expected .*30, 2",
    ),
    "no tensor": ("states[:, :2] * 0", "None", r"predict\(\) returned NoneType; expected a tensor \[rows, labels\]"),
    "numpy": ("[:, :2] * 0", "[:, :2].numpy() * 0", r"predict\(\) returned ndarray; expected a tensor"),
    "not numbers": ("[:, :2] * 0", "[:, :2] * float('nan')", r"predict\(\) returned scores that are not numbers"),
    "no dictionary": ("return {}", "return 1", r"fit\(\) returned int; expected named tensors"),
}


@pytest.mark.parametrize("mistake", RUNTIME)
def test_a_method_that_goes_wrong_is_told_without_a_traceback(mistake: str, folder: Path):
    old, new, told = RUNTIME[mistake]
    assert old in CONSTANT
    (folder / "mine.py").write_text(CONSTANT.replace(old, new))
    write(folder, "mine.yaml", {**WORKFLOW, "methods": ["linear-probe", "mine.py"]})
    done = cli(folder, "run", "mine.yaml", "--executor", "inline", check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(told, done.stderr)
    assert "Traceback" not in done.stderr
    assert "linear-probe" in done.stdout  # the others are there


ODD = """from pathlib import Path
import torch
from workflows.config.strict import Strict
from workflows.methods.base import Method


class Settings(Strict):
    place: Path = Path("here")


class Odd(Method):
    name = "odd"
    needs = {"train"}
    Settings = Settings

    def fit(self, settings, materials, seed):
        weight = torch.nn.Linear(materials.width, 2).weight
        return {"weight": weight, "first": weight[0]}

    def predict(self, settings, fitted, states, materials):
        return states @ torch.nn.Parameter(fitted["weight"]).T
"""


def test_parameters_views_and_paths_are_stored_like_plain_tensors_and_text(folder: Path):
    (folder / "odd.py").write_text(ODD)
    write(folder, "odd.yaml", {**WORKFLOW, "methods": ["odd.py"]})
    cli(folder, "run", "odd.yaml", "--executor", "inline")
    fits = [a for a in open_store(store_of(folder)).artifacts() if identity(a).get("method") == "odd"]
    stored = [load_file(fit.path("fitted.safetensors")) for fit in fits if fit.folder.parent.name == "fit"]
    assert stored
    assert all(torch.equal(one["first"], one["weight"][0]) for one in stored)
    assert fits[0].json("fit.json")["settings"] == {"place": "here"}
    cli(folder, "predict", "latest", "--task", "small", "--data", "test.jsonl", "--out", "odd.csv")
    assert len((folder / "odd.csv").read_text().splitlines()) == 1 + 30


SWEEP = {
    "workflow": "sweep",
    "name": "mine",
    "model": "reference-1m",
    "task": "small.yaml",
    "method": "mine.py",
    "space": {"k": {"choice": [1, 2]}},
    "execution": {"executor": "inline"},
}
SETTINGS = """from workflows.config.compare import Strict
from workflows.methods.base import Method


class Settings(Strict):
    k: int = 1


class Constant(Method):
    name = "constant"
    needs = {"train"}
    Settings = Settings
    has_epochs = True

    def fit(self, settings, materials, seed):
        return {}

    def predict(self, settings, fitted, states, materials):
        return states[:, :2] * 0
"""


@pytest.mark.parametrize("place", ["materials.fold >= 0", "materials.fold > 0"], ids=["search", "confirmation"])
def test_an_exception_within_a_sweep_is_told_with_file_and_line(place: str, folder: Path):
    (folder / "mine.py").write_text(SETTINGS.replace("return {}", f"return {{}} if not {place} else 1 / 0"))
    write(folder, "sweep.yaml", {**SWEEP, "name": f"fails-{len(place)}"})
    done = cli(folder, "sweep", "sweep.yaml", check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(r"constant', .*mine\.py, line 16: ZeroDivisionError", done.stderr)
    assert "Traceback" not in done.stderr


def store_of(folder: Path) -> Path:
    return folder / ".vocabsem" / "store"


def identity(artifact) -> dict:
    return json.loads((artifact.folder / "identity.json").read_text())["identity"]
