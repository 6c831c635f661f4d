"""What a field of a YAML file takes, in words: from the types and descriptions of the pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section of fields inside a field, or None where it holds a value."""
    kinds = [field.annotation, *get_args(field.annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found[0] if found else None


def kind_of(annotation: Any) -> str:
    """What values a type stands for, in words."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if annotation is type(None):
        return "none"
    names = {
        str: "text",
        bool: "`true` or `false`",
        int: "whole number",
        float: "number",
        Path: "path",
        Any: "any",
        ...: "",
    }
    if annotation in names:
        return names[annotation]
    inner = [kind_of(argument) for argument in get_args(annotation) if argument is not type(None)]
    origin = get_origin(annotation)
    if origin is tuple:
        return f"list of {inner[0]}"
    if origin is dict:
        return f"mapping of {inner[0]} to {inner[1]}"
    if origin is not None and getattr(origin, "__name__", "") == "Literal":
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return inner[0]
    return " or ".join(dict.fromkeys(inner))


def default_of(field: FieldInfo) -> str:
    """Its default as YAML has it, or that there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return "below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"  # as YAML writes it
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def meaning_of(field: FieldInfo) -> str:
    """Its description, or that of the section it is."""
    inner = section_of(field)
    return (field.description or (inner.__doc__ if inner else "") or "which workflow this is").strip()
