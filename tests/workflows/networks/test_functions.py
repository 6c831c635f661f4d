"""A user's function that raises or returns the wrong thing is told with file and line, as bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.errors import exit_code_of
from workflows.errors import ConfigError
from workflows.inputs.network_sources import open_network
from workflows.inputs.row_files import read_columns

HEAD = """import torch
from torch import nn
from vocabsem import Network

LINEAR, TWO = nn.Linear(2, 3), torch.zeros(2)

def read(row):
    return torch.zeros(2)

"""
BAD = {
    "def net():\n    raise ValueError('no weights')": r"net.py, line 11: net\(\): ValueError: no weights",
    "def net():\n    return nn.Linear(2, 3)": r"net.py:net: returned Linear; expected a vocabsem.Network",
    "def net():\n    return Network(1, read, TWO)": "its module is a int; expected a torch.nn.Module",
    "def net():\n    return Network(LINEAR, None, TWO)": "its read is a NoneType; expected a function",
    "def net():\n    return Network(LINEAR, read, (2,))": "its example is a tuple; expected a tensor",
    "def net():\n    return Network(LINEAR, read, torch.zeros(4))": r"net.py.*: its module: RuntimeError: .*shape",
    "def net():\n    return Network(LINEAR, read, TWO, ['a', 'b'])": "classes are a, b; expected 3 names",
    "def nett():\n    pass": r"no function 'net'; did you mean 'nett'\?",
    "def net(:": r"net.py, line 10: SyntaxError",
    "def net():\n    return Network(nn.Linear(2, 1), read, TWO)": "head '' has 1 class; expected two or more",
    "def net():\n    return Network(nn.Sequential(nn.Linear(2, 3), nn.Softmax(-1)), read, TWO)": (
        r"Sequential does not return what a linear layer gives: nothing may follow the head.*Its linear layers: '0'"
    ),
}


def network(folder: Path, text: str) -> Path:
    (folder / "net.py").write_text(HEAD + text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("text", BAD)
def test_a_function_that_gives_no_network(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=BAD[text]) as told:
        open_network("net.py:net", network(tmp_path, text))
    assert exit_code_of(told.value) == 2


def test_what_read_raises_or_returns_is_told_with_its_line_and_row(tmp_path: Path) -> None:
    lines = "def reads(row):\n    return row['z']\n\ndef net():\n    return Network(LINEAR, reads, TWO)\n"
    found = open_network("net.py:net", network(tmp_path, lines))
    with pytest.raises(ConfigError, match=r"net.py, line 11: reads\(\), row 7: KeyError: 'z'"):
        found.input_of({}, "row 7")
    with pytest.raises(ConfigError, match=r"net.py, line 10: reads\(\), row 7: the input is a list; expected a tensor"):
        found.input_of({"z": [1.0]}, "row 7")


def test_words_name_classes_each_once(tmp_path: Path) -> None:
    lines = "def net():\n    return Network(LINEAR, read, TWO)\n"
    found = open_network("net.py:net", network(tmp_path, lines))
    assert found.rows_of("t", {"a": "2", "b": "0"}) == {"a": 2, "b": 0}
    with pytest.raises(ConfigError, match=r"task 't': label 'b': .*net.py:net has no class '3'"):
        found.rows_of("t", {"a": "2", "b": "3"})
    with pytest.raises(ConfigError, match="labels 'a' and 'b' are both class '2'"):
        found.rows_of("t", {"a": "2", "b": "2"})


ROWS = {
    "def rows():\n    yield {'x': 1}\n    raise OSError('gone')": r"rows.py, line 3: rows\(\): OSError: gone",
    "def rows():\n    return 5": "rows.py:rows: returned int; expected an iterable of rows",
    "def rows():\n    return [1]": "rows.py:rows: row 1 is a int; expected a mapping of columns",
    "def rows():\n    return []": "rows.py:rows: contains no rows; expected one row or more",
    "def rows():\n    return [{'y': 1}]": "rows.py:rows: no column 'x'",
}


@pytest.mark.parametrize("text", ROWS)
def test_a_function_that_gives_no_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=ROWS[text]):
        read_columns(tmp_path / "rows.py:rows", ["x"])
