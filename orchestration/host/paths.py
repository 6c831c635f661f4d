"""Paths as people write them."""

from __future__ import annotations

import os
import re

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expanded(path: str) -> str:
    """A path with `~` or `~name` at its beginning replaced by that home folder.

    Raises ValueError for a shell variable and for an unknown home folder: a folder of that very name would be made.
    """
    if found := _VARIABLE.search(path):
        raise ValueError(f"{found[0]} is not replaced in a path; write the path out, or begin it with ~")
    home = os.path.expanduser(path)
    if home.startswith("~"):
        raise ValueError(f"no home folder {path.partition('/')[0]} is known; for a file of that name write ./{path}")
    return home
