"""The kind `pretrain`."""

from __future__ import annotations

from pathlib import Path

from workflows.config.pretrain import PretrainConfig
from workflows.errors import ConfigError
from workflows.findings import Checking
from workflows.inputs.catalog import find_task
from workflows.inputs.corpus import corpus_files, pieces
from workflows.inputs.tables import split_file
from workflows.kind import Names, WorkflowKind
from workflows.pretrain.graph import pretrain


def _names(config: PretrainConfig) -> Names:
    tasks = enumerate(config.evaluation.tasks)
    return Names(tasks=tuple((("evaluation", "tasks", index), name) for index, name in tasks))


def _check(config: PretrainConfig, checking: Checking) -> None:
    """Read every file of the corpus, and look for the tasks whose texts are measured."""
    findings = checking.findings
    with checking.field():
        characters = 0
        for file in corpus_files(config.corpus, checking.base):
            with findings.collecting():
                characters += sum(map(len, pieces(file)))
        findings.notes.append(f"the corpus has {characters:,} characters")
    for place, reference in _names(config).tasks:
        with checking.field(*place):
            split_file(find_task(reference, checking.base, checking.data_dir, findings.problems), "test")


def _files(config: PretrainConfig, base: Path) -> list[Path]:
    """Of the corpus; an absolute path is the cluster's own."""
    local = tuple(name for name in config.corpus.files if not Path(name).is_absolute())
    if config.corpus.hub is not None or not local:
        return []
    return corpus_files(config.corpus.model_copy(update={"files": local}), base)


def _check_submission(config: PretrainConfig) -> None:
    """The folder of a job goes with the job, and a model that is written to it."""
    if config.output is None or not config.output.is_absolute():
        raise ConfigError(
            f"output: found {str(config.output) if config.output else 'none'}; the folder of a job goes with the job, "
            "so give an absolute path that every node sees",
            ("output",),
        )


PRETRAIN = WorkflowKind("pretrain", PretrainConfig, pretrain, _names, _check, _files, _check_submission)
