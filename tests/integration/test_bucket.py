"""A comparison with its store in a bucket: run, seen from other machines, damaged, driven twice at once."""

import json
import os
import subprocess
import sys

import pytest

from tests.integration.workspace import REPOSITORY, WORKFLOW, cli, cli_begun, make_workspace, write
from tests.s3_server import SECRET, s3_server

SMALL = {**WORKFLOW, "models": ["reference-1m"], "methods": ["affinity", "calibration"], "seeds": [0]}


@pytest.fixture(scope="module")
def server():
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("bucket"))
    write(folder, "workflow.yaml", SMALL)
    return folder


@pytest.fixture(scope="module")
def machine(server, folder):
    """The environment of a machine of this name, which has copies of its own; all use one MLflow."""

    def of(name, store):
        places = {"VOCABSEM_CACHE": str(folder / name), "VOCABSEM_STORE": store}
        return {**server.environment, **places, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}

    return of


@pytest.fixture(scope="module")
def call(machine, folder):
    """Run a command of ours on a machine."""

    def on(name, store, *arguments, check=True, **environment):
        return cli(folder, *arguments, check=check, **{**machine(name, store), **environment})

    return on


@pytest.fixture(scope="module")
def filled(server, call):
    """A store in a bucket, the bucket's name, and the document of the run that filled it."""
    bucket = server.new_bucket()
    store = f"s3://{bucket}/team/store"
    done = call("first", store, "run", "workflow.yaml", "--executor", "inline", "--json")
    return store, bucket, json.loads(done.stdout)


def results(document):
    """Without what they cost, which is of one machine and moment."""
    return [
        {name: value for name, value in row.items() if not name.endswith(("seconds", "bytes"))}
        for row in document["results"]
    ]


def test_another_machine_has_all_of_it_cached_with_the_same_results(call, filled):
    store, _, first = filled
    assert first["steps"] == {"ran": first["steps"]["ran"], "cached": 0, "failed": 0}
    planned = json.loads(call("second", store, "plan", "workflow.yaml", "--json").stdout)["steps"]
    assert {step["state"] for step in planned} == {"cached"}
    again = json.loads(call("second", store, "run", "workflow.yaml", "--json").stdout)
    assert (again["steps"]["ran"], again["steps"]["cached"]) == (0, first["steps"]["ran"])
    assert (again["run_id"], results(again)) == (first["run_id"], results(first))


def test_what_was_run_is_shown_reported_and_verified_from_anywhere(call, filled, folder, tmp_path):
    store, _, first = filled
    shown = json.loads(call("third", store, "show", "latest", "--json").stdout)
    assert (shown["run_id"], shown["folder"]) == (first["run_id"], f"{store}/runs/{first['run_id']}")
    call("third", store, "report", "--markdown", str(tmp_path / "report.md"))
    assert "calibration" in (tmp_path / "report.md").read_text()
    listed = json.loads(call("third", store, "ls", "--json").stdout)
    assert len(listed["artifacts"]) == first["steps"]["ran"]
    verified = json.loads(call("third", store, "verify", "--json").stdout)
    assert (verified["checked"], verified["damaged"]) == (first["steps"]["ran"], [])
    assert json.loads(call("third", store, "gc", "--dry-run", "--json").stdout)["removed"] == []
    call("third", store, "export", "latest", str(tmp_path / "run.tar"))
    assert "were already there" in call("fourth", store, "import", str(tmp_path / "run.tar")).stdout
    assert "the same" in call("third", store, "diff", "latest", "latest").stdout


def test_a_cached_rerun_loads_nothing_heavy(machine, filled, folder):
    program = (
        "import sys; sys.argv = ['vocabsem', 'run', 'workflow.yaml']\n"
        "from workflows.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **machine("first", filled[0])},
    )
    assert " 0 steps ran, " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_credentials_are_in_no_file(call, filled, server, folder):
    _, bucket, _ = filled
    here = [path for path in folder.rglob("*") if path.is_file()]
    assert len(here) > 50
    assert not [path for path in here if SECRET.encode() in path.read_bytes()]
    assert not [key for key, data in server.objects(bucket).items() if SECRET.encode() in data]


def test_a_damaged_object_is_named_and_made_anew(call, filled, server):
    bucket = server.new_bucket()
    store = f"s3://{bucket}/team/store"
    for key in server.keys(filled[1]):
        server.client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": filled[1], "Key": key})
    key = next(key for key in server.keys(bucket) if "/encode/" in key and key.endswith(".arrow"))
    data = bytearray(server.client.get_object(Bucket=bucket, Key=key)["Body"].read())
    data[len(data) // 2] ^= 4
    server.client.put_object(Bucket=bucket, Key=key, Body=bytes(data))
    found = call("healer", store, "verify", check=False)
    assert (found.returncode, f"damaged  s3://{bucket}/{key}" in found.stdout) == (1, True)
    assert "1 files damaged, 1 removed" in call("healer", store, "verify", "--repair").stdout
    planned = json.loads(call("healer", store, "plan", "workflow.yaml", "--json").stdout)["steps"]
    (left,) = [step for step in planned if step["state"] != "cached"]
    assert (left["state"], "is gone; run " in left["why"]) == ("run", True)


def test_two_drivers_at_once_leave_one_result(call, machine, server, folder):
    write(folder, "one.yaml", {**SMALL, "methods": ["affinity"]})
    bucket = server.new_bucket()
    store = f"s3://{bucket}/store"
    command = ("run", "one.yaml", "--executor", "inline", "--json")
    drivers = [cli_begun(folder, *command, **machine(name, store)) for name in ("left", "right")]
    done = [driver.end() for driver in drivers]
    assert [one.returncode for one in done] == [0, 0], "\n".join(one.stderr for one in done)
    first, second = (json.loads(one.stdout) for one in done)
    assert results(first) == results(second)
    verified = json.loads(call("judge", store, "verify", "--json").stdout)
    assert (verified["checked"], verified["damaged"]) == (first["steps"]["ran"] + first["steps"]["cached"], [])
    shards = {key: data for key, data in server.objects(bucket).items() if key.endswith(".arrow")}
    copies = [path for name in ("left", "right") for path in (folder / name).glob("*/store/*/*/*.arrow")]
    named = [(path.as_posix().partition("/store/")[2], path.read_bytes()) for path in copies]
    assert {name for name, _ in named} == {key.removeprefix("store/") for key in shards}, "each was made by one of them"
    assert all(shards[f"store/{name}"] == data for name, data in named)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"VOCABSEM_STORE": "s3://nothing/x"}, "error: s3://nothing/x: no bucket 'nothing' at http://127.0.0.1:"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "no S3 server answers at http://127.0.0.1:9 "),
        ({"AWS_ACCESS_KEY_ID": "", "HOME": "/nowhere"}, "no credentials; set AWS_ACCESS_KEY_ID"),
        ({"VOCABSEM_STORE": "s3://No/x"}, "expected s3://bucket/prefix"),
    ],
)
def test_bad_input_is_one_clear_error(call, filled, environment, told):
    done = call("fifth", filled[0], "run", "workflow.yaml", check=False, **environment)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert told in done.stderr
