"""Labelled images in every form people have them, brought into one: `open_source`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wellfit.data.sources.source import (
    LeftOut,
    Reader,
    Source,
    keep_lone_validation_as_test,
    leave_out_foreign_classes,
    require_classes,
    with_test,
)
from wellfit.errors import UserError, nearest

__all__ = ["LeftOut", "Reader", "Source", "open_source"]


def open_source(
    data: Any,
    *,
    image_column: str = "image",
    label_column: str = "label",
    group_column: str | None = None,
    test: Any = None,
    minimum_classes: int = 2,
) -> Source:
    """List labelled images without decoding one.

    data: a folder of class folders, with or without train/, val/, test/ above them; a .zip or .tar(.gz, .bz2, .xz) of
        such a folder; a CSV, TSV or Parquet manifest; a folder, archive or file of idx (MNIST) or CIFAR data; an .npz;
        the word "digits"; or, in Python, (images, labels), a list of pairs, a torch Dataset, a DataFrame.
    image_column, label_column, group_column: columns of a manifest.
    test: more data of any of these kinds, kept as the test split.
    minimum_classes: how many classes there must be (1 is enough to evaluate).

    A validation part with no test part beside it is kept as the test split, with a finding. Images in validation or
    test of a class that training lacks are left out by name. Labels are verbatim; whole numbers become text, so that
    "10" sorts before "9" unless the reader sorts them as numbers. Raises UserError.
    """
    columns = {"image_column": image_column, "label_column": label_column, "group_column": group_column}
    source = _open(data, columns)
    if test is not None:
        source = with_test(source, _open(test, columns))
    keep_lone_validation_as_test(source)
    require_classes(source, minimum_classes)
    leave_out_foreign_classes(source)
    return source


def _open(data: Any, columns: dict[str, Any]) -> Source:
    if not isinstance(data, str | os.PathLike):
        from wellfit.data.sources.memory import memory_source

        return memory_source(data, **columns)
    try:
        return _open_path(data, columns)
    except OSError as error:
        raise UserError(
            f"'{data}' cannot be read ({error.strerror or error}); check the path and its permissions"
        ) from None


def _open_path(data: str | os.PathLike[str], columns: dict[str, Any]) -> Source:
    path = Path(data).expanduser()
    if str(data) == "digits" and not path.exists():
        from wellfit.data.sources.packed import digits_source

        return digits_source()
    if path.is_dir():
        return _open_folder(path, str(data))
    if not path.is_file():
        raise _missing(path, str(data))
    return _open_file(path, str(data), columns)


def _open_folder(path: Path, location: str) -> Source:
    from wellfit.data.sources.folder import folder_source, list_files

    root = path.resolve()
    files = list_files(root)
    packed = _find_packed(files, lambda name: (root / name).read_bytes(), str(root))
    return packed or folder_source(root, files, location)


def _open_file(path: Path, location: str, columns: dict[str, Any]) -> Source:
    from wellfit.data.sources import archive, manifest, packed

    name = path.name.lower()
    path = path.resolve()
    if packed.is_idx_images(path.name):
        labels = packed.idx_labels(path.name, {other.name for other in path.parent.iterdir()})
        pairs = {"": (path.name, labels)}
        parts = packed.idx_parts(pairs, lambda n: (path.parent / n).read_bytes(), str(path))
        return packed.packed_source("idx", str(path), parts)
    if name.endswith(archive.SUFFIXES):
        members = archive.list_members(path)
        reader = archive.ArchiveReader(members)
        rows = {member: row for row, member in enumerate(members.names)}
        found = _find_packed(members.names, lambda n: reader.read(rows[n]), str(path))
        return found or archive.archive_source(members, str(path))
    if name.endswith(manifest.SUFFIXES):
        return manifest.manifest_source(manifest.read_manifest(path), path.parent, str(path), **columns)
    if name.endswith(".npz"):
        return packed.packed_source("npz", str(path), packed.npz_parts(path))
    raise UserError(
        f"data is a folder, an archive (.zip, .tar, .tar.gz), a manifest (.csv, .parquet), an .npz, idx images or "
        f"'digits', but '{location}' is none of these; give one of them"
    )


def _find_packed(files: list[str], read: Any, location: str) -> Source | None:
    """The idx or CIFAR set among these files, or None."""
    from wellfit.data.sources.cifar import cifar_parts, find_cifar
    from wellfit.data.sources.packed import find_idx, idx_parts, packed_source

    if pairs := find_idx(files):
        return packed_source("idx", location, idx_parts(pairs, read, location))
    if batches := find_cifar(files):
        return packed_source("cifar", location, cifar_parts(batches, files, read))
    return None


def _missing(path: Path, location: str) -> UserError:
    parent = path.parent
    siblings = [other.name for other in parent.iterdir()] if parent.is_dir() else []
    near = nearest(path.name, [*siblings, "digits"])
    return UserError(f"'{location}' does not exist{near}; give a folder, an archive, a manifest, an .npz or 'digits'")
