"""Files of Hugging Face repositories, from the local cache where they are there, else from the hub."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from workflows.errors import ConfigError

_WEIGHTS = "*.safetensors"
_DESCRIPTION = ["*.json", "*.model", "vocab.*", "merges.txt"]  # configuration and tokenizer


def hub_file(repository: str, revision: str, file: str) -> Path:
    """One file of a data set. Raises ConfigError where it is neither cached nor to be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    place: dict[str, Any] = {"repo_id": repository, "filename": file, "repo_type": "dataset", "revision": revision}
    try:
        return Path(hf_hub_download(**place, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except ValueError as error:
        raise ConfigError(f"{file} of data set {repository!r}: not an id or file of the hub ({error})") from error
    _say_no_retries()
    try:
        return Path(hf_hub_download(**place))
    except (HfHubHTTPError, OSError) as error:
        elsewhere = "give --data-dir DIR with DIR/<task>/train.jsonl and test.jsonl"
        raise ConfigError(_unreachable(f"{file} of data set {repository}@{revision}", elsewhere, error)) from error


def hub_model(repository: str, revision: str, weights: bool = True) -> Path:
    """The folder of a model's snapshot, without its weights where they are not wanted.

    Raises ConfigError where it is neither cached nor to be had.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns, needed = ([_WEIGHTS, *_DESCRIPTION], _WEIGHTS) if weights else (_DESCRIPTION, "config.json")
    place: dict[str, Any] = {"repo_id": repository, "revision": revision, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(**place, local_files_only=True))
        if _is_whole(folder, needed):
            return folder
    except LocalEntryNotFoundError:
        pass
    except ValueError as error:
        raise ConfigError(f"model {repository!r}: not an id of the hub ({error})") from error
    _say_no_retries()
    try:
        folder = Path(snapshot_download(**place))  # where the hub does not answer: what is in the cache
        if not _is_whole(folder, needed) and (constants.HF_HUB_OFFLINE or any(folder.glob(needed))):
            raise LocalEntryNotFoundError(f"the local cache holds a part of the model, not all of {needed}")
        return folder
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(_unreachable(f"model {repository}@{revision}", "name a local folder", error)) from error


def _is_whole(folder: Path, needed: str) -> bool:
    """Whether a snapshot has what is wanted, and of weights in several files all of them: a download may be cut off."""
    index = folder / "model.safetensors.index.json"
    if needed == _WEIGHTS and index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / name).is_file() for name in names)
    found = [path.name for path in folder.glob(needed)]
    return bool(found) and not any("-of-" in name for name in found)  # a part of several, and no index yet


def _say_no_retries() -> None:
    """The hub's client warns at every retry; the error at the end says all there is to say."""
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)


def _unreachable(what: str, elsewhere: str, error: Exception) -> str:
    causes = [cause for cause in (error, error.__cause__) if getattr(cause, "response", None) is not None]
    status = causes[0].response.status_code if causes else None  # type: ignore[union-attr]
    if status in (401, 403):
        advice = (
            "it is gated or private, or misspelt: check the spelling, ask for access on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    elif status == 404:
        advice = "the hub has no such repository, revision or file; check the spelling"
    else:
        advice = f"the hub cannot be reached; fetch it where it can be, with the same HF_HOME, or {elsewhere}"
    return f"{what} is not in the local cache, and {advice}"
