"""A plan as JSON, and for a person to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.runs.plan import Planned
from orchestration.store.artifacts import Store
from workflows.runtime.estimates import Estimate, estimate, estimate_text


def plan_document(plan: Sequence[Planned], store: Store) -> dict[str, Any]:
    """Each step with its state and why, and what those to run will take."""
    steps = [{"name": p.step.label, "key": p.step.key, "state": p.state, "why": p.why} for p in plan]
    return {"steps": steps, "estimate": vars(estimate(plan, store))}


def plan_text(document: Mapping[str, Any], listed: bool) -> str:
    """The steps, where they are to be listed, their numbers, and the estimate."""
    steps = document["steps"] if listed else []
    lines = [f"{s['state']:8} {s['name']}" + (f"   because {s['why']}" if s["why"] else "") for s in steps]
    counts = Counter(step["state"] for step in document["steps"])
    lines.append(f"{counts['cached']} cached, {counts['run']} to run, {counts['blocked']} blocked")
    return "\n".join([*lines, *filter(None, [estimate_text(Estimate(**document["estimate"]))])])
