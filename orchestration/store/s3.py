"""Objects below a prefix of a bucket, on any server that speaks S3: made once, read, listed, removed.

The endpoint and the credentials are each process's own, as the AWS tools take them ($AWS_ENDPOINT_URL,
$AWS_ACCESS_KEY_ID, ~/.aws ...). They stand in no file, key or log of ours, and do not travel to other nodes.

An object is made by a conditional put (`If-None-Match: *`, which AWS and most others know): of any number of writers
one wins, and what it made never changes. A server that does not know the condition is found out when the store is
opened; there a writer looks before it puts, which leaves a gap of one round trip.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestration.errors import StoreError
from orchestration.host.proxies import about_a_proxy
from orchestration.store.object_store import Object, ObjectStore
from orchestration.store.transfers import transfer

SCHEME = "s3://"
_CONNECTIONS = 16  # kept open: as many as a mirror has threads
_ATTEMPTS, _FIRST_ATTEMPTS = 8, 2  # of a request; the first words with a server shall not take a minute to fail
_PART_BYTES = 64 << 20  # a larger file goes in parts of this size
_BLOCK = 1 << 20  # bytes read at once
_CONFLICTS = 5  # puts that met another's unfinished put
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*")
_LOST = ("PreconditionFailed", "412")
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure")


@dataclass(frozen=True)
class Bucket:
    """A prefix of a bucket. Plain data, so that it travels to workers. All keys are below the prefix.

    Every method raises StoreError for what the server refuses or does not answer.

    Attributes:
        prefix: "" or one that ends in a slash.
        conditional: whether the server knows `If-None-Match`.
        attempts: of each request before it fails.
    """

    name: str
    prefix: str
    conditional: bool = True
    attempts: int = _ATTEMPTS

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """The server's address, for people: without credentials."""
        return _endpoint()

    @property
    def node_setup(self) -> str:
        """What a process on another node needs."""
        return "Set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the others before `ray start` on every node."

    def opened(self, key: str, made: Path | None) -> tuple[Bucket, bytes | None]:
        """The bucket once it has answered, and what its object `key` holds.

        With `made`, that file is put where there is none; so it is known that the bucket can be written, and whether
        the server knows conditional puts.
        """
        bucket = replace(self, attempts=_FIRST_ATTEMPTS)
        found = bucket.get(key)
        if made is not None and found in (None, made.read_bytes()):
            try:
                if found is None:
                    bucket.create(key, made)
                # who puts it again knows no condition
                bucket = replace(bucket, conditional=not bucket.create(key, made))
            except StoreError as error:
                if _code(error.__cause__) not in ("NotImplemented", "501"):
                    raise
                bucket = replace(bucket, conditional=False)
                bucket.create(key, made)
            found = made.read_bytes()
        return replace(bucket, attempts=_ATTEMPTS), found

    def url(self, key: str) -> str:
        return f"{SCHEME}{self.name}/{self.prefix}{key}"

    def create(self, key: str, file: Path) -> bool:
        """Put a file, unless there is an object of this key: then that one stays and False is returned."""
        with self._asked("cannot be written"):
            if file.stat().st_size > _PART_BYTES:
                return self._create_in_parts(key, file)
            if not self.conditional and self.find(key) is not None:
                return False
            return self._once(lambda condition: self._put(key, file, condition))

    def put(self, key: str, file: Path) -> Object:
        """Put a file, in the place of an object of this key."""
        with self._asked("cannot be written"):
            self._put(key, file, {})
            return _object(self._client.head_object(Bucket=self.name, Key=self.prefix + key), "ContentLength")

    def find(self, key: str) -> Object | None:
        """An object's size, tag and time, None where there is none."""
        with self._asked("cannot be read"):
            try:
                return _object(self._client.head_object(Bucket=self.name, Key=self.prefix + key), "ContentLength")
            except _client_error() as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return None
                raise

    def get(self, key: str) -> bytes | None:
        """A small object's bytes, None where there is none."""
        blocks = self.stream(key)
        return None if blocks is None else b"".join(blocks)

    def stream(self, key: str) -> Iterator[bytes] | None:
        """An object's bytes, block by block, None where there is none."""
        with self._asked("cannot be read"):
            try:
                body = self._client.get_object(Bucket=self.name, Key=self.prefix + key)["Body"]
            except _client_error() as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
        return self._blocks(body)

    def download(self, key: str, file: Path, size: int | None = None) -> bool:
        """Write an object to a file; False where there is none. Raises OSError where the file cannot be written.

        Args:
            size: in bytes, of an object that is worth several requests at once; None: one request.
        """
        if size is None:
            blocks = self.stream(key)
            if blocks is not None:
                with open(file, "wb") as out:
                    out.writelines(blocks)
            return blocks is not None
        with self._asked("cannot be read"), transfer("downloading", file.name, size) as count:
            try:
                self._client.download_file(self.name, self.prefix + key, str(file), Callback=count)
            except _client_error() as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return False
                raise
        return True

    def listing(self, start: str = "") -> dict[str, Object]:
        """Every object whose key starts so."""
        with self._asked("cannot be listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + start)
            found = (entry for page in pages for entry in page.get("Contents", ()))
            return {entry["Key"].removeprefix(self.prefix): _object(entry, "Size") for entry in found}

    def folders(self) -> list[str]:
        """What keys begin with, up to their first slash."""
        with self._asked("cannot be listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=self.prefix, Delimiter="/"
            )
            found = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
            return [name.removeprefix(self.prefix).rstrip("/") for name in found]

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; what is not there is no error."""
        keys = list(keys)
        with self._asked("cannot be written"):
            for first in range(0, len(keys), 1000):  # as many as a request may name
                self._delete([self.prefix + key for key in keys[first : first + 1000]])

    @property
    def _client(self) -> Any:
        return _client(self.attempts)

    def _delete(self, keys: list[str]) -> None:
        """In one request; one by one where the server refuses that: some ask for a Content-MD5, which boto3 dropped."""
        named = [{"Key": key} for key in keys]
        try:
            done = self._client.delete_objects(Bucket=self.name, Delete={"Objects": named, "Quiet": True})
        except _client_error():
            for key in keys:
                self._client.delete_object(Bucket=self.name, Key=key)
            return
        for error in done.get("Errors", ()):
            raise StoreError(f"{SCHEME}{self.name}/{error['Key']}: cannot be removed ({error.get('Code')})")

    def _put(self, key: str, file: Path, condition: Mapping[str, str]) -> None:
        with open(file, "rb") as body:
            self._client.put_object(Bucket=self.name, Key=self.prefix + key, Body=body, **condition)

    def _once(self, put: Callable[[Mapping[str, str]], object]) -> bool:
        """Whether a put won that is told its condition."""
        for attempt in range(_CONFLICTS):
            try:
                put({"IfNoneMatch": "*"} if self.conditional else {})
                return True
            except _client_error() as error:
                if _code(error) in _LOST:
                    return False
                if _code(error) != "ConditionalRequestConflict" or attempt == _CONFLICTS - 1:
                    raise
                time.sleep(2**attempt / 4)  # another's put is under way, and may fail yet
        raise AssertionError("the last conflict is raised")

    def _create_in_parts(self, key: str, file: Path) -> bool:
        if self.find(key) is not None:  # before much is sent for nothing
            return False
        place = {"Bucket": self.name, "Key": self.prefix + key}
        upload = {**place, "UploadId": self._client.create_multipart_upload(**place)["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            sending = transfer("uploading", Path(key).name, file.stat().st_size)
            with open(file, "rb") as body, sending as count:
                while block := body.read(_PART_BYTES):
                    number = len(parts) + 1
                    tag = self._client.upload_part(**upload, PartNumber=number, Body=block)["ETag"]
                    parts.append({"PartNumber": number, "ETag": tag})
                    count(len(block))
            told = {**upload, "MultipartUpload": {"Parts": parts}}
            # Without the condition, another may have won while the parts were sent: look once more.
            free = self.conditional or self.find(key) is None
            won = free and self._once(lambda condition: self._client.complete_multipart_upload(**told, **condition))
        except BaseException:
            self._client.abort_multipart_upload(**upload)
            raise
        if not won:
            self._client.abort_multipart_upload(**upload)
        return won

    def _blocks(self, body: Any) -> Iterator[bytes]:
        with self._asked("cannot be read"):
            yield from body.iter_chunks(_BLOCK)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Errors of the client in words for a user; OSErrors are of this machine's own files."""
        try:
            yield
        except Exception as error:
            if (told := _explained(error, self.name, what)) is None:
                raise
            raise StoreError(f"{self}: {told}") from error


def parse(url: str) -> ObjectStore:
    """The bucket and prefix of an s3:// URL. Raises StoreError for one that is malformed."""
    place = url.removeprefix(SCHEME)
    if "@" in place:  # not shown: it may hold a secret
        raise StoreError(
            "the store's s3:// address holds an @; expected s3://bucket/prefix, and credentials in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    name, _, prefix = place.rstrip("/").partition("/")
    if not _BUCKET.fullmatch(name) or (prefix and not _PREFIX.fullmatch(prefix)):
        raise StoreError(
            f"{url!r} is no place for a store; expected s3://bucket/prefix: a bucket of 3 to 63 of a-z, 0-9, '.', '-', "
            "and folders of letters, digits, '_', '.', '=', '-'"
        )
    return Bucket(name, f"{prefix}/" if prefix else "")


def _endpoint() -> str:
    try:
        parts = urlsplit(_client(_FIRST_ATTEMPTS).meta.endpoint_url)
    except ValueError:
        return "$AWS_ENDPOINT_URL"
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


@cache
def _client(attempts: int) -> Any:
    try:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise StoreError(
            "a store at s3:// needs boto3, which is not installed here: `pip install boto3` (the extra `s3`), on every "
            "node"
        ) from error
    try:
        return Session().client(
            "s3",
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": attempts},
                # checksums of AWS's own that other servers refuse; ours are compared wherever bytes are read
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
    except BotoCoreError as error:
        raise StoreError(
            f"the settings of the AWS tools on this machine cannot be used ({error}); look at $AWS_PROFILE, the other "
            "$AWS_ variables, ~/.aws/config and ~/.aws/credentials"
        ) from error


def _client_error() -> type[Exception]:
    from botocore.exceptions import ClientError

    return ClientError


def _code(error: BaseException | None) -> str:
    """What the server called it, "" for an error that is not the server's."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _object(entry: Mapping[str, Any], size: str) -> Object:
    return Object(int(entry[size]), entry["ETag"].strip('"'), entry["LastModified"].timestamp())


def _explained(error: Exception, name: str, what: str) -> str | None:
    """An error of the client for a user to read; None for one that is not the client's."""
    if isinstance(error, StoreError):
        return None
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return "$AWS_ENDPOINT_URL is no address; expected http://host:port or https://host"
    from boto3.exceptions import Boto3Error
    from botocore import exceptions as known

    if code := _code(error):
        if code in ("NoSuchBucket", "404"):
            return f"no bucket {name!r} at {_endpoint()}; make it, or name another with --store"
        if code in _REFUSED:
            return f"{_endpoint()} refuses the credentials ({code}); look at $AWS_ACCESS_KEY_ID, $AWS_SECRET_ACCESS_KEY"
        if code in ("AccessDenied", "403", "AllAccessDisabled"):
            return f"{what} ({code}); these credentials need to list, read and write it. Name another with --store"
        return f"{what} ({code}: {error.response['Error'].get('Message', '')})"  # type: ignore[attr-defined]
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of the AWS tools"
    if isinstance(error, known.HTTPClientError | known.ConnectionError):
        where, why = _endpoint(), type(error).__name__
        return f"no S3 server answers at {where} ({why}){about_a_proxy(where)}; set AWS_ENDPOINT_URL if it is elsewhere"
    if isinstance(error, known.BotoCoreError | Boto3Error):
        return f"{what} ({error})"
    return None
