"""What a report reads of the store, where something is wrong with it."""

from __future__ import annotations

from pathlib import Path

from orchestration.graph import Step
from tests.workflows.report.made_up import record_of
from workflows.report.contents import read_contents


def test_a_damaged_artifact_costs_its_versions_and_no_report(tmp_path: Path) -> None:
    record, store = record_of(tmp_path)
    steps = [Step("encode", f"encode {number}", 1, "nowhere:nothing", {"number": number}) for number in range(2)]
    for step in steps:
        writer = store.writer(step)
        writer.begin()
        writer.commit({"python": "3", "packages": {}})
    graph = record.read("graph.json")
    lines = [{"label": one.label, "key": one.key, "step": "encode", "inputs": {}} for one in steps]
    record.write("graph.json", {**graph, "steps": lines})
    found = store.find(steps[0])
    assert found is not None
    provenance = found.folder / "provenance.json"
    provenance.chmod(0o644)
    provenance.write_bytes(provenance.read_bytes()[:-3])
    assert [count for _, count in read_contents(record, store).versions] == [1]
