"""Files of the hub: from its cache where they are there, and plain advice where they are not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from workflows.errors import ConfigError
from workflows.inputs.hub import hub_file, hub_model

ELSEWHERE = "take it from the shelf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


def store(cache: Path, folder: str, files: dict[str, str], commit: str = COMMIT) -> Path:
    """Files as the hub's cache keeps them: a ref, blobs, and a snapshot of links. The snapshot's folder is returned."""
    (cache / folder / "refs").mkdir(parents=True)
    (cache / folder / "refs" / "main").write_text(commit)
    (cache / folder / "blobs").mkdir()
    snapshot = cache / folder / "snapshots" / commit
    for number, (name, text) in enumerate(files.items()):
        (cache / folder / "blobs" / str(number)).write_text(text)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(cache / folder / "blobs" / str(number))
    return snapshot


class Hub(ThreadingHTTPServer):
    """A hub on this machine that answers every request with one status."""

    status = 404
    error_code = "RepoNotFound"
    asked: int = 0


class Answer(BaseHTTPRequestHandler):
    """Counts the request and answers it."""

    server: Hub

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("X-Error-Code", self.server.error_code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(kind: str, repository: str = "org/name") -> str:
    """What hub_file or hub_model says."""
    with pytest.raises(ConfigError) as caught:
        hub_file(repository, "main", "data/train.csv", ELSEWHERE) if kind == "file" else hub_model(repository, "main")
    return str(caught.value)


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_cached_file_of_a_data_set_is_found_offline(cache: Path, revision: str) -> None:
    store(cache, "datasets--org--name", {"data/train.csv": "text,label\n"})
    assert hub_file("org/name", revision, "data/train.csv", ELSEWHERE).read_text() == "text,label\n"


def test_a_cached_file_of_a_model_is_found_offline_and_a_missing_one_is_named(cache: Path) -> None:
    store(cache, "models--org--name", {"small-Q8_0.gguf": "weights"})
    assert hub_file("org/name", "main", "small-Q8_0.gguf", ELSEWHERE, kind="model").read_text() == "weights"
    with pytest.raises(ConfigError, match=r"large\.gguf of model org/name@main is not in the local cache"):
        hub_file("org/name", "main", "large.gguf", ELSEWHERE, kind="model")


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_cached_model_is_found_offline(cache: Path, revision: str) -> None:
    snapshot = store(cache, "models--org--name", {"config.json": "{}", "model.safetensors": "weights"})
    assert hub_model("org/name", revision) == snapshot


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_what_is_cached_is_not_asked_for(cache: Path, hub: Hub, revision: str) -> None:
    store(cache, "datasets--org--name", {"train.csv": ""})
    store(cache, "models--org--name", {"model.safetensors": "weights"})
    hub_file("org/name", revision, "train.csv", ELSEWHERE)
    hub_model("org/name", revision)
    assert hub.asked == 0


def test_a_model_without_its_weights_is_enough_where_they_are_not_wanted(cache: Path, hub: Hub) -> None:
    snapshot = store(cache, "models--org--name", {"config.json": "{}", "tokenizer.json": "{}"})
    assert hub_model("org/name", "main", weights=False) == snapshot
    assert hub.asked == 0


def test_a_model_without_the_repositorys_other_files_is_whole(cache: Path, hub: Hub) -> None:
    """hub_model fetches no README and no pickle; the cache's list of the repository's files names them all the same."""
    snapshot = store(cache, "models--org--name", {"config.json": "{}", "model.safetensors": "weights"})
    listed = ("config.json", "model.safetensors", "README.md", "pytorch_model.bin")
    tree = {"format_version": 1, "files": {name: {"size": 2, "blob_id": "b"} for name in listed}}
    (cache / "models--org--name" / "trees").mkdir()
    (cache / "models--org--name" / "trees" / f"{COMMIT}.json").write_text(json.dumps(tree))
    assert hub_model("org/name", "main") == snapshot
    assert hub.asked == 0


@pytest.mark.parametrize(
    ("kind", "what"), [("file", "data/train.csv of data set org/name@main"), ("model", "model org/name@main")]
)
def test_what_is_not_cached_offline_is_named_with_what_to_do(kind: str, what: str) -> None:
    message = refusal(kind)
    assert message.startswith(what)
    assert "not in the local cache" in message
    assert "same HF_HOME" in message
    assert (ELSEWHERE if kind == "file" else "give a local folder") in message


def test_a_cached_configuration_alone_is_no_cached_model(cache: Path) -> None:
    store(cache, "models--org--name", {"config.json": "{}"})
    assert "same HF_HOME" in refusal("model")


INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
PARTS = dict.fromkeys(INDEX["weight_map"].values(), "weights")


def test_a_download_that_was_cut_off_is_gone_on_with(cache: Path, hub: Hub) -> None:
    store(cache, "models--org--name", {"config.json": "{}", "model-00001-of-00002.safetensors": "weights"})
    refusal("model")
    assert hub.asked > 0


def test_offline_a_part_of_the_weights_is_no_cached_model(cache: Path) -> None:
    first = {"model-00001-of-00002.safetensors": "weights"}
    store(cache, "models--org--name", {"model.safetensors.index.json": json.dumps(INDEX), **first})
    store(cache, "models--org--whole", {"model.safetensors.index.json": json.dumps(INDEX), **PARTS})
    assert "same HF_HOME" in refusal("model")
    assert hub_model("org/whole", "main").name == COMMIT


@pytest.mark.parametrize("kind", ["file", "model"])
@pytest.mark.parametrize(("status", "code"), [(403, "GatedRepo"), (401, "GatedRepo"), (401, ""), (403, "")])
def test_a_closed_repository_says_to_ask_for_access_and_log_in(hub: Hub, kind: str, status: int, code: str) -> None:
    hub.status, hub.error_code = status, code
    message = refusal(kind)
    assert "ask for access" in message
    assert "hf auth login" in message


@pytest.mark.parametrize("kind", ["file", "model"])
@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound"])
def test_what_the_hub_does_not_have_says_to_check_the_spelling(hub: Hub, kind: str, code: str) -> None:
    hub.status, hub.error_code = 404, code
    assert "check the spelling" in refusal(kind)


def test_a_file_that_the_repository_does_not_have_says_to_check_the_spelling(hub: Hub) -> None:
    hub.status, hub.error_code = 404, "EntryNotFound"
    assert "check the spelling" in refusal("file")


@pytest.mark.parametrize("kind", ["file", "model"])
def test_a_misspelt_repository_asked_for_without_a_token_says_to_check_the_spelling_too(hub: Hub, kind: str) -> None:
    """The hub answers 401 for a repository that is not there, since it does not tell strangers which ones are."""
    hub.status, hub.error_code = 401, "RepoNotFound"
    message = refusal(kind)
    assert "check the spelling" in message
    assert "ask for access" in message


@pytest.mark.parametrize("kind", ["file", "model"])
@pytest.mark.parametrize("repository", ["a/b/c", "not an id", "org/.."])
def test_an_id_that_cannot_be_one_is_a_config_error(kind: str, repository: str) -> None:
    assert repository in refusal(kind, repository)


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched ends in this error; in the cache there is nothing."""

    def fetch(*_: object, local_files_only: bool = False, **__: object) -> str:
        raise LocalEntryNotFoundError("not there") if local_files_only else error

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, fetch)


@pytest.mark.parametrize("kind", ["file", "model"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "(No space left on device)"),
        (PermissionError(13, "Permission denied", "/hf/blobs"), "(Permission denied: /hf/blobs)"),
    ],
)
def test_a_cache_that_cannot_be_written_is_told_as_that(
    cache: Path, kind: str, error: OSError, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    message = refusal(kind)
    assert told in message
    assert f"free space in {cache} or grant the permission to read and write it, or set HF_HOME" in message
    assert "reached" not in message


def test_a_cache_that_cannot_be_read_is_told_as_that(cache: Path) -> None:
    """A folder where the cache has a file, as a stand-in for one that its owner alone may read."""
    (cache / "models--org--name" / "refs" / "main").mkdir(parents=True)
    assert f"(Is a directory: {cache}" in refusal("model")


@pytest.mark.parametrize("kind", ["file", "model"])
def test_an_error_of_the_http_client_says_that_the_hub_cannot_be_reached(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that wants a password, or an answer that never ends: no error of the hub's own and no OSError."""
    fail_with(HfHubHTTPError.__bases__[0]("407 Proxy Authentication Required"), monkeypatch)
    message = refusal(kind)
    assert "the hub cannot be reached (407 Proxy Authentication Required); download it where it can be" in message
    assert "same HF_HOME" in message


@pytest.mark.parametrize("kind", ["file", "model"])
def test_a_hub_that_is_out_of_order_is_told_with_its_answer(hub: Hub, kind: str) -> None:
    hub.status, hub.error_code = 501, ""
    assert "the hub cannot be reached (status 501)" in refusal(kind)


def test_a_hub_that_does_not_answer_is_asked_once_for_all_files(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client alone would try for half a minute a file."""
    from huggingface_hub import utils

    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            raise ConnectionError("no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(utils, "get_session", Session)
    assert "the hub cannot be reached" in refusal("file")
    assert "the hub cannot be reached" in refusal("model")
    assert asked == ["http://127.0.0.1:9"]
