"""`python -m tests.benchmarks NAME [--json] [--data-dir DIR] [--model FOLDER]`: ours beside the usual way."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

Name = Literal[
    "basis",
    "encode",
    "finetune",
    "overhead",
    "predict",
    "pretrain",
    "rerun",
    "serve",
    "shards",
    "sweep",
    "vocabulary",
    "workers",
]
TAKES_MODEL = ("encode", "finetune", "vocabulary")


def main(
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document for each case.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="encode: take prompts from DIR/agnews/test.jsonl.")] = None,
    model: Annotated[Path | None, typer.Option(help="encode, finetune, vocabulary: take this model folder.")] = None,
) -> None:
    """Run one benchmark. Exit status 1 if a case misses its goal."""
    if model is not None and name not in TAKES_MODEL:
        raise typer.BadParameter(f"{name} takes no --model; {', '.join(TAKES_MODEL)} do")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MLFLOW_DISABLE_TELEMETRY="true")
    missed = False
    for case in importlib.import_module(f"tests.benchmarks.{name}").cases(
        data_dir, **({"model": model} if model else {})
    ):
        print(case.line() if as_json else case.text(), flush=True)
        missed |= not case.passed
    raise typer.Exit(int(missed))


if __name__ == "__main__":
    typer.run(main)
