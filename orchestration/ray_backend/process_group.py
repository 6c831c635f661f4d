"""How the workers of a training become one team: Ray Train's own way, but leaving nothing behind where it fails."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchConfig

from orchestration.ray_backend.placement import hide_gpus

_Backend: Any = TorchConfig().backend_cls


class _TeamBackend(_Backend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Runs in Ray Train's controller, which forgets a group that fails here: its reservation would stay for good.

        GPUs are hidden before torch looks for them: a process that has counted them once sees them ever after.
        """
        try:
            if not worker_group.get_resources_per_worker().get("GPU"):
                worker_group.execute(hide_gpus)
            super().on_start(worker_group, backend_config)
        except Exception:
            worker_group.abort()
            raise


class ProcessGroup(TorchConfig):
    """A process group of torch's; the workers see GPUs only where they reserve some."""

    @property
    def backend_cls(self) -> Any:
        return _TeamBackend
