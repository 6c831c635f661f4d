"""`python -m tests.benchmarks NAME [--json] [--data-dir DIR]`: ours against the usual way, side by side."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

NAMES = ("basis", "encode", "shards", "rerun", "pretrain", "sweep", "workers")


def main() -> int:
    """Run one benchmark; 1 where a case misses its goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="one JSON document a line for each case")
    parser.add_argument("--data-dir", type=Path, help="encode: take prompts from DIR/agnews/test.jsonl")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", MLFLOW_DISABLE_TELEMETRY="true")
    missed = False
    for case in importlib.import_module(f"tests.benchmarks.{given.name}").cases(given.data_dir):
        print(case.line() if given.json else case.text(), flush=True)
        missed |= not case.passed
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
