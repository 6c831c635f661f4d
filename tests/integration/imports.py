"""What commands import at one time or another: a process that forks itself for each of them does so first.

Except for Ray: it reads its own variables as it is imported, and a command gives its cluster a token by one of them.
"""

import pkgutil
import sys
from importlib import import_module

from mlflow.utils.requirements_utils import _init_modules_to_packages_map

import orchestration
import vocabsem
import vocabsem_core
import workflows

OTHERS = (
    "boto3",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "transformers.models.gpt2.modeling_gpt2",  # of the reference models
)

WITH_RAY = ("orchestration.ray_backend.",)

for name in OTHERS:
    import_module(name)
for package in (orchestration, vocabsem_core, workflows, vocabsem):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__") and not f"{module.name}.".startswith(WITH_RAY):
            import_module(module.name)
_init_modules_to_packages_map()  # it looks through all that is installed, in each process that keeps a model
assert "ray" not in sys.modules
