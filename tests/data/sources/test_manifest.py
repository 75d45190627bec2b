"""Tables of images and labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.sources.conftest import png
from wellfit.data.sources import open_source
from wellfit.errors import UserError

pd = pytest.importorskip("pandas")
Tree = Callable[..., Path]


@pytest.fixture
def folder(tree: Tree) -> Path:
    return tree("img/0.png", "img/1.png", "img/2.png", "img/3.png")


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_paths_are_relative_to_the_manifest_and_labels_stay_text(folder: Path) -> None:
    source = open_source(write(folder, "image,label\nimg/0.png,007\nimg/1.png,7\nimg/2.png,NA\nimg/3.png,None\n"))
    assert source.kind == "manifest"
    assert source.names == [f"img/{i}.png" for i in range(4)]
    assert source.labels == ["007", "7", "NA", "None"]
    assert source.splits == [""] * 4
    assert source.groups is None
    assert [source.reader.read(i) for i in range(4)] == [png(i) for i in range(4)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_separators_byte_order_mark_and_named_columns(folder: Path, separator: str, start: str) -> None:
    rows = [["file", "species", "nest"], ["img/0.png", "a, b", "n1"], ["img/1.png", "c", ""], ["img/2.png", "c", "n1"]]
    text = start + "\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    source = open_source(write(folder, text), image_column="file", label_column="species", group_column="nest")
    assert source.labels == ["a, b", "c", "c"]
    assert source.groups is not None
    assert source.groups[0] == source.groups[2] == "n1"
    assert source.groups[1] not in ("n1", "")


def test_the_split_column(folder: Path) -> None:
    text = "image,label,split\nimg/0.png,a,Train\nimg/1.png,b,train\nimg/2.png,a,val\nimg/3.png,b,TEST\n"
    assert open_source(write(folder, text)).splits == ["train", "train", "validation", "test"]
    with pytest.raises(UserError, match="train, validation, test or nothing, got 'hold-out'"):
        open_source(write(folder, text.replace("TEST", "hold-out")))


def test_parquet_with_numbers_and_gaps(folder: Path) -> None:
    table = pd.DataFrame({"image": [f"img/{i}.png" for i in range(4)], "label": [1, 2, None, 1]})
    table.to_parquet(folder / "labels.parquet")
    source = open_source(folder / "labels.parquet")
    assert source.labels == ["1", "2", "1"]
    assert [(x.file, x.reason) for x in source.left_out] == [("img/2.png", "no label")]
    categories = pd.DataFrame({"image": ["img/0.png", "img/1.png"], "label": pd.Categorical(["007", "b"])})
    categories.to_parquet(folder / "labels.parquet")
    assert open_source(folder / "labels.parquet").labels == ["007", "b"]


def test_rows_that_give_no_image_are_left_out_with_their_reason(folder: Path) -> None:
    text = "image,label\nimg/0.png,a\nimg/1.png,b\nimg/9.png,a\nimg/2.png,\n,a\nhttps://x.org/1.png,a\nimg,b\n"
    source = open_source(write(folder, text))
    assert source.labels == ["a", "b"]
    assert [(x.file, x.reason) for x in source.left_out] == [
        ("img/9.png", "file not found"),
        ("img/2.png", "no label"),
        ("row 5", "no image named"),
        ("https://x.org/1.png", "a web address; download the files first"),
        ("img", "a folder, not a file"),
    ]


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_missing_column_names_the_nearest(folder: Path, column: str) -> None:
    text = "image,label\nimg/0.png,a\nimg/1.png,b\n".replace(column, column + "s")
    with pytest.raises(UserError, match=f"has no column '{column}' .did you mean '{column}s'"):
        open_source(write(folder, text))


def test_a_missing_group_column(folder: Path) -> None:
    with pytest.raises(UserError, match="has no column 'nest'; its columns are image, label"):
        open_source(write(folder, "image,label\nimg/0.png,a\n"), group_column="nest")


def test_all_files_missing(folder: Path) -> None:
    with pytest.raises(UserError, match=r"not one of its 2 files exists under .*paths are relative to the manifest"):
        open_source(write(folder, "image,label\nx/0.png,a\nx/1.png,b\n"))


def test_no_rows(folder: Path) -> None:
    with pytest.raises(UserError, match="no row with an image and a label"):
        open_source(write(folder, "image,label\n"))
    with pytest.raises(UserError, match="no row with an image and a label"):
        open_source(write(folder, "image,label\nimg/0.png,\n"))


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_what_is_no_table(folder: Path, name: str) -> None:
    for content in (b"", b"\xff\xfe\x00binary\x81", b"PAR1 not really"):
        (folder / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_source(folder / name)
        assert "\n" not in str(caught.value)


def test_a_data_frame(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    table = pd.DataFrame({"image": ["img/0.png", str(folder / "img/1.png")], "label": [3, 4]}, index=[7, 7])
    source = open_source(table)
    assert source.labels == ["3", "4"]
    assert [source.reader.read(i) for i in range(2)] == [png(0), png(1)]
