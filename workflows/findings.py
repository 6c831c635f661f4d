"""What is found of a workflow file without running it, and how the checks of its kind tell it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.errors import exit_code_of
from workflows.config.yaml_file import naming_lines
from workflows.errors import in_field


@dataclass(frozen=True)
class Words:
    """The label words of a task under a model: label -> its tokens as text."""

    model: str
    rule: str
    tokens: Mapping[str, list[str]]


@dataclass(frozen=True)
class Checked:
    """One task: split -> label -> rows that a run would use, and its words under each model."""

    task: str
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    words: list[Words] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """What was found. `notes` are worth knowing and stop nothing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tasks: list[Checked] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """A user's mistake becomes a problem, or several, each told once; what follows it in the block is left out."""
        try:
            yield
        except Exception as error:
            if exit_code_of(error) != 2:
                raise
            self.problems.extend(line for line in str(error).splitlines() if line not in self.problems)


@dataclass(frozen=True)
class Checking:
    """A workflow file that is checked.

    Attributes:
        data_dir: the folder of `--data-dir`.
        findings: where each check adds what it finds.
    """

    file: Path
    data_dir: Path | None
    findings: Findings

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self.file.parent.resolve()

    @contextmanager
    def field(self, *place: str | int) -> Iterator[None]:
        """A mistake within is about this field of the file: it becomes a problem that names the line."""
        with self.findings.collecting(), naming_lines(self.file), in_field(*place):
            yield
