"""`vocabsem serve --ray`: replicas on a Ray of its own give the labels of the run, and none is left behind."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from typing import Any

import psutil
import pytest

from tests.integration.workspace import cli_begun
from tests.workflows.films import TASK
from tests.workflows.prediction.conftest import finished
from workflows.methods.inputs.states import read_column

pytest.importorskip("grpc_reflection", reason="needs the extra `serve`")  # what `ray[serve]` has beyond `ray[default]`


def asked(address: str, body: Any) -> tuple[int, Any]:
    """Status and document of an answer."""
    request = urllib.request.Request(f"{address}/predict", json.dumps(body).encode(), {"Authorization": "Bearer key"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_replicas_answer_as_the_run_did_and_end_with_the_command(tmp_path):
    run = finished(tmp_path, TASK, methods=["linear-probe"])
    (tmp_path / "token").write_text("key")
    words = ["--ray", "--replicas", "1", "--gpus", "0", "--port", "0", "--token-file", "token", "--store", "store"]
    command = cli_begun(tmp_path, "serve", "latest", *words)
    command.wait_for(lambda: "1 of 1 replicas answers" in command.errors)
    address = re.search(r"serving on (\S+);", command.errors)[1]

    texts = [json.loads(line)["text"] for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    given = [("bad", "good")[number] for number in read_column(run.choose().fit, "prediction").tolist()]
    status, found = asked(address, {"texts": texts})
    assert (status, [one["label"] for one in found["predictions"]]) == (200, given)
    one_by_one = [asked(address, {"texts": [text]})[1]["predictions"][0]["label"] for text in texts]
    assert one_by_one == given
    assert asked(address, {"texts": [""]}) == (422, {"detail": 'row 1: text is ""; expected text that is not empty'})
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"{address}/predict", b"{}", timeout=60)
    refused.value.close()
    assert json.load(urllib.request.urlopen(f"{address}/healthz", timeout=60)) == {"status": "ok"}

    started = psutil.Process(command.pid).children(recursive=True)
    assert sum("ServeReplica" in " ".join(process.cmdline()) for process in started) == 1
    command.send(signal.SIGINT)
    done = command.end()
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "stopped")
    assert psutil.wait_procs(started, timeout=20)[1] == []
