"""Folders on disk."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.sources.conftest import png
from wellfit.data.headers import Undecodable
from wellfit.data.sources import open_source
from wellfit.data.sources.folder import FileReader, list_files
from wellfit.errors import UserError

Tree = Callable[..., Path]


def test_names_labels_and_bytes(tree: Tree) -> None:
    root = tree("bee/2.png", "ant/1.png", "ant/sub/3.png", "ant/Thumbs.db", ".hidden/x/4.png", "ant/notes.txt")
    source = open_source(root)
    assert source.kind == "folder"
    assert source.location == str(root.resolve())
    assert source.names == ["ant/1.png", "ant/sub/3.png", "bee/2.png"]  # sorted, whatever the file system's order
    assert source.labels == ["ant", "ant", "bee"]
    assert source.splits == ["", "", ""]
    assert source.left_out == []
    assert [source.reader.read(i) for i in range(3)] == [png(1), png(2), png(0)]
    status = (root / "ant/1.png").stat()
    assert source.reader.stamp(0) == (status.st_size, status.st_mtime_ns)


def test_files_of_unknown_kinds_are_listed_for_the_header_to_decide(tree: Tree) -> None:
    assert open_source(tree("ant/1", "ant/2.xyz", "bee/3.gif")).names == ["ant/1", "ant/2.xyz", "bee/3.gif"]


def test_a_path_may_be_text_and_relative(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("ant/1.png", "bee/2.png")
    monkeypatch.chdir(root.parent)
    source = open_source("photos")
    monkeypatch.chdir(root)
    assert source.reader.read(0) == png(0)  # read after a change of folder


def test_reader_can_be_pickled(tree: Tree) -> None:
    reader = open_source(tree("ant/1.png", "bee/2.png")).reader
    assert pickle.loads(pickle.dumps(reader)).read(1) == png(1)


def test_a_file_that_vanishes_is_undecodable_not_fatal(tree: Tree) -> None:
    root = tree("ant/1.png", "bee/2.png")
    reader = open_source(root).reader
    (root / "ant/1.png").unlink()
    with pytest.raises(Undecodable, match="cannot be read"):
        reader.read(0)
    with pytest.raises(Undecodable, match="cannot be read"):
        reader.stamp(0)


def test_links_to_folders_are_followed_once(tree: Tree, tmp_path: Path) -> None:
    root = tree("ant/1.png", "bee/2.png")
    other = tree("3.png", top="elsewhere")
    try:
        (root / "cat").symlink_to(other, target_is_directory=True)
        (root / "ant" / "loop").symlink_to(root, target_is_directory=True)
        (root / "ant" / "self").symlink_to(root / "ant", target_is_directory=True)
    except OSError:
        pytest.skip("this system does not allow links")
    assert list_files(root) == ["ant/1.png", "bee/2.png", "cat/3.png"]


def test_a_folder_beside_with_the_same_beginning_is_no_loop(tree: Tree) -> None:
    root = tree("ant/1.png", "bee/2.png", top="photos-2")
    other = tree("3.png", top="photos")
    try:
        (root / "cat").symlink_to(other, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not allow links")
    assert "cat/3.png" in list_files(root)


def test_a_folder_without_permission_is_named(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("ant/1.png", "bee/2.png")
    scandir = os.scandir

    def guarded(folder: str) -> object:
        if folder.endswith("ant"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match=r"ant' cannot be listed \(Permission denied\); check its permissions"):
        open_source(root)


def test_absolute_names_reach_outside_the_root(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"x")
    assert FileReader("/nowhere", [str(tmp_path / "1.png")]).read(0) == b"x"
