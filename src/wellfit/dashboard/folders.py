"""Finds the run folders below one folder, and keeps everything that leads out of it at the door."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from wellfit.record import RunFolder
from wellfit.report.listing import MARKS

DEEPEST = 3  # folders of folders of runs
MOST_FOLDERS = 20_000
_READ = ("record.jsonl", "config.toml", "plan.toml", "model.json", "request.json", "report.html", "arrays", "workers")


@dataclass
class Found:
    """Names are relative to the folder, with slashes. outside: links that lead out of it, which are not followed."""

    runs: dict[str, Path] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    cut: bool = False  # there were more folders than are looked at


def find_runs(root: Path) -> Found:
    """Every run at most three folders down, and `root` itself where it is one. root: a resolved path.

    A run's own folders are not looked into, hidden ones neither.
    """
    found = Found()
    waiting = [(root, "", 0)]
    looked = 0
    while waiting:
        path, name, depth = waiting.pop()
        looked += 1
        if looked > MOST_FOLDERS:
            found.cut = True
            break
        try:
            with os.scandir(path) as entries:
                inside = list(entries)
        except OSError:
            if name:
                found.runs[name] = path  # it is said at the run that it cannot be read
            continue
        names = {entry.name for entry in inside}
        if names.intersection(MARKS):
            found.runs[name or "."] = path
            continue
        if depth == DEEPEST:
            continue
        for entry in inside:
            if entry.name.startswith("."):
                continue
            child = f"{name}/{entry.name}" if name else entry.name
            if entry.is_symlink():
                target = path / entry.name
                if target.is_dir() and not is_inside(target, root):
                    found.outside.append(child)
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path / entry.name, child, depth + 1))
    return found


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, all links followed, lies in `root` (a resolved path)."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):
        return False


def escapes(path: Path, root: Path) -> bool:
    """Whether a file of a run is a link out of `root`; one that is no link costs a single look at it."""
    return path.is_symlink() and not is_inside(path, root)


def leads_out(folder: RunFolder, root: Path) -> str:
    """The name of the run's first file or folder that is a link out of `root`; "" where there is none."""
    if not is_inside(folder.path, root):
        return folder.path.name
    for name in _READ:
        if escapes(folder.path / name, root):
            return name
    for inner in ("arrays", "workers"):
        try:
            with os.scandir(folder.path / inner) as entries:
                links = [entry.name for entry in entries if entry.is_symlink()]
        except OSError:
            continue
        for name in links:
            if not is_inside(folder.path / inner / name, root):
                return f"{inner}/{name}"
    return ""
