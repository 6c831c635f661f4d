"""The modules whose source is watched for change are there: an installed version of another layout hides no mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.methods.registry import METHODS, method_named

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("name", METHODS)
def test_the_watched_modules_of_a_method_are_in_the_checkout(name: str) -> None:
    for module in method_named(name).sources:
        assert (REPOSITORY / module.replace(".", "/")).with_suffix(".py").is_file(), module
