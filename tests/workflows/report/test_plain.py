"""The tables as Markdown and LaTeX, and where reports are written."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workflows.report.made_up import METHODS, MODELS, SIZES, TASKS, averaged, found, record_of, results
from workflows.errors import ConfigError
from workflows.report.contents import read_contents
from workflows.report.files import write_report, write_reports
from workflows.report.plain import escaped, latex, markdown


def test_markdown_has_every_score_comparison_and_cost(tmp_path: Path) -> None:
    text = markdown(read_contents(*record_of(tmp_path)))
    result, _ = found()
    assert f"{result.mean:.3f} ({result.low:.3f} to {result.high:.3f}) ▲" in text
    assert "| small | topics | knn_50% | calibration | +0.070 | +0.050 to +0.090 | <0.001 | 0.004 | better |" in text
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(tables) == 2 + len(MODELS) * (3 + len(TASKS)) + 1 + 2
    model = next(iter(MODELS))
    head, _, *curves = next(table for table in tables if table.startswith(f"| {TASKS[0]}, {model}")).splitlines()
    assert head == f"| {TASKS[0]}, {model} | {' | '.join(map(str, SIZES))} |"
    assert [row.split(" | ")[0][2:] for row in curves] == list(reversed(METHODS))
    (untrained,) = (row for row in curves if row.startswith("| zero-shot"))
    largest_alone = r"\| zero-shot \|(  \|)+ [\d.]+ \([\d.]+ to [\d.]+\) ○ \|"
    assert re.fullmatch(largest_alone, untrained)
    costs = next(table for table in tables if table.startswith(f"| seconds from stored states, {model}"))
    assert "| calibration | 8.8 | 8.8 | 8.8 |" in costs  # search and fit
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_latex_is_escaped_and_every_row_has_as_many_columns(tmp_path: Path) -> None:
    text = latex(read_contents(*record_of(tmp_path)))
    assert r"knn\_50\%" in text
    assert r"a<b>\&c" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    rows = [line for line in text.splitlines() if line.rstrip().endswith(r"\\") and " & " in line]
    assert len(rows) == 2 * 4
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {5}
    (columns,) = set(re.findall(r"\\begin\{tabular\}\{(\w+)\}", text))
    assert len(columns) == 6
    for line in text.splitlines()[1:]:  # the first is a comment
        assert not re.search(r"(?<!\\)[#%_]", line)


def test_latex_is_escaped_in_heads_and_remarks_too(tmp_path: Path) -> None:
    result, detail = found(method="zero-shot")
    text = latex(read_contents(*record_of(tmp_path, [(replace(result, task="my_task"), detail)])))
    assert r"method & my\_task & seconds & remarks \\" in text
    assert r"& one class predicted throughout: my\_task \\" in text
    assert not re.search(r"(?<!\\)_", text.partition("\n")[2])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a_b & 5 % #1 $x {y}", r"a\_b \& 5 \% \#1 \$x \{y\}"),
        ("\\~^", r"\textbackslash{}\textasciitilde{}\textasciicircum{}"),
    ],
)
def test_each_special_letter_is_escaped(words: str, expected: str) -> None:
    assert escaped(words) == expected


def test_a_run_leaves_two_reports_in_its_record(tmp_path: Path) -> None:
    record, store = record_of(tmp_path)
    write_reports(record, store, results())
    assert (record.folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (record.folder / "report.md").read_text(encoding="utf-8").startswith("# 3 methods on 2 tasks")
    assert not list(record.folder.glob(".tmp*"))


def test_a_report_needs_neither_torch_nor_mlflow_nor_matplotlib(tmp_path: Path) -> None:
    import subprocess

    record, store = record_of(tmp_path)
    program = (
        "import sys; from pathlib import Path\n"
        "from orchestration.runs.record import RunRecord; from orchestration.store.artifacts import Store\n"
        "from workflows.report.files import write_reports\n"
        "from workflows.results.model import read_stored\n"
        f"record = RunRecord({record.run_id!r}, Path({str(record.folder)!r}))\n"
        "results = read_stored(record.read('results.json'))\n"
        f"write_reports(record, Store(Path({str(store.root)!r})), results)\n"
        "print([name for name in ('torch', 'mlflow', 'ray', 'matplotlib', 'scipy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_that_has_no_results_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no results yet; run its workflow again"):
        read_contents(*record_of(tmp_path, lines=[]))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    record, store = record_of(tmp_path)
    with pytest.raises(ConfigError, match="no folder"):
        write_report(record, store, "latex", tmp_path / "nowhere" / "table.tex")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(record, store, "latex", tmp_path / "taken")


def test_curves_begin_with_means_and_leads_over_tasks(tmp_path: Path) -> None:
    text = markdown(read_contents(*record_of(tmp_path)))
    means = text[text.index("| mean over tasks, large | 4 | 16 | full |") :]
    mean, low, high = averaged("large", "knn_50%")
    assert means[: means.index("\n\n")].count(f"{mean:.3f} ({low:.3f} to {high:.3f}) |") == 1
    leads = text[text.index("| lead over calibration, mean over tasks, large |") :]
    between = math.hypot(0.02, 0.02) / 2
    assert f"| knn_50% |  |  | +0.070 ({0.07 - between:+.3f} to {0.07 + between:+.3f}) |" in leads


def test_a_remark_that_differs_between_tasks_is_told_of_each(tmp_path: Path) -> None:
    lines = [found(task=task, method=method) for task in TASKS for method in METHODS]
    read = [replace(detail, unlabelled_rows=300 + 60 * (result.task == TASKS[0])) for result, detail in lines]
    given = [(result, one) for (result, _), one in zip(lines, read, strict=True)]
    text = markdown(read_contents(*record_of(tmp_path, given)))
    assert "| reads 360 rows without their labels; reads 300 rows without their labels |" in text
