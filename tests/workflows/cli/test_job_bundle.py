"""What a job takes along, and what it is refused for."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.integration.workspace import REPOSITORY, STARTER, TASK, WORKFLOW, make_workspace, write
from workflows.cli import job_bundle as module
from workflows.cli.job_bundle import shipment
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.registry import WORKFLOWS

REFERENCE = REPOSITORY / "workflows" / "catalog" / "models" / "reference"
OWN = (
    "from workflows.methods.base import Method\n"
    "class Mine(Method):\n"
    "    name, needs = 'mine', frozenset()\n"
    "    def fit(self, settings, materials, seed): return {}\n"
    "    def predict(self, settings, fitted, states, materials): return states[:, :2]\n"
)


@pytest.fixture
def folder(tmp_path):
    return make_workspace(tmp_path)


def carried(folder: Path, document: dict, data_dir=None, name="w.yaml", with_source=False):
    file = folder / write(folder, name, document)
    return shipment(read_workflow(file, WORKFLOWS), file, data_dir, with_source)


def test_the_workflow_file_its_task_and_its_rows_go_along(folder):
    found = carried(folder, WORKFLOW)
    assert sorted(found.inputs) == [f"inputs/{name}" for name in ("small.yaml", "test.jsonl", "train.jsonl", "w.yaml")]
    assert found.workflow == "inputs/w.yaml"
    assert found.bytes == sum(path.stat().st_size for path in found.inputs.values())
    assert found.told().startswith("sends 4 files of yours (")
    assert "VocabSem" not in found.told()


def test_the_source_goes_along_without_bundled_models_that_are_not_named(folder):
    found = carried(folder, WORKFLOW, with_source=True).source
    assert {"workflows/cli/app.py", "orchestration/store/artifacts.py", "vocabsem_core/semantics/basis.py"} <= set(
        found
    )
    assert "workflows/catalog/models/reference/model.safetensors" in found
    assert not [name for name in found if "models/reference-1m/" in name or "__pycache__" in name]
    assert "workflows/catalog/models/reference-1m.yaml" in found
    assert not [name for name in found if name.startswith(("tests/", "docs/"))]


def test_files_above_the_workflow_file_keep_their_places(folder):
    (folder / "flows").mkdir()
    file = folder / "flows" / write(folder / "flows", "w.yaml", {**WORKFLOW, "tasks": ["../small.yaml"]})
    found = shipment(read_workflow(file, WORKFLOWS), file, None, False)
    assert found.workflow == "inputs/flows/w.yaml"
    assert "inputs/small.yaml" in found.inputs


def test_absolute_paths_are_the_clusters_own(folder):
    document = {**WORKFLOW, "tasks": ["/shared/task.yaml"], "models": ["/shared/model"]}
    found = carried(folder, document, Path("/shared/data"))
    assert sorted(found.inputs) == ["inputs/w.yaml"]
    assert found.data_dir == "/shared/data"
    source = {"train": "/shared/train.csv", "test": "test.jsonl"}
    write(folder, "half.yaml", {**TASK, "source": source})
    found = carried(folder, {**WORKFLOW, "tasks": ["half.yaml"]})
    assert sorted(found.inputs) == ["inputs/half.yaml", "inputs/test.jsonl", "inputs/w.yaml"]


def test_a_relative_data_folder_gives_the_tasks_that_are_named(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "data" / "sst2").mkdir(parents=True)
    for split in ("train", "test"):
        shutil.copy(STARTER / f"{split}.jsonl", folder / "data" / "sst2")
    (folder / "data" / "large.bin").write_bytes(b"0" * 1000)
    found = carried(folder, {**WORKFLOW, "tasks": ["sst2"]}, Path("data"))
    assert sorted(found.inputs) == ["inputs/data/sst2/test.jsonl", "inputs/data/sst2/train.jsonl", "inputs/w.yaml"]
    assert found.data_dir == "inputs/data"
    with pytest.raises(ConfigError, match="an absolute path refers to the cluster's nodes"):
        carried(folder, WORKFLOW, Path("nowhere"))


def test_own_methods_and_small_models_go_along(folder):
    (folder / "mine.py").write_text(OWN)
    shutil.copytree(REFERENCE, folder / "mymodel")
    found = carried(folder, {**WORKFLOW, "methods": ["affinity", "mine.py"], "models": ["mymodel"]})
    assert "inputs/mine.py" in found.inputs
    assert "inputs/mymodel/model.safetensors" in found.inputs
    assert "inputs/mymodel/README.md" not in found.inputs


def test_what_links_lead_to_goes_along_under_their_names(folder, tmp_path_factory):
    """Wherever they lead, and whatever it is called there: the job looks for the names that the files say."""
    away = tmp_path_factory.mktemp("away")
    (away / "method-7").write_text(OWN)
    (folder / "train.jsonl").rename(away / "abc123")
    (folder / "small.yaml").rename(away / "v3.yaml")
    (folder / "test.jsonl").rename(folder / "rows.jsonl")
    shutil.copytree(REFERENCE, away / "model-2026")
    links = {
        "train.jsonl": away / "abc123",
        "small.yaml": away / "v3.yaml",
        "test.jsonl": "rows.jsonl",
        "mymodel": away / "model-2026",
        "mine.py": away / "method-7",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    found = carried(folder, {**WORKFLOW, "methods": ["affinity", "mine.py"], "models": ["mymodel"]})
    names = {"w.yaml", "small.yaml", "train.jsonl", "test.jsonl", "mine.py", "mymodel/model.safetensors"}
    assert {f"inputs/{name}" for name in names} <= set(found.inputs)
    assert not [place for place in found.inputs if "rows" in place or "away" in place]
    found.copy_to(folder / "job")
    copied = folder / "job" / found.workflow
    assert not any(path.is_symlink() for path in copied.parent.rglob("*"))
    assert (copied.parent / "train.jsonl").read_bytes() == (away / "abc123").read_bytes()
    assert shipment(read_workflow(copied, WORKFLOWS), copied, None, False).digest() == found.digest()


def test_a_gguf_file_goes_along_by_itself_or_with_its_model_file(folder):
    (folder / "tiny.gguf").write_text("weights")
    write(folder, "tiny.yaml", {"name": "other", "gguf": "tiny.gguf"})
    write(folder, "packed.yaml", {"name": "packed", "package": "ours==1", "gguf": "ours/tiny.gguf"})
    found = carried(folder, {**WORKFLOW, "models": ["tiny.gguf", "tiny.yaml", "packed.yaml"]})
    assert {"inputs/tiny.gguf", "inputs/tiny.yaml", "inputs/packed.yaml"} <= set(found.inputs)
    (folder / "tiny.gguf").unlink()
    with pytest.raises(ConfigError, match=r"model 'tiny': no file .*tiny\.gguf"):
        carried(folder, {**WORKFLOW, "models": ["tiny.gguf"]})


def test_a_workflow_file_that_is_a_link_takes_what_lies_beside_it(folder, tmp_path):
    (folder / "blobs").mkdir()
    (folder / write(folder, "w.yaml", WORKFLOW)).rename(folder / "blobs" / "abc123")
    file = folder / "w.yaml"
    file.symlink_to("blobs/abc123")
    found = shipment(read_workflow(file, WORKFLOWS), file, None, False)
    assert (found.workflow, "inputs/train.jsonl" in found.inputs) == ("inputs/w.yaml", True)


def test_a_large_model_is_refused_with_a_shared_folder_as_the_remedy(folder, monkeypatch):
    shutil.copytree(REFERENCE, folder / "mymodel")
    monkeypatch.setattr(module, "MOST_BYTES", 10**6)
    with pytest.raises(ConfigError, match=r"upload at most 1.0 MB; the largest is .*model.safetensors .*every node"):
        carried(folder, {**WORKFLOW, "models": ["mymodel"]})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tasks": ["gone.yaml"]}, "gone.yaml"),
        ({"models": ["gone/gone/gone"]}, "unknown model"),
        ({"methods": ["gone.py"]}, "gone.py: cannot be read"),
        ({"methods": ["kn"]}, "did you mean 'knn'"),
        ({"execution": {"executor": "inline"}}, "a job runs on a cluster"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_sent(folder, change, told):
    with pytest.raises(ConfigError, match=told):
        carried(folder, {**WORKFLOW, **change})


@pytest.mark.parametrize("output", [None, "models/mine"])
def test_a_pretrained_model_must_not_go_with_the_jobs_folder(folder, output):
    (folder / "corpus.txt").write_text("a text\n")
    document = {
        "workflow": "pretrain",
        "name": "mine",
        "corpus": {"files": ["*.txt"]},
        "training": {"tokens": 10**6},
    }
    with pytest.raises(ConfigError, match="absolute path that every node sees"):
        carried(folder, {**document, **({"output": output} if output else {})})
    assert "inputs/corpus.txt" in carried(folder, {**document, "output": "/shared/mine"}).inputs


def test_the_digest_is_of_the_users_files_by_content(folder):
    first = carried(folder, WORKFLOW).digest()
    assert carried(folder, WORKFLOW, with_source=True).digest() == first
    (folder / "train.jsonl").write_text((folder / "train.jsonl").read_text() + "\n")
    assert carried(folder, WORKFLOW).digest() != first


def test_a_copy_runs_where_it_lies(folder, tmp_path):
    found = carried(folder, WORKFLOW)
    found.copy_to(tmp_path / "job")
    copied = tmp_path / "job" / found.workflow
    assert yaml.safe_load(copied.read_text()) == WORKFLOW
    again = shipment(read_workflow(copied, WORKFLOWS), copied, None, False)
    assert again.digest() == found.digest()
