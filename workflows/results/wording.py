"""Numbers and verdicts as a reader sees them: the same in the terminal, on the page, and in Markdown."""

from __future__ import annotations

from workflows.results.model import Versus

LEVEL = "~"  # not shown to be worse than the best
CONTRADICTORY = (
    'An interval without 0 next to "no difference shown" is not a contradiction: the interval is for that '
    "comparison alone, while p is corrected for all comparisons of the run at this training size."
)


def interval(low: float, high: float) -> str:
    """An interval in three digits."""
    return f"{low:.3f} to {high:.3f}"


def score(mean: float, low: float, high: float) -> str:
    """A score with its interval."""
    return f"{mean:.3f} ({interval(low, high)})"


def verdict(versus: Versus) -> str:
    """A verdict in words, with the interval of the difference and p."""
    span = f"{versus.low:+.3f} to {versus.high:+.3f}"
    p = f"p {probability(versus.p_holm)}"
    if versus.verdict == "no difference shown":
        return f"no difference shown ({span}, {p})"
    return f"{versus.verdict} by {abs(versus.mean):.3f} ({span}, {p})"


def lead(versus: Versus) -> str:
    """The difference seen from the other method, with its interval and p."""
    return f"{-versus.mean:+.3f} ({-versus.high:+.3f} to {-versus.low:+.3f}, p {probability(versus.p_holm)})"


def looks_contradictory(versus: Versus) -> bool:
    """Whether no difference is shown, though the interval of the difference does not hold 0."""
    return versus.verdict == "no difference shown" and not versus.low <= 0 <= versus.high


def probability(p: float | None) -> str:
    """Three digits, or that it is below what they show."""
    return "not judged" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def seconds(value: float | None) -> str:
    """Of a step that is damaged or gone they are not known."""
    return "not recorded" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
