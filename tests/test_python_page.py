"""The Python page and the notebook run as they stand, with the bundled model, in an empty folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from orchestration.tracking.tracker import TrackingError

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no display, and no MLflow: it is slow to start, and other tests have it."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workflows.session.fill", away)
    mpl.use("agg")


def test_every_snippet_of_the_page_runs(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(code, "docs/python.md", "exec"), names)
    assert names["result"].counts == {"ran": 21, "cached": 0, "failed": 0}
    assert tuple(names["array"].shape) == (60, 256)
    assert names["dataset"].column_names == ["row_id", "label", "head"]
    assert names["earlier"].run_id == names["result"].run_id
    assert not names["tested"].failures
    assert (tmp_path / ".vocabsem" / "store").is_dir()


def test_the_notebook_runs() -> None:
    notebook = json.loads((REPOSITORY / "examples" / "python.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        assert not cell["outputs"], "the notebook is kept without outputs"
        exec(compile("".join(cell["source"]), "examples/python.ipynb", "exec"), names)
    assert not names["result"].failures
    assert names["points"].shape == (60, 2)
