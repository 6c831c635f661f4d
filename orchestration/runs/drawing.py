"""Graphs as text: trees for a terminal, flowcharts for Mermaid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestration.graph import Step
from orchestration.runs.plan import Planned

_ABOVE = "   (as above)"
# Told apart in grey too: light, white with a thick border, dark with a dashed one; each node also says its state.
_STYLES = {
    "cached": "fill:#e8e8e8,stroke:#777777,color:#000000",
    "run": "fill:#ffffff,stroke:#000000,stroke-width:3px,color:#000000",
    "blocked": "fill:#4d4d4d,stroke:#000000,stroke-dasharray:5 3,color:#ffffff",
}
_ESCAPES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;", "\n": " "}


@dataclass(frozen=True)
class Branch:
    """A node of a tree: its text, and what hangs below it."""

    text: str
    below: Sequence[Branch] = ()


def lines_of(root: Branch) -> list[str]:
    """A tree, one line a node."""
    lines = [root.text]
    for place, branch in enumerate(root.below):
        last = place == len(root.below) - 1
        first, *rest = lines_of(branch)
        lines.append(f"{'└─' if last else '├─'} {first}")
        lines += [f"{'  ' if last else '│ '} {line}" for line in rest]
    return lines


def plan_tree(targets: Iterable[Step], plan: Sequence[Planned]) -> str:
    """The plan as trees, from each target down to what it reads. A step with inputs is unfolded once."""
    states = {planned.step.key: planned.state for planned in plan}
    seen: set[str] = set()
    return "\n".join(line for target in targets for line in lines_of(_branch(target, states, seen)))


def _branch(step: Step, states: Mapping[str, str], seen: set[str]) -> Branch:
    text = f"{step.label}   [{states[step.key]}]"
    if step.key in seen:
        return Branch(text + _ABOVE)
    seen.add(step.key)
    return Branch(text, [_branch(step.inputs[role], states, seen) for role in sorted(step.inputs)])


def plan_mermaid(plan: Sequence[Planned]) -> str:
    """The plan as a Mermaid flowchart, inputs on the left."""
    nodes = {planned.step.key: f"s{number}" for number, planned in enumerate(plan)}
    boxes = [f'  {nodes[p.step.key]}["{_escaped(p.step.label)}<br/>{p.state}"]:::{p.state}' for p in plan]
    arrows = [
        f"  {nodes[source]} --> {nodes[p.step.key]}"
        for p in plan
        for source in dict.fromkeys(step.key for _, step in sorted(p.step.inputs.items()))
    ]
    styles = [f"  classDef {state} {style}" for state, style in _STYLES.items()]
    return "\n".join(["flowchart LR", *boxes, *arrows, *styles])


def _escaped(label: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in label)
