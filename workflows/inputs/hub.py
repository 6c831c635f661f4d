"""Files of Hugging Face repositories, from the local cache where they are there, else from the hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from workflows.errors import ConfigError

_ANSWER_SECONDS = 10  # a hub that says nothing for so long is not reachable
_WEIGHTS = "*.safetensors"
_DESCRIPTION = ["*.json", "*.model", "vocab.*", "merges.txt"]  # configuration and tokenizer


def hub_file(
    repository: str, revision: str, file: str, elsewhere: str, kind: Literal["dataset", "model"] = "dataset"
) -> Path:
    """One file of a repository. `elsewhere`: what else to do where it is neither cached nor to be had (ConfigError)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    place: dict[str, Any] = {"repo_id": repository, "filename": file, "repo_type": kind, "revision": revision}
    called = f"{'data set' if kind == 'dataset' else kind} {repository}"
    with _telling(f"{file} of {called}@{revision}", elsewhere):
        try:
            return Path(hf_hub_download(**place, local_files_only=True))
        except LocalEntryNotFoundError:
            pass
        except ValueError as error:
            raise ConfigError(f"{file} of {called}: not an id or file of the hub ({error})") from error
        _check_reachable()
        return Path(hf_hub_download(**place))


def hub_model(repository: str, revision: str, weights: bool = True) -> Path:
    """The folder of a model's snapshot, without its weights where they are not wanted.

    Raises ConfigError where it is neither cached nor to be had.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns, needed = ([_WEIGHTS, *_DESCRIPTION], _WEIGHTS) if weights else (_DESCRIPTION, "config.json")
    place: dict[str, Any] = {"repo_id": repository, "revision": revision, "allow_patterns": patterns}
    with _telling(f"model {repository}@{revision}", "give a local folder"):
        try:
            folder = Path(snapshot_download(**place, local_files_only=True))
            if _is_whole(folder, needed):
                return folder
        except LocalEntryNotFoundError:
            pass
        except ValueError as error:
            raise ConfigError(f"model {repository!r}: not an id of the hub ({error})") from error
        _check_reachable()
        folder = Path(snapshot_download(**place))  # where the hub does not answer: what is in the cache
        if not _is_whole(folder, needed) and (constants.HF_HUB_OFFLINE or any(folder.glob(needed))):
            raise LocalEntryNotFoundError(f"the local cache has only a part of the model, not all of {needed}")
        return folder


def _is_whole(folder: Path, needed: str) -> bool:
    """Whether a snapshot has what is wanted, and of weights in several files all of them: a download may be cut off."""
    index = folder / "model.safetensors.index.json"
    if needed == _WEIGHTS and index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / name).is_file() for name in names)
    found = [path.name for path in folder.glob(needed)]
    return bool(found) and not any("-of-" in name for name in found)  # a part of several, and no index yet


def _check_reachable() -> None:
    """Raises OSError where nothing answers at the hub's address.

    The hub's client tries again for half a minute a file, and warns each time: the error at the end says enough.
    """
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
        raise OSError(f"no answer from {constants.ENDPOINT}")


@cache  # one answer for all the files of a workflow
def _answers(endpoint: str) -> bool:
    """Whether anything answers there, with whatever status."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=_ANSWER_SECONDS)
    except Exception:  # of whichever HTTP client the library is built on, which has no common base
        return False
    return True


@contextmanager
def _telling(what: str, elsewhere: str) -> Iterator[None]:
    """Whatever goes wrong with the hub, on the way to it or with its cache becomes a ConfigError."""
    from huggingface_hub.errors import HTTPError  # of whichever HTTP client the library is built on

    try:
        yield
    except (HTTPError, OSError) as error:
        response = _response(error)
        if response is None and isinstance(error, OSError) and error.errno is not None:
            advice = _unusable(error)
        else:
            advice = _unreachable(elsewhere, error, response)
        raise ConfigError(f"{what} is not in the local cache, and {advice}") from error


def _response(error: BaseException) -> Any:
    """What the hub answered, if it did."""
    answers = (getattr(cause, "response", None) for cause in (error, error.__cause__))
    return next((answer for answer in answers if answer is not None), None)


def _unusable(error: OSError) -> str:
    from huggingface_hub import constants

    file = f": {error.filename}" if error.filename else ""
    return (
        f"the cache cannot be used ({error.strerror}{file}); free space in {constants.HF_HUB_CACHE} or grant the "
        "permission to read and write it, or set HF_HOME to another folder"
    )


def _unreachable(elsewhere: str, error: Exception, response: Any) -> str:
    status = response.status_code if response is not None else None
    if status in (401, 403):
        return (
            "it is gated, private or misspelt: check the spelling, ask for access on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if status == 404:
        return "the hub has no such repository, revision or file; check the spelling"
    because = f" (status {status})" if status else "" if isinstance(error, OSError) else f" ({error})"
    return f"the hub cannot be reached{because}; download it where it can be, with the same HF_HOME, or {elsewhere}"
