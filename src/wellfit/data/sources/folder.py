"""A folder on disk: every file below it, and a reader of these files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wellfit.data.headers import Undecodable
from wellfit.data.sources.layout import arrange, is_stray
from wellfit.data.sources.source import Source
from wellfit.errors import UserError


@dataclass(frozen=True)
class FileReader:
    """Reads files by their path. root: absolute folder; names: relative (or absolute) paths, "/" between the parts."""

    root: str
    names: list[str]

    def read(self, index: int) -> bytes:
        try:
            return Path(self.root, self.names[index]).read_bytes()
        except OSError as error:
            raise Undecodable(f"cannot be read ({error.strerror or error})") from None

    def stamp(self, index: int) -> tuple[int, int]:
        try:
            status = Path(self.root, self.names[index]).stat()
        except OSError as error:
            raise Undecodable(f"cannot be read ({error.strerror or error})") from None
        return status.st_size, status.st_mtime_ns


def list_files(root: Path) -> list[str]:
    """Relative paths of all files below `root`, hidden ones apart, sorted, "/" between the parts.

    Links to folders are followed, each real folder once. UserError where the folder cannot be listed.
    """
    found: list[str] = []
    seen: set[Path] = set()

    def walk(folder: str, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    if is_stray(entry.name + "/x"):
                        continue
                    if entry.is_symlink():
                        real = Path(entry.path).resolve()
                        if real in seen or Path(folder).resolve().is_relative_to(real):
                            continue
                        seen.add(real)
                    walk(entry.path, name + "/")
                elif not entry.name.startswith("."):
                    found.append(name)

    try:
        walk(str(root), "")
    except OSError as error:
        raise UserError(
            f"the folder '{error.filename or root}' cannot be listed ({error.strerror}); check its permissions"
        ) from None
    return sorted(found)


def folder_source(root: Path, files: list[str], location: str) -> Source:
    """Class folders below `root`. files: as `list_files` gives them; location: what the user gave, for messages."""
    files = [file for file in files if not is_stray(file)]
    layout = arrange(files, location)
    names = [files[row] for row in layout.rows]
    return Source(
        location=str(root),
        kind="folder",
        names=names,
        labels=layout.labels,
        splits=layout.splits,
        groups=None,
        reader=FileReader(str(root), names),
        left_out=layout.left_out,
    )
