"""What README and docs say is what the code does."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from orchestration.graph import in_order
from orchestration.store.artifacts import open_store
from tools.reference import pages
from workflows.cli.app import app
from workflows.config.compare import ModelConfig
from workflows.config.space import Domain
from workflows.config.task import TaskConfig
from workflows.config.yaml_file import read_workflow
from workflows.inputs.catalog import task_names
from workflows.methods.registry import METHODS
from workflows.registry import WORKFLOWS
from workflows.session import open_session

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every `vocabsem ...` of a page: in shell blocks and in the text."""
    text = "\n".join(blocks(page, "sh")) + "\n" + "\n".join(re.findall(r"`(vocabsem [^`]+)`", page.read_text("utf-8")))
    return [line.split("#")[0].strip() for line in text.splitlines() if line.strip().startswith("vocabsem ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists_with_its_options(page):
    for line in commands(page):
        _, verb, *words = line.split()
        if verb.startswith("-"):
            continue
        assert verb in COMMANDS, f"{page.name}: {line}"
        known = {name for parameter in COMMANDS[verb].params for name in parameter.opts}
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_yaml_shown_is_valid(page):
    for text in blocks(page, "yaml"):
        document = yaml.safe_load(text)
        model = WORKFLOWS.get(document.get("workflow"), TaskConfig if "words" in document else ModelConfig)
        model.model_validate(document)


def test_the_readme_shows_the_quickstart_file_as_it_is():
    assert (REPOSITORY / "quickstart.yaml").read_text() in blocks(REPOSITORY / "README.md", "yaml")


def test_the_quick_start_counts_steps_as_the_plan_does(tmp_path):
    text = (REPOSITORY / "quickstart.yaml").read_text().replace("smollm2-135m", "reference")  # of the same steps
    found = []
    for seeds in ("[0, 1, 2]", "[0, 1, 2, 3, 4, 5]"):
        file = tmp_path / "workflow.yaml"
        file.write_text(re.sub(r"^seeds: .*", f"seeds: {seeds}", text, flags=re.MULTILINE))
        opened = open_session(read_workflow(file, WORKFLOWS), file, open_store(tmp_path / "store"), None, None)
        found.append({step.key for step in in_order(opened.job.targets)})
    first, more = found
    told = re.search(r"(\d+) cached, +(\d+) to run", (REPOSITORY / "docs" / "quickstart.md").read_text())
    assert told is not None
    assert (int(told[1]), int(told[2])) == (len(more & first), len(more - first))


def test_the_readme_names_every_task_and_method():
    text = (REPOSITORY / "README.md").read_text()
    for name in [*METHODS, *(task for task in task_names() if not task.startswith("starter"))]:
        assert f"`{name}`" in text


def test_ci_runs_the_readmes_test_command():
    assert (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    assert "make test " in blocks(REPOSITORY / "README.md", "sh")[1]


def test_every_command_and_option_says_what_it_does():
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


def test_every_field_of_the_yaml_says_what_it_means():
    for model in (*WORKFLOWS.values(), Domain, TaskConfig):
        for name, field in model.model_fields.items():
            described = field.description or getattr(field.annotation, "__doc__", "") or name == "workflow"
            assert described, f"{model.__name__}.{name}"


def test_reference_pages_are_what_the_code_says():
    for name, text in pages().items():
        stored = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
        assert stored == text, f"docs/{name} is old: python -m tools.reference docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
