"""Commands of the store say how far they are."""

import re
import time

from workflows.cli.progress import progress_lines
from workflows.runtime import pace


def test_lines_say_how_much_is_done(monkeypatch, capsys):
    for name in ("LOOK_SECONDS", "FIRST_SECONDS", "NEXT_SECONDS"):
        monkeypatch.setattr(pace, name, 0.01)
    with progress_lines("verify", "folders") as told:
        told(3, 12)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert all(re.match(r"verify: 3 of 12 folders|verify: 0 s so far", line) for line in lines)


def test_a_short_command_says_nothing(capsys):
    with progress_lines("verify", "folders") as told:
        told(3, 12)
    assert capsys.readouterr().err == ""
