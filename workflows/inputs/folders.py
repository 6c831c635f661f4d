"""Folders of files as tables: a row a file, in the order of their names, labelled by the folder each lies in."""

from __future__ import annotations

from pathlib import Path

from workflows.errors import ConfigError

FILE, LABEL = "file", "label"  # its columns


def folder_names(path: Path) -> list[str]:
    """The columns that a folder has: without folders in it, the files have no label."""
    return [FILE, LABEL] if _folders(path) else [FILE]


def read_folder(path: Path) -> dict[str, list[str]]:
    """Paths of the files, relative to the folder, and their labels.

    Raises ConfigError for a label's folder without files, and for files beside the labels' folders.
    """
    labels, beside = _folders(path), _files(path)
    if not labels:
        return {FILE: [one.name for one in beside]}
    if beside:
        raise ConfigError(
            f"{path}: {beside[0].name} lies beside the folders of labels {', '.join(one.name for one in labels[:5])}; "
            "move each file into the folder of its label"
        )
    files: dict[str, list[Path]] = {one.name: _files(one, deep=True) for one in labels}
    if empty := [name for name, found in files.items() if not found]:
        raise ConfigError(f"{path / empty[0]}: has no files; add files, or remove the folder")
    return {
        FILE: [one.relative_to(path).as_posix() for found in files.values() for one in found],
        LABEL: [name for name, found in files.items() for _ in found],
    }


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))


def _files(path: Path, deep: bool = False) -> list[Path]:
    """Without hidden ones, which systems leave there."""
    return sorted(one for one in path.glob("**/*" if deep else "*") if one.is_file() and not one.name.startswith("."))
