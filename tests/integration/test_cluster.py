"""Jobs on a real cluster of two nodes: sent, watched, left, stopped, sent again; and what a cluster may lack."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.integration.cluster import TwoNodes, driver, two_nodes
from tests.integration.workspace import REPOSITORY, WORKFLOW, cli, cli_begun, make_workspace, write
from tests.s3_server import s3_server

METHOD = """
import time
from pathlib import Path
from workflows.methods.base import Method

class Patient(Method):
    name, needs = "patient", frozenset()

    def fit(self, settings, materials, seed):
        Path({flag!r} + ".begun").touch()
        while not Path({flag!r}).exists():
            time.sleep(0.2)
        return {{}}

    def predict(self, settings, fitted, states, materials):
        return states[:, :2]
"""
SMALL = {**WORKFLOW, "models": ["reference-1m"], "methods": ["affinity"]}


@pytest.fixture(scope="module")
def server():
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, server):
    """Of its nodes, each keeps copies of a bucket of its own, where this machine can hide a folder from one of them."""
    folder = tmp_path_factory.mktemp("cluster")
    with two_nodes(folder, {**server.environment, "VOCABSEM_CACHE": str(folder / "hidden" / "copies")}) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("jobs"))
    write(folder, "workflow.yaml", SMALL)
    return folder


@pytest.fixture
def call(cluster, folder):
    """Run a command of ours against the cluster, as somebody on another machine would."""

    def run(*arguments, check=True, **environment):
        given = {**cluster.environment, "RAY_ADDRESS": cluster.jobs, **environment}
        return cli(folder, *arguments, check=check, **given)

    return run


def test_a_job_is_sent_followed_listed_and_sent_again(call, server, tmp_path):
    """It fills a bucket that each node reads for itself."""
    store = f"s3://{server.new_bucket()}/team"
    first = call("submit", "workflow.yaml", "--follow", "--store", store)
    assert "preflight: 2 nodes see the store and run the same versions" in first.stdout
    assert re.search(r"run [0-9a-f]{16}: \d+ steps ran, 0 cached, 0 failed", first.stdout)
    assert re.search(r"sends 4 files of yours \(.* kB\) and \d+ files of VocabSem \(.* MB\)", first.stderr)
    job = re.search(r"job (workflow-[0-9a-f]{8}-1) is submitted", first.stderr)[1]
    assert first.stderr.endswith(f"job {job} succeeded\n")
    again = json.loads(call("submit", "workflow.yaml", "--json", "--store", store).stdout)
    assert (again["job"], again["new"]) == (f"{job[:-1]}2", True)
    assert "0 steps ran" in call("logs", again["job"], "--follow").stdout
    listed = json.loads(call("jobs", "--json").stdout)["jobs"]
    assert [(entry["job"], entry["status"], entry["exit_code"]) for entry in listed[:2]] == [
        (again["job"], "SUCCEEDED", 0),
        (job, "SUCCEEDED", 0),
    ]
    assert call("logs", job).stdout == first.stdout
    assert f"{job}  SUCCEEDED     0" in call("jobs").stdout
    here = {**server.environment, "VOCABSEM_CACHE": str(tmp_path)}
    verified = json.loads(call("verify", "--store", store, "--json", **here).stdout)
    assert (verified["checked"] > 5, verified["damaged"]) == (True, [])


def test_a_job_is_left_and_found_again_not_doubled_stopped_and_goes_on(call, cluster, folder, tmp_path):
    flag = tmp_path / "go"
    (folder / "patient.py").write_text(METHOD.format(flag=str(flag)))
    write(folder, "patient.yaml", {**SMALL, "methods": ["affinity", "patient.py"]})
    write(folder, "before.yaml", SMALL)  # what is there, the job has not to make
    place = ["--store", str(tmp_path / "store")]
    cli(folder, "run", "before.yaml", "--executor", "inline", *place, "--mlflow", f"sqlite:///{tmp_path}/before.db")
    submit = ["submit", "patient.yaml", *place]
    following = cli_begun(folder, *submit, "--follow", "--address", cluster.jobs, **cluster.environment)
    following.wait_for(flag.with_suffix(".begun").exists)
    following.send(signal.SIGINT)
    left = following.end()
    assert left.returncode == 130
    job = re.search(r"job (patient-[0-9a-f]{8}-1) continues\. Follow it with:  vocabsem logs", left.stderr)[1]
    assert "Traceback" not in left.stderr

    same = json.loads(call(*submit, "--json").stdout)
    assert (same["job"], same["status"], same["new"]) == (job, "RUNNING", False)
    assert f"job {job} STOPPED; submit its file again" in call("stop", job).stdout
    last_words = call("logs", job).stdout
    assert "are done and kept; in progress:\n  fit reference-1m small patient seed 0" in last_words
    assert "submit the file again." in last_words  # its own command is of a copy that went with the job
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]
    assert "has already ended (STOPPED)" in call("stop", job).stdout
    ended = call("logs", job, "--follow", check=False)
    assert (ended.returncode, "it was stopped" in ended.stderr) == (1, True)

    flag.touch()
    done = call(*submit, "--follow")
    assert "4 steps ran" in done.stdout  # fit and score of `patient`, its test and the best of both: all else was kept
    assert f"job {job[:-1]}2 succeeded" in done.stderr


def test_bad_input_within_a_job_ends_it_with_status_2(call, folder, tmp_path):
    write(folder, "absent.yaml", {**SMALL, "tasks": ["/nowhere/task.yaml"]})
    done = call("submit", "absent.yaml", "--follow", "--store", str(tmp_path / "store"), check=False)
    assert done.returncode == 2
    assert "error: " in done.stdout
    assert "/nowhere/task.yaml" in done.stdout
    assert "Traceback" not in done.stdout
    assert "exit status 2" in done.stderr


def test_a_relative_store_is_refused_before_anything_is_sent(call):
    done = call("submit", "workflow.yaml", check=False)
    assert done.returncode == 2
    assert "relative to the job's folder, which is removed with the job" in done.stderr
    done = call("submit", "workflow.yaml", "--store", "/s", "--mlflow", "sqlite:///here.db", check=False)
    assert "a relative file would be removed with the job" in done.stderr


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RAY_ADDRESS": "http://127.0.0.1:9"}, "no Ray job server answers at http://127.0.0.1:9"),
        ({"RAY_ADDRESS": ""}, "no cluster given; use --address"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is not set to `token`"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "/nowhere/token holds none"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "the token is not the cluster's"),
    ],
)
def test_a_wrong_address_or_token_is_one_clear_error(call, environment, told):
    done = call("jobs", check=False, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_job_is_told(call):
    for verb in ("logs", "stop"):
        done = call(verb, "nothing-1", check=False)
        assert (done.returncode, done.stderr.startswith("error: no job 'nothing-1'")) == (2, True)


def test_preflight_names_all_that_is_missing_at_once(call, cluster, folder, tmp_path):
    if cluster.hidden is None:
        pytest.skip("this machine lets no process have another view of a folder (unshare --mount)")
    store = cluster.hidden / "store"
    asked = {"resources": {"encode": {"memory_gb": 9999}}}
    write(folder, "lacking.yaml", {**SMALL, "execution": asked})
    options = ["--store", str(store), "--mlflow", "http://127.0.0.1:9"]
    done = call("submit", "lacking.yaml", "--follow", *options, check=False)
    assert done.returncode == 2, done.stdout
    assert "error: " in done.stdout
    first, *missing = done.stdout[done.stdout.index("error: ") :].splitlines()
    assert first == "error: the cluster is not ready, nothing was run; 3 things are missing:"
    assert missing[0].startswith("  MLflow at http://127.0.0.1:9 cannot be written from the driver. Start it")
    assert "9999.0 GB of one node" in missing[1]
    assert re.match(rf"  node .*: no folder {store} for the store\. Mount", missing[2])
    assert not list(store.glob("scratch/preflight/*"))
    assert not list(store.glob("*/*/COMMITTED"))


BUCKET = """
from orchestration.execution.scheduler import run_plan
from orchestration.runs.plan import make_plan
from orchestration.ray_backend.engine import RayEngine
from orchestration.store.artifacts import open_store
from tests.integration.placed import shards_seen
from tests.orchestration.steps import squares, total

store, quiet = open_store(sys.argv[1]), lambda *_: None
there, anywhere = shards_seen(sys.argv[2], 4, 0, 1, 2), squares(4)
states = []
def run(step):
    outcomes = run_plan(make_plan([step], store), lambda: RayEngine(store, quiet), quiet)
    states.extend(outcome.state for outcome in outcomes.values())
run(there)
found = store.find(there)
here = [path.name for path in found.folder.glob('*.arrow')]
run(total(anywhere, there))
nodes = {numerics['node'] for numerics in found.manifest['numerics']}
gpu_node = next(node['NodeID'] for node in ray.nodes() if node['Resources'].get('GPU'))
print(json.dumps([states, here, nodes == {gpu_node},
                  len(found.shards()), store.find(total(anywhere, there)).json('total.json')]))
"""


def test_shards_that_another_node_put_into_a_bucket_are_committed_from_here(cluster, server, tmp_path):
    if cluster.hidden is None:
        pytest.skip("this machine lets no process have another view of a folder (unshare --mount)")
    given = {**server.environment, "VOCABSEM_CACHE": str(cluster.hidden / "copies")}
    store = f"s3://{server.new_bucket()}/team"
    seen = driver(replace(cluster, environment={**cluster.environment, **given}), BUCKET, store, str(tmp_path / "log"))
    assert json.loads(seen.splitlines()[-1]) == [["ran", "cached", "ran", "ran"], [], True, 4, 0 + 1 + 4 + 9.0]


def test_a_frozen_node_is_named_instead_of_waited_for(cluster: TwoNodes, tmp_path):
    program = (
        "from pathlib import Path\n"
        "from orchestration.errors import ClusterError\n"
        "from orchestration.ray_backend.preflight import Needs, preflight\n"
        "needs = Needs(Path(sys.argv[1]), [], ('orchestration',))\n"
        "try: print(preflight(needs, {}, seconds=float(sys.argv[2])))\n"
        "except ClusterError as error: print(error)\n"
    )
    assert driver(cluster, program, str(tmp_path), "60").startswith("preflight: 2 nodes see the store")
    with cluster.frozen_node():
        told = driver(cluster, program, str(tmp_path), "20")
    assert "1 thing is missing" in told
    assert re.search(r"node \S+ \(\w{6}\) gave no answer within 20 s\. It is frozen", told)


PLACED = """
from pathlib import Path
from orchestration.execution.scheduler import run_plan
from orchestration.runs.plan import make_plan
from orchestration.ray_backend.engine import RayEngine
from orchestration.store.artifacts import open_store
from tests.integration.placed import greedy, seen, shards_seen

store, quiet = open_store(Path(sys.argv[1]) / 'store'), lambda *_: None
folder = sys.argv[1]
sharded = {'half': shards_seen(folder + '/half', 12, 0, 0.5, 4), 'none': shards_seen(folder + '/none', 2, 0, 0, 1)}
plain = [seen(f'plain {i}') for i in range(3)]
plan = make_plan([*sharded.values(), *plain, greedy()], store)
outcomes = run_plan(plan, lambda: RayEngine(store, quiet, reserves={'greedy': {'memory': 100_000_000}}), quiet)
shards = {name: sorted(store.find(step).folder.glob('part-*.json')) for name, step in sharded.items()}
places = {name: [json.loads(path.read_text())['numerics'] for path in paths] for name, paths in shards.items()}
places['plain'] = [store.find(step).json('seen.json') for step in plain]
gpu_node = next(node['NodeID'] for node in ray.nodes() if node['Resources'].get('GPU'))
failed = outcomes[greedy().key]
print(json.dumps({**places, 'gpu_node': gpu_node, 'failed': [failed.state, failed.error, failed.exit_code]}))
"""


@pytest.fixture(scope="module")
def placed(cluster, tmp_path_factory):
    return json.loads(driver(cluster, PLACED, str(tmp_path_factory.mktemp("placed"))).splitlines()[-1])


def test_workers_share_gpus_in_fractions_where_gpus_are(placed):
    assert {place["node"] for place in placed["half"]} == {placed["gpu_node"]}
    assert {place["gpus"] for place in placed["half"]} == {"0", "1"}
    assert len({place["process"] for place in placed["half"]}) == 4


def test_what_reserves_no_gpu_sees_none_wherever_it_runs(placed):
    assert {place["gpus"] for place in (*placed["none"], *placed["plain"])} == {""}


def test_a_step_beyond_its_memory_fails_and_names_the_setting(placed):
    assert placed["failed"] == [
        "failed",
        "greedy needs more memory than its limit of 0.1 GB (execution.resources.greedy.memory_gb); raise the limit",
        1,
    ]


GROWN = """
import json, logging, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from orchestration.execution.scheduler import run_plan
from orchestration.runs.plan import make_plan
from orchestration.ray_backend.engine import RayEngine
from orchestration.store.artifacts import open_store
from tests.integration.placed import shards_seen

options = {'num_cpus': 1, 'object_store_memory': 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**options, 'include_dashboard': False})
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR,
         runtime_env={'env_vars': {'PYTHONPATH': sys.argv[2]}})
store, log = open_store(Path(sys.argv[1]) / 'store'), Path(sys.argv[1]) / 'log'
step = shards_seen(str(log), 4, 1, 0, 2)
joined = []
def emit(kind, step, details):
    if kind == 'shard' and not joined:  # the first worker waits for the second, which has no room
        joined.append(log.read_text().count('start'))
        cluster.add_node(**options)
plan = make_plan([step], store)
outcomes = run_plan(plan, lambda: RayEngine(store, emit), lambda *_: None)
print(json.dumps([outcomes[step.key].state, joined, log.read_text().split().count('start')]))
ray.shutdown()
cluster.shutdown()
"""


def test_workers_without_room_wait_and_take_their_part_when_a_node_joins(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", GROWN, str(tmp_path), str(REPOSITORY)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["ran", [1], 2]
