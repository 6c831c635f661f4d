"""How much chaos: a few seeds of each kind by default, all of them with VOCABSEM_CHAOS=full (`make chaos`)."""

import os
from collections import defaultdict

import pytest

FULL = os.environ.get("VOCABSEM_CHAOS") == "full"
_chronicle: dict[str, list[tuple[int, int]]] = defaultdict(list)


def seeds(short: int, full: int) -> range:
    """Fixed seeds of random moments."""
    return range(full if FULL else short)


@pytest.fixture
def chronicle():
    """Note what was done, how often, and how many pieces of work were done again for it."""

    def note(what: str, times: int, repeated: int) -> None:
        _chronicle[what].append((times, repeated))

    return note


def pytest_terminal_summary(terminalreporter):
    """The table of docs/reliability.md, of what this run did."""
    if not _chronicle:
        return
    terminalreporter.section("chaos")
    head = ("what was done", "runs", "times", "pieces of work done again, in all", "at most in a run")
    terminalreporter.line("| " + " | ".join(head) + " |")
    terminalreporter.line("| --- " * len(head) + "|")
    for what, told in sorted(_chronicle.items()):
        repeated = [again for _, again in told]
        row = (what, len(told), sum(count for count, _ in told), sum(repeated), max(repeated))
        terminalreporter.line("| " + " | ".join(map(str, row)) + " |")
