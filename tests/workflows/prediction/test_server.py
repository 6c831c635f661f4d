"""What the server takes, what it refuses, and that it stays up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from vocabsem_core.errors import InputError
from workflows.prediction.server import About, Limits, application

ABOUT = About("tiny", "films", "knn", ("bad", "good"), ("text",))
PAIRS = About("tiny", "pairs", "knn", ("no", "yes"), ("first", "second"))


def label(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if any("unreadable" in str(row) for row in rows):
        raise InputError("row 1: no such token")
    return [{"label": "good" if "fine" in str(row) else "bad"} for row in rows]


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(application(label, ABOUT, limits=Limits(body_bytes=2000, rows=3))) as made:
        yield made


def labels(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["label"] for one in answer.json()["predictions"]]


def test_rows_and_texts_are_labelled(client: TestClient) -> None:
    assert labels(client.post("/predict", json={"texts": ["a fine film", "a dull one"]})) == ["good", "bad"]
    assert labels(client.post("/predict", json={"rows": [{"text": "fine", "other": 1}]})) == ["good"]


def test_it_says_what_it_is_and_that_it_lives(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    expected = {"model": "tiny", "task": "films", "method": "knn", "labels": ["bad", "good"], "fields": ["text"]}
    assert client.get("/").json() == expected


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "the body is not JSON: "),
        (b"\xff", 400, "the body is not JSON: "),
        (b"[]", 422, 'expected {"texts": ["..."]} or {"rows": [{"text": "..."}]}'),
        (b'{"rows": []}', 422, "rows: expected a list of one or more"),
        (b'{"texts": "fine"}', 422, "texts: expected a list of one or more"),
        (b'{"rows": ["fine"]}', 422, 'row 1: found "fine"; expected an object with text'),
        (b'{"rows": [{"text": "fine"}, {"txt": "fine"}]}', 422, "row 2: no field 'text'; it has 'txt'"),
        (b'{"texts": ["fine", null]}', 422, "row 2: text is null; expected text that is not empty"),
        (b'{"texts": ["  "]}', 422, 'row 1: text is "  "; expected text that is not empty'),
        (b'{"texts": ["a", "b", "c", "d"]}', 413, "4 rows; at most 3 are taken at a time"),
        (b'{"texts": ["' + b"a" * 2000 + b'"]}', 413, "the body has more than 2,000 bytes"),
        (b'{"texts": ["unreadable"]}', 422, "row 1: no such token"),
    ],
)
def test_what_cannot_be_used_is_told_and_the_server_stays_up(
    client: TestClient, body: bytes, status: int, told: str
) -> None:
    answer = client.post("/predict", content=body)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(told)
    assert labels(client.post("/predict", json={"texts": ["fine"]})) == ["good"]


def test_two_fields_are_asked_for_by_name() -> None:
    with TestClient(application(label, PAIRS)) as client:
        assert labels(client.post("/predict", json={"rows": [{"first": "a", "second": "fine"}]})) == ["good"]
        answer = client.post("/predict", json={"texts": ["a"]})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        'expected {"rows": [{"first": "...", "second": "..."}]}',
    )


def test_a_request_without_the_token_is_refused_before_it_is_read() -> None:
    with TestClient(application(label, ABOUT, token="secret")) as client:
        missing = client.post("/predict", content=b"{")
        wrong = client.post("/predict", content=b"{", headers={"Authorization": "Bearer other"})
        assert (missing.status_code, wrong.status_code) == (401, 401)
        assert "the token is missing" in missing.json()["detail"]
        assert "the token is wrong" in wrong.json()["detail"]
        good = client.post("/predict", json={"texts": ["fine"]}, headers={"Authorization": "Bearer secret"})
        assert labels(good) == ["good"]
        assert client.get("/healthz").status_code == 200
