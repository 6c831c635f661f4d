"""Everything about a workflow file that can be checked without running it, and all that is wrong with it at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from workflows.config.yaml_file import read_workflow
from workflows.findings import Checked, Checking, Findings
from workflows.registry import WORKFLOWS, kind_of
from workflows.runtime.engines import check_reserves
from workflows.steps.registry import STEPS

_RULES = {"mean": "mean tokens", "whole": "whole words"}


def validate(path: Path, data_dir: Path | None) -> Findings:
    """Check a workflow file with all it names: tasks row by row, models by configuration and tokenizer alone."""
    checking = Checking(path, data_dir, Findings())
    with checking.findings.collecting():
        config = read_workflow(path, WORKFLOWS, checking.findings.problems)
        with checking.field():
            check_reserves(config.execution, STEPS)  # of all workflows: which this one has, only its graph says
        kind_of(config).check(config, checking)
    return checking.findings


def findings_document(path: Path, findings: Findings) -> dict[str, Any]:
    """What `validate --json` prints."""
    return {"file": str(path), "valid": not findings.problems, **asdict(findings)}


def findings_text(path: Path, findings: Findings) -> str:
    """What was found, for a person to read."""
    lines = [line for checked in findings.tasks for line in _task_lines(checked)]
    lines += [f"note     {note}" for note in findings.notes]
    lines += [f"problem  {problem}" for problem in findings.problems]
    count = len(findings.problems)
    return "\n".join([*lines, f"{count} problem{'s' * (count > 1)} in {path}" if count else "valid"])


def _task_lines(checked: Checked) -> list[str]:
    rows = [
        f"  {split:5} {sum(counts.values()):>9,} rows   {', '.join(f'{name} {n:,}' for name, n in counts.items())}"
        for split, counts in checked.rows.items()
    ]
    words = [
        f"  words of {found.model} ({_RULES.get(found.rule, f'{found.rule} token')}): "
        + ", ".join(f"{label} {' + '.join(map(repr, tokens))}" for label, tokens in found.tokens.items())
        for found in checked.words
    ]
    return [checked.task, *rows, *words]
