"""A tracker in memory: what it was told, as it was told."""

from dataclasses import dataclass, field

from orchestration.tracking.tracker import Heard, Shown, TrackedRun, unheard


@dataclass
class MemoryTracker:
    """`told`: the arguments of each `write`; `error`: what it raises instead."""

    name: str = "memory"
    told: list[tuple[str, TrackedRun, tuple[TrackedRun, ...]]] = field(default_factory=list)
    error: Exception | None = None

    def is_there(self) -> bool:
        return True

    def check_writable(self, experiment: str) -> None:
        if self.error:
            raise self.error

    def write(
        self, experiment: str, parent: TrackedRun, children: tuple[TrackedRun, ...] = (), heard: Heard = unheard
    ) -> Shown:
        self.check_writable(experiment)
        self.told.append((experiment, parent, children))
        return Shown(f"m{len(self.told)}", "#/x")

    def register(self, experiment: str, key: str, name: str) -> str:
        return "1"

    def page(self, shown: Shown, serve: str) -> str:
        return f"{self.name}/{shown.run_id}"
