"""What is written of a run for MLflow, without MLflow (tests/integration/test_tracking.py has it)."""

from __future__ import annotations

import pytest

from orchestration.tracking.mlflow_client import note


def test_a_short_note_stands_as_it_is():
    assert note("a\nb") == {"mlflow.note.content": "```\na\nb\n```"}


@pytest.mark.parametrize("length", [7992, 7993, 8000, 20_000])
def test_a_long_note_ends_with_a_whole_line_and_says_so(length):
    text = ("x" * 99 + "\n") * (length // 100) + "y" * (length % 100)
    (found,) = note(text).values()
    assert len(found) <= 8000  # MLflow's limit of a tag
    assert found.startswith("```\n")
    assert found.endswith("\n```")
    inside = found[4:-4]
    if len(text) <= 7992:
        assert inside == text
    else:
        *lines, last = inside.splitlines()
        assert set(lines) == {"x" * 99}
        assert last == "... more in the run's artifacts"
