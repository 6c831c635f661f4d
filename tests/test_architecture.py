"""The rules of the house: who imports whom, how long a module is, what stays light (docs/architecture.md)."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("vocabsem_core", "orchestration", "workflows", "vocabsem")
ALLOWED = {
    "vocabsem_core": set(),
    "orchestration": set(),
    "workflows": {"vocabsem_core", "orchestration"},
    "vocabsem": {"vocabsem_core", "orchestration", "workflows"},
}
FOREIGN = {"vocabsem_core": {"ray", "mlflow", "datasets"}, "orchestration": {"transformers", "peft", "torch"}}

# From the ground up: a room imports rooms below it, never beside or above. Imports inside functions count too.
FLOORS = {
    "vocabsem_core": (
        "errors", "names", "numerics", "statistics", "features", "semantics", "baselines", "calibration",
        "finetuning", "pretraining", "lens", "functional",
    ),
    "orchestration": ("errors", "graph", "host", "store", "runs", "tracking", "execution", "ray_backend"),
    "workflows": (
        "errors", "config", "inputs", "methods", "search", "runtime", "steps", "results", "serving", "report",
        "findings", "extractors", "kind", "compare", "sweep", "layers", "pretrain", "registry", "session",
        "prediction", "lens", "api", "cli",
    ),
}  # fmt: skip
MODULES = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_of(path) for path in MODULES}


def imported(path: Path) -> set[str]:
    """The modules a file imports, at its top or in a function; of our own packages down to the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(part if part in NAMES else node.module for part in parts)
    return found


def room_of(module: str) -> tuple[str, str]:
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_only_what_its_package_may_and_is_short(path):
    package = path.relative_to(REPOSITORY).parts[0]
    tops = {name.split(".")[0] for name in imported(path)}
    assert tops & set(PACKAGES) - {package} <= ALLOWED[package]
    assert not tops & FOREIGN.get(package, set())
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_room_imports_rooms_below_it(path):
    package, room = room_of(module_of(path))
    if package not in FLOORS or room in ("", "__main__"):
        return
    floors = FLOORS[package]
    assert room in floors, f"{room} has no floor"
    above = [
        name
        for name in imported(path)
        if name in NAMES
        and room_of(name)[0] == package
        and (other := room_of(name)[1]) not in ("", room)
        and floors.index(other) > floors.index(room)
    ]
    assert not above


def test_no_two_modules_import_each_other():
    graph = {module_of(path): imported(path) & NAMES - {module_of(path)} for path in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_no_folder_is_crowded():
    """About twenty files are what a reader takes in."""
    folders = {path.parent for path in MODULES}
    assert not [folder for folder in folders if len(list(folder.glob("*.py"))) > 21]


def test_no_code_asks_which_kind_a_workflow_is():
    """`workflows/registry.py` knows each kind, and a kind's folder itself; the others ask the registry."""
    from workflows.registry import KINDS

    schemas = {kind.config.__name__ for kind in KINDS.values()}
    asking = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asks = schemas & {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            elif isinstance(node, ast.Compare):
                words = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                asks = words & set(KINDS) if "workflow" in ast.unparse(node) or "kind" in ast.unparse(node) else set()
            else:
                continue
            if asks:
                asking.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {ast.unparse(node)}")
    assert not asking


@pytest.mark.parametrize(
    "path", [path for path in MODULES if "orchestration" in path.parts], ids=lambda path: path.name
)
def test_orchestration_names_no_setting_library_or_command_of_the_packages_above(path):
    """They are handed to it: a step's `less_memory`, an engine's `packages`, an error that the command line ends."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"batch_tokens|transformers|peft|`vocabsem ", text)


def test_one_function_asks_an_error_for_its_exit_status():
    """`orchestration.errors.exit_code_of`: a user's mistake is told from a defect in one place."""
    asking = [
        module_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr")
        if ast.unparse(node.args[1]) == "'exit_code'"
    ]
    assert asking == ["orchestration.errors"]


def test_what_sees_features_knows_no_language_model():
    """It asks `workflows.extractors.registry` for an extractor; what language models need stands in that room."""
    of_language_models = {
        "workflows.extractors.language_model", "workflows.extractors.outline", "workflows.extractors.prompting",
        "workflows.inputs.models", "workflows.inputs.hub", "workflows.inputs.row_checks",
        "workflows.serving.mlflow_model", "workflows.steps.demonstrations", "workflows.steps.model",
        "vocabsem_core.features.prompts", "vocabsem_core.features.encoder", "vocabsem_core.features.checkpoints",
    }  # fmt: skip
    rooms = ("results", "report", "compare", "sweep", "session", "search", "runtime")
    steps = ("basis", "best", "code", "data", "fit", "method_steps", "paired_test", "states", "sweep")
    blind = [path for path in MODULES if room_of(module_of(path))[1] in rooms]
    blind += [REPOSITORY / "workflows" / "steps" / f"{name}.py" for name in steps]
    knowing = {module_of(path): found for path in blind if (found := imported(path) & of_language_models)}
    assert knowing == {}


def test_a_method_says_what_it_is_given_and_nobody_asks_for_its_class():
    """Methods that train the model are known by their `input_kind`; only the steps that train one name their class, and
    the method that is one of them."""
    knowing = {module_of(path) for path in MODULES if "workflows.methods.finetuned" in imported(path)}
    assert knowing == {"workflows.methods.adapter", "workflows.methods.registry", "workflows.steps.finetune"}
