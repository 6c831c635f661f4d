"""What every model of a YAML file has in common: no unknown field, and paths in which `~` is expanded."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from orchestration.host.paths import expanded


class Strict(BaseModel):
    """Frozen; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PathText = Annotated[str, AfterValidator(expanded)]  # a name of the catalog or the hub stays as it is
