"""A real S3 server for tests, moto's, in this process: any process of this machine reaches it over HTTP."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from boto3.session import Session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

SECRET = "this-must-appear-nowhere"
App = Callable[[dict[str, Any], Any], Iterable[bytes]]
Before = Callable[[Request], Response | None]


@dataclass
class Server:
    """A server that is up.

    Attributes:
        before: asked before each request; what it returns is the answer in the server's place.
        asked: (method, path) of every request.
    """

    address: str
    before: Before | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    @cached_property
    def client(self) -> Any:
        """A client beside ours."""
        return Session("test", SECRET, region_name="us-east-1").client("s3", endpoint_url=self.address)

    def new_bucket(self) -> str:
        name = f"bucket-{uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Of a bucket that has less than a thousand."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket."""
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in self.keys(bucket)}


def refusal(status: int, code: str) -> Response:
    """An answer as S3 words it."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} it is</Message></Error>"
    return Response(text, status, content_type="application/xml")


@contextmanager
def s3_server() -> Iterator[Server]:
    """Start it on a free port, and end it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto: App = DomainDispatcherApplication(create_backend_app)
    found = Server("")

    def application(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        found.asked.append((request.method, request.path))
        answer = found.before(request) if found.before is not None else None
        return answer(environ, start) if answer is not None else moto(environ, start)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
