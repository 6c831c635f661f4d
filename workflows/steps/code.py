"""The code that a step's result comes from: where it has changed under the same version, a plan says so."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from workflows.methods.base import Method

_ROOT = Path(__file__).parents[2]
_CORE, _OURS = "vocabsem_core.", ("vocabsem_core.", "workflows.")


@cache
def code_of(fill: Callable[..., object], *modules: str) -> tuple[str, ...]:
    """The module of the function that fills an artifact, those of ours that it imports, and the core below them.

    Args:
        fill: the function, or the class of sharded work.
        modules: that it gets to by other ways than an import, such as a method's.
    """
    used = {fill.__module__, *modules, *_used(fill.__module__, fill.__name__)}
    return tuple(sorted(used | set(_core_below(*used - {fill.__module__}))))


@cache
def _core_below(*modules: str) -> tuple[str, ...]:
    """The modules of the core that modules import, directly or by way of one another."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        new = {name for name in _imported(waiting.pop()) if name.startswith(_CORE)} - found
        found |= new
        waiting += new
    return tuple(sorted(found))


def method_code(method: Method) -> tuple[str, ...]:
    """The modules of a method's classes; a user's own file is in the key instead."""
    return tuple(kind.__module__ for kind in type(method).__mro__ if kind.__module__.startswith(_OURS))


def _used(module: str, name: str) -> Iterator[str]:
    """What a function and those it calls in its module import, or name of the imports at the module's top."""
    tree = _tree(module)
    own = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    top = {
        alias.asname or alias.name: source
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias, source in zip(node.names, _imports(node), strict=True)
    }
    waiting, seen = [name], set()
    while waiting:
        if (one := waiting.pop()) in seen or one not in own:
            continue
        seen.add(one)
        yield from (found for found in _imports(own[one]) if found.startswith(_OURS))
        for node in ast.walk(own[one]):
            if isinstance(node, ast.Name):
                waiting.append(node.id)
                if top.get(node.id, "").startswith(_OURS):
                    yield top[node.id]
            elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{module}:"):
                waiting.append(str(node.value).rpartition(":")[2])  # what workers run


def _imports(tree: ast.AST) -> Iterator[str]:
    """The module of each name that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if _file(whole) is not None else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def _imported(module: str) -> frozenset[str]:
    return frozenset(_imports(_tree(module)))


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    return ast.parse(file.read_text(encoding="utf-8") if file is not None else "")


@cache
def _file(module: str) -> Path | None:
    place = _ROOT / module.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
