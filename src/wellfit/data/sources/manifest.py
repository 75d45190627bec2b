"""A table of images and labels: CSV, TSV, Parquet, or a pandas DataFrame. Labels stay text: "007" stays "007"."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.data.sources.folder import FileReader
from wellfit.data.sources.source import SPLIT_NAMES, LeftOut, Source
from wellfit.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")


def read_manifest(path: Path) -> pd.DataFrame:
    """The table of a CSV (comma, semicolon or tab, UTF-8) or Parquet file. UserError where it cannot be read."""
    import pandas as pd

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        return pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True
        )
    except Exception as error:  # pandas and pyarrow raise a dozen types
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the manifest '{path}' cannot be read as a table ({text}); save it as CSV in UTF-8") from None


def manifest_source(
    table: pd.DataFrame,
    folder: Path,
    location: str,
    *,
    image_column: str,
    label_column: str,
    group_column: str | None,
) -> Source:
    """One image a row. Paths are relative to `folder`; a column `split` is honoured; an empty label leaves a row out.

    UserError for a missing column (naming the nearest), an unknown split, and when not one file is there.
    """
    columns = [str(name) for name in table.columns]
    table = table.set_axis(columns, axis=1)
    for name, option in ((image_column, "image"), (label_column, "label"), (group_column, "group")):
        if name is not None and name not in columns:
            raise UserError(
                f"the manifest '{location}' has no column '{name}'{nearest(name, columns)}; its columns are "
                f"{', '.join(columns)}: name the right one as the {option} column"
            )
    paths = _texts(table[image_column])
    labels = _texts(table[label_column])
    groups = None if group_column is None else _texts(table[group_column])
    splits = _splits(_texts(table["split"]), location) if "split" in columns else [""] * len(paths)

    left_out: list[LeftOut] = []
    rows: list[int] = []
    missing = 0
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        reason = _reason(folder, path)
        missing += reason is not None
        if reason is None and not label.strip():
            reason = "no label"
        if reason is None:
            rows.append(row)
        else:
            left_out.append(LeftOut(path or f"row {row + 1}", reason))
    if not rows:
        why = (
            f"not one of its {len(paths)} files exists under '{folder}' (the first is '{paths[0]}'); "
            "paths are relative to the manifest"
            if paths and missing == len(paths)
            else "it has no row with an image and a label; fill in both columns"
        )
        raise UserError(f"the manifest '{location}' gives no image: {why}")
    names = [paths[row] for row in rows]
    return Source(
        location=location,
        kind="manifest",
        names=names,
        labels=[labels[row] for row in rows],
        splits=[splits[row] for row in rows],
        # A row without a group is a group of its own.
        groups=None if groups is None else [groups[row] or f"row {row + 1}" for row in rows],
        reader=FileReader(str(folder), names),
        left_out=left_out,
    )


def _texts(column: pd.Series[Any]) -> list[str]:
    """Cells as text; missing ones as "", whole floats (integers beside a missing cell) without their ".0"."""
    texts = []
    for value in column.tolist():
        if isinstance(value, str):
            texts.append(value)
        elif value is None or value != value or str(value) == "<NA>":
            texts.append("")
        elif isinstance(value, float) and value.is_integer():
            texts.append(str(int(value)))
        else:
            texts.append(str(value))
    return texts


def _splits(values: list[str], location: str) -> list[str]:
    known = {"": "", **SPLIT_NAMES}
    found = {value: value.strip().lower() for value in set(values)}
    for value, name in found.items():
        if name not in known:
            raise UserError(
                f"the column split of '{location}' holds train, validation, test or nothing, got '{value}'; correct it"
            )
    return [known[found[value]] for value in values]


def _reason(folder: Path, path: str) -> str | None:
    if not path:
        return "no image named"
    if "://" in path:
        return "a web address; download the files first"
    try:
        mode = Path(folder, path).stat().st_mode
    except (OSError, ValueError):
        return "file not found"
    return "a folder, not a file" if stat.S_ISDIR(mode) else None
