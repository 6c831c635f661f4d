"""The error of this package: a user's file or argument that cannot be used."""


class ConfigError(Exception):
    """Says the file, the line, the field, what was found, what was expected and what to do."""

    exit_code = 2


def nearest(name: str, known: list[str]) -> str:
    """A hint for a misspelt name: the nearest right one, or all of them."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
