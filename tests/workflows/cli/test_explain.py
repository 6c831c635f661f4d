"""What `vocabsem explain` knows, by which names, and that none is missing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.workflows.test_own_method import CONSTANT
from workflows.cli.app import app
from workflows.cli.explain import contents, explain, text, topics
from workflows.errors import ConfigError
from workflows.methods.registry import METHODS
from workflows.steps.registry import STEPS

FOLDER = Path(__file__).parents[3] / "workflows" / "steps"


def of_kind(kind, name):
    (found,) = [one for one in explain(name) if one.kind == kind]
    return found


def test_every_kind_of_step_is_known_by_what_makes_it_and_what_fills_it():
    """The names and functions that stand in the steps' own source."""
    made = re.compile(
        r'    return (?:Step|replace)\(\n(?:        \w+,\n)?        name="([\w-]+)",.*?'
        r'run="workflows\.steps\.([\w.]+):(\w+)"',
        re.DOTALL,
    )
    rows = re.compile(r'return rows_step\("(\w+)", (\w+), ')
    files = {".".join(path.relative_to(FOLDER).with_suffix("").parts): path for path in FOLDER.rglob("*.py")}
    texts = {module: path.read_text(encoding="utf-8") for module, path in files.items()}
    written = {found for text in texts.values() for found in made.findall(text)}
    of_rows = {(name, module, fill) for module, text in texts.items() for name, fill in rows.findall(text)}
    written |= of_rows
    listed = {
        (name, filled.__module__.removeprefix("workflows.steps."), filled.__qualname__.partition(".")[0])
        for name, pairs in STEPS.items()
        for _, filled in pairs
    }
    assert listed == written
    of_one_function = len(of_rows) - 1  # `rows_step` makes several kinds
    steps = sum(len(re.findall(r" Step\(\n|return replace\(\n", text)) for text in texts.values())
    assert len(written) - of_one_function == steps


def test_nothing_is_explained_by_nothing():
    for one in topics():
        assert all(line.strip() for line in one.lines), one.name
        assert one.lines[0] != "Frozen; an unknown field is an error.", one.name


def test_a_method_tells_what_it_is_where_it_is_from_and_its_settings():
    found = of_kind("method", "knn-lm")
    told = " ".join(found.lines)
    assert "Khandelwal et al. 2020" in told
    assert "Reads: head, train." in told
    assert "interpolation: share of the neighbours in the mixture (its default) (number; default `0.25`); " in told
    assert "searched in 0 to 1, uniform." in told
    assert "It has no settings." in of_kind("method", "centroid").lines


def test_a_users_own_method_is_explained_by_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(CONSTANT)
    (found,) = explain(str(tmp_path / "mine.py"))
    assert found.lines == ["Reads: train.", f"Code: {tmp_path / 'mine.py'}.", "It has no settings."]


def test_a_name_that_several_things_have_tells_all_of_them():
    assert [(one.kind, one.name) for one in explain("tokenizer")] == [("step", "tokenizer")]
    assert {one.kind for one in explain("search")} == {"step", "field"}
    assert {one.name for one in explain("rank")} == {"lora.rank", "calibration.rank"}


def test_a_field_goes_by_its_path_and_by_its_last_part():
    (found,) = [one for one in explain("search.trials") if one.where == "compare workflows"]
    assert found.lines == [
        "settings tried for each method and task; the first is the defaults; 0: defaults only "
        "(whole number; default `8`)"
    ]
    assert found in explain("trials")
    (same,) = explain("execution.stall_seconds")
    assert same.where == "compare workflows, layers workflows, pretrain workflows, sweep workflows"


def test_case_hyphens_and_underscores_do_not_matter():
    assert explain("Semantic_Basis") == explain("semantic basis") == explain("semantic-basis")


def test_an_unknown_name_is_told_with_the_nearest_or_the_way_to_all():
    with pytest.raises(ConfigError, match=r"unknown name 'calibraton'; did you mean 'calibration'\?"):
        explain("calibraton")
    with pytest.raises(ConfigError, match="`vocabsem explain` lists all names"):
        explain("zzqq")


def test_the_command_lists_tells_and_prints_json():
    call = CliRunner().invoke
    assert call(app, ["explain"]).stdout == contents() + "\n"
    listed = re.sub(r"\s+", " ", contents())
    assert all(f" {name}" in listed for name in (*METHODS, *STEPS, "semantic basis", "search.trials"))
    assert call(app, ["explain", "semantic", "basis"]).stdout == text(explain("semantic basis")) + "\n"
    assert json.loads(call(app, ["explain", "lora", "--json"]).stdout)["topics"][0]["kind"] == "method"
    assert len(json.loads(call(app, ["explain", "--json"]).stdout)["topics"]) == len(topics())


def test_it_needs_nothing_heavy():
    program = (
        "import sys; from workflows.cli.explain import topics; topics(); "
        "assert not {'torch', 'ray', 'mlflow', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
