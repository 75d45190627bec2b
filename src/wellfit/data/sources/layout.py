"""From relative paths to classes and splits: the rules for folders and archives of class folders.

    [top/] [train/ | val/ | test/] class/ [any/depth/] image

Files that lie about (dot files, Thumbs.db, notes) are passed over. Any other file inside a class folder counts as an
image until its header says otherwise. A sub-folder of a class folder belongs to that class.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from wellfit.data.sources.source import SPLIT_NAMES, LeftOut
from wellfit.errors import UserError

_STRAY_NAMES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"}
_STRAY_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "__pycache__"}
_STRAY_SUFFIXES = {
    *(".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
    *(".log", ".html", ".htm", ".py", ".ipynb", ".pdf", ".db", ".parquet", ".pkl", ".mat", ".sh", ".bat", ".xlsx"),
    *(".docx", ".url", ".lnk", ".tmp", ".part", ".crdownload"),
}


@dataclass
class Layout:
    """rows: which of the given paths are images of a class; labels, splits: one for each of these rows."""

    rows: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def is_stray(path: str) -> bool:
    """Whether a relative path ("a/b.jpg") is of the kind that systems and people leave lying about."""
    parts = path.split("/")
    name = parts[-1].lower()
    if any(part.startswith(".") or part.lower() in _STRAY_FOLDERS for part in parts):
        return True
    return name in _STRAY_NAMES or posixpath.splitext(name)[1] in _STRAY_SUFFIXES


def arrange(paths: Sequence[str], location: str) -> Layout:
    """Read classes and splits off the paths (with "/" between the parts, none stray).

    Raises UserError for no path at all and for images with no class folder around them.
    """
    if not paths:
        raise UserError(f"'{location}' holds no images; give a folder with one sub-folder of images for each class")
    parts = [path.split("/") for path in paths]
    depth = _common_depth(parts)
    tails = [p[depth:] for p in parts]
    if all(len(tail) <= 1 for tail in tails):
        raise UserError(
            f"'{location}' holds {len(paths)} files but no class folders; put the images of each class into a "
            "sub-folder named after it, or give a CSV with the columns image and label"
        )
    split_of = _splits(tails)
    layout = Layout()
    for row, tail in enumerate(tails):
        split = ""
        if split_of is not None:
            if len(tail) <= 1 or tail[0] not in split_of:
                layout.left_out.append(LeftOut(paths[row], "outside the train, validation and test folders"))
                continue
            split, tail = split_of[tail[0]], tail[1:]
        if len(tail) <= 1:
            layout.left_out.append(LeftOut(paths[row], "not in a class folder"))
            continue
        layout.rows.append(row)
        layout.labels.append(tail[0])
        layout.splits.append(split)
    return layout


def _common_depth(parts: list[list[str]]) -> int:
    """How many folders at the top only wrap the rest: alone at their level, holding folders and hardly an image."""
    depth = 0
    while True:
        tops = {p[depth] for p in parts if len(p) > depth + 1}
        shallow = sum(len(p) <= depth + 2 for p in parts)
        if len(tops) != 1 or 2 * shallow >= len(parts):
            return depth
        depth += 1


def _splits(tails: list[list[str]]) -> dict[str, str] | None:
    """Top folder → split, or None where the top folders are the classes themselves.

    A folder called "train" counts as a split when it holds folders rather than images (a class "train" holds images)
    and no folder beside it is a class.
    """
    balance = Counter[str]()
    for tail in tails:
        if len(tail) > 1:
            balance[tail[0]] += 1 if len(tail) > 2 else -1
    splits = {top: SPLIT_NAMES[top.lower()] for top, n in balance.items() if n > 0 and top.lower() in SPLIT_NAMES}
    if len(set(splits.values())) > 1 or (splits and splits.keys() == balance.keys()):
        return splits
    return None
