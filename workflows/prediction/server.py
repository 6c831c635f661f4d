"""A classifier over HTTP: POST /predict, GET /healthz, and what it is at GET /."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from orchestration.errors import exit_code_of
from workflows.kind import Candidate
from workflows.prediction.batches import Batches

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and how requests are put together.

    Attributes:
        body_bytes: of a request.
        rows: of a request.
        batch_rows: rows that the model reads at once.
        window_seconds: for which a request waits for others.
    """

    body_bytes: int = 1 << 20
    rows: int = 1000
    batch_rows: int = 64
    window_seconds: float = 0.005


@dataclass(frozen=True)
class About:
    """What the classifier is, for GET /."""

    model: str
    task: str
    method: str
    labels: Sequence[str]
    fields: Sequence[str]

    @classmethod
    def of(cls, candidate: Candidate) -> About:
        """What is told of a fit."""
        return cls(candidate.model, candidate.task, candidate.method, candidate.labels, candidate.fields)


def application(
    label: Callable[[Rows], list[dict[str, Any]]], about: About, token: str | None = None, limits: Limits = Limits()
) -> FastAPI:
    """The server.

    Args:
        label: gives a document for each of some rows.
        about: what it tells of itself.
        token: that a request must bear; None: none.
        limits: of requests.
    """
    batches: Batches[dict[str, Any]] = Batches(label, limits.batch_rows, limits.window_seconds)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batches.start()
        yield
        await batches.stop()

    app = FastAPI(title=f"{about.task}: {about.method}", lifespan=lifespan, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    async def describe() -> dict[str, Any]:
        return {name: getattr(about, name) for name in ("model", "task", "method", "labels", "fields")}

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        _check_token(request, token)
        rows = rows_of(await _body(request, limits.body_bytes), about.fields, limits.rows)
        try:
            found = await batches.ask(rows)
        except Exception as error:
            if exit_code_of(error) is None:
                raise
            raise HTTPException(422, str(error)) from error
        return JSONResponse({"predictions": found})

    return app


def _check_token(request: Request, token: str | None) -> None:
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        told = "send the header `Authorization: Bearer TOKEN`"
        raise HTTPException(
            401, f"the token is {'wrong' if given else 'missing'}; {told}", {"WWW-Authenticate": "Bearer"}
        )


async def _body(request: Request, most: int) -> bytes:
    """The body, of which no more than a limit is ever held."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise HTTPException(413, f"the body has more than {most:,} bytes; send fewer rows at a time")
    return bytes(found)


def rows_of(body: bytes, fields: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The rows of a request: {"rows": [{field: text}]}, or with one field {"texts": [text]}."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    expected = _expected(fields)
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in ("rows", "texts"):
        raise HTTPException(422, f"expected {expected}")
    ((name, rows),) = document.items()
    if name == "texts" and len(fields) > 1:
        raise HTTPException(422, f"expected {expected}")
    if not isinstance(rows, list) or not rows:
        raise HTTPException(422, f"{name}: expected a list of one or more")
    if len(rows) > most:
        raise HTTPException(413, f"{len(rows):,} rows; at most {most:,} are taken at a time")
    if name == "texts":
        rows = [{fields[0]: text} for text in rows]
    for number, row in enumerate(rows, 1):
        _check_row(row, number, fields)
    return [{field: row[field] for field in fields} for row in rows]


def _check_row(row: Any, number: int, fields: Sequence[str]) -> None:
    if not isinstance(row, dict):
        raise HTTPException(422, f"row {number}: found {_shown(row)}; expected an object with {', '.join(fields)}")
    for field in fields:
        if field not in row:
            raise HTTPException(422, f"row {number}: no field {field!r}; it has {', '.join(map(repr, row)) or 'none'}")
        if not isinstance(row[field], str) or not row[field].strip():
            raise HTTPException(422, f"row {number}: {field} is {_shown(row[field])}; expected text that is not empty")


def _expected(fields: Sequence[str]) -> str:
    rows = json.dumps({"rows": [dict.fromkeys(fields, "...")]})
    return f'{{"texts": ["..."]}} or {rows}' if len(fields) == 1 else rows


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."
