"""gc, verify --repair, export and import as they are typed."""

import json
import shutil

from tests.integration.workspace import cli


def store_json(store, *arguments):
    return json.loads(cli(store.parent, *arguments, "--store", str(store), "--json").stdout)


def test_gc_finds_nothing_to_remove_after_a_run(own_store):
    found = store_json(own_store, "gc")
    assert [one for one in found["removed"] if one["kind"] != "scratch"] == []


def test_gc_shows_removes_and_reports_sizes(own_store):
    shutil.rmtree(own_store / "runs")
    (own_store / "runs").mkdir()
    shown = store_json(own_store, "gc", "--dry-run")
    assert shown["bytes"] == sum(one["bytes"] for one in shown["removed"]) > 0
    assert store_json(own_store, "gc", "--older-than", "1d")["removed"] == []
    text = cli(own_store.parent, "gc", "--store", str(own_store)).stdout.splitlines()
    assert len(text) == len(shown["removed"]) + 1
    assert text[-1] == f"{len(shown['removed'])} removed, {shown['bytes']:,} bytes"
    assert store_json(own_store, "ls")["artifacts"] == []


def test_what_gc_is_asked_wrongly_is_one_line_and_status_2(own_store):
    for arguments, told in (
        (["--keep", "0123456789"], "no run '0123456789'"),
        (["--older-than", "soon"], "expected a number and d, h or m, such as 30d"),
    ):
        done = cli(own_store.parent, "gc", *arguments, "--store", str(own_store), check=False)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


def test_repair_removes_what_is_damaged_and_the_next_run_makes_it(finished, own_store):
    folder, document = finished
    (victim,) = own_store.glob("basis/*/part-00000.arrow")
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    seen = cli(own_store.parent, "verify", "--store", str(own_store), check=False)
    assert seen.returncode == 1
    assert "vocabsem verify --repair" in seen.stdout
    repaired = cli(own_store.parent, "verify", "--repair", "--store", str(own_store))
    assert "the next run recomputes it: basis reference" in repaired.stdout
    again = cli(folder, "run", "workflow.yaml", "--executor", "inline", "--store", str(own_store), "--json")
    assert json.loads(again.stdout)["steps"] == {"ran": 1, "cached": document["steps"]["ran"] - 1, "failed": 0}
    assert store_json(own_store, "verify")["damaged"] == []


def test_a_run_travels_to_another_store_and_is_cached_there(finished, own_store, tmp_path):
    folder, document = finished
    told = store_json(own_store, "export", "latest", str(tmp_path / "run.tar"))
    assert told["artifacts"] == document["steps"]["ran"]
    assert store_json(tmp_path / "there", "import", str(tmp_path / "run.tar"))["artifacts"] == told["artifacts"]
    again = cli(folder, "run", "workflow.yaml", "--executor", "inline", "--store", str(tmp_path / "there"), "--json")
    found = json.loads(again.stdout)
    assert found["steps"]["ran"] == 0
    assert found["results"] == document["results"]


def test_a_foreign_archive_is_one_line_and_status_2(own_store, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no tar")
    done = cli(tmp_path, "import", "x.tar", "--store", str(own_store), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: x.tar: ")
    assert done.stderr.count("\n") == 1
