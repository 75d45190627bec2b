"""`open_source`: splits, foreign classes, test data from elsewhere, and the user's mistakes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.sources.conftest import png
from tests.data.sources.test_archive import pack
from wellfit.data.sources import open_source
from wellfit.data.sources.arrays import ArrayReader
from wellfit.data.sources.source import Rows, Source
from wellfit.errors import UserError

Tree = Callable[..., Path]
TRAIN = ("train/ant/1.png", "train/bee/2.png")


def test_a_lone_validation_folder_is_kept_as_test(tree: Tree) -> None:
    source = open_source(tree(*TRAIN, "val/ant/3.png", "val/bee/4.png"))
    assert source.splits == ["train", "train", "test", "test"]
    (finding,) = source.findings
    assert (finding.id, finding.severity, finding.evidence) == ("val-kept-as-test", "info", {"images": 2})


def test_validation_beside_test_stays_validation(tree: Tree) -> None:
    source = open_source(tree(*TRAIN, "val/ant/3.png", "test/bee/4.png"))
    assert sorted(source.splits) == ["test", "train", "train", "validation"]
    assert source.findings == []


def test_validation_stays_validation_where_a_test_set_is_named(tree: Tree) -> None:
    root = tree(*TRAIN, "val/ant/3.png", "val/bee/4.png")
    other = tree("ant/1.png", "bee/2.png", "bee/3.png", top="other")
    source = open_source(root, test=other)
    assert source.splits == ["train"] * 2 + ["validation"] * 2 + ["test"] * 3
    assert source.findings == []


def test_named_test_data_of_any_kind(tree: Tree, tmp_path: Path) -> None:
    root = tree("ant/1.png", "bee/2.png")
    archive = pack(tmp_path / "t.zip", {"ant/1.png": png(50), "bee/9.png": png(51)})
    source = pickle.loads(pickle.dumps(open_source(root, test=archive)))
    assert source.splits == ["", "", "test", "test"]
    assert source.names == ["ant/1.png", "bee/2.png", "test:ant/1.png", "test:bee/9.png"]
    assert [source.reader.read(i) for i in range(4)] == [png(0), png(1), png(50), png(51)]
    assert source.reader.stamp(2)[0] == len(png(50))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4), dtype=np.uint8)
    both = open_source((images, ["a", "b"]), test=(images[:1], ["b"]))
    assert both.labels == ["a", "b", "b"]
    np.testing.assert_array_equal(both.reader.read(2), images[0])


def test_of_test_data_with_splits_only_the_test_part_is_taken(tree: Tree) -> None:
    root = tree("ant/1.png", "bee/2.png")
    other = tree(*TRAIN, "val/ant/3.png", "val/bee/4.png", "test/ant/5.png", top="other")
    assert open_source(root, test=other).names[2:] == ["test/ant/5.png"]
    lone = tree(*TRAIN, "val/ant/3.png", top="lone")
    assert open_source(root, test=lone).names[2:] == ["val/ant/3.png"]


def test_two_test_splits_are_ambiguous(tree: Tree) -> None:
    root = tree(*TRAIN, "test/ant/3.png")
    with pytest.raises(UserError, match="has a test split of its own"):
        open_source(root, test=tree("ant/1.png", "bee/2.png", top="other"))


def test_groups_survive_a_join(tree: Tree) -> None:
    root = tree("1.png", "2.png", "3.png")
    (root / "m.csv").write_text("image,label,g\n1.png,a,x\n2.png,b,x\n3.png,a,y\n")
    other = tree("a/1.png", "b/2.png", top="other")
    (root / "t.csv").write_text("image,label,g\n../other/a/1.png,a,y\n../other/b/2.png,b,z\n")
    source = open_source(root / "m.csv", group_column="g", test=root / "t.csv")
    assert source.groups == ["x", "x", "y", "y", "z"]
    assert other.is_dir()


def test_classes_that_training_lacks_are_left_out_by_name(tree: Tree) -> None:
    source = open_source(tree(*TRAIN, "test/ant/3.png", "test/Bee/4.png", "test/wasp/5.png"))
    assert source.names == ["test/ant/3.png", *TRAIN]
    assert source.splits == ["test", "train", "train"]
    assert {x.file: x.reason for x in source.left_out} == {
        "test/Bee/4.png": "class 'Bee' is not among the training classes (did you mean 'bee'?)",
        "test/wasp/5.png": "class 'wasp' is not among the training classes",
    }
    assert len(source) == len(source.labels) == len(source.splits) == 3
    assert [source.reader.read(source.names.index(n)) for n in (*TRAIN, "test/ant/3.png")] == [png(0), png(1), png(2)]


def test_a_test_split_of_other_classes_altogether(tree: Tree) -> None:
    with pytest.raises(UserError, match=r"no class of the test split of .* it holds 'x', 'y', training 'ant', 'bee'"):
        open_source(tree(*TRAIN, "test/x/3.png", "test/y/4.png"))


def test_no_training_images(tree: Tree) -> None:
    with pytest.raises(UserError, match="has no training images"):
        open_source(tree("val/ant/1.png", "val/bee/2.png", "test/ant/3.png", "test/bee/4.png"))


def test_one_class(tree: Tree) -> None:
    root = tree("ant/1.png", "ant/2.png")
    with pytest.raises(UserError, match=r"at least 2 classes are needed, but '.*photos' holds only 'ant' \(2 images\)"):
        open_source(root)
    assert open_source(root, minimum_classes=1).labels == ["ant", "ant"]


def test_a_missing_path_names_its_nearest_neighbour(tree: Tree, tmp_path: Path) -> None:
    tree("ant/1.png", "bee/2.png")
    with pytest.raises(UserError, match=r"phottos' does not exist \(did you mean 'photos'\?\)"):
        open_source(tmp_path / "phottos")
    with pytest.raises(UserError, match=r"does not exist \(did you mean 'digits'\?\)"):
        open_source("digit")
    with pytest.raises(UserError, match="does not exist; give a folder"):
        open_source(tmp_path / "no" / "such" / "place")


def test_a_path_that_cannot_be_looked_at(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("ant/1.png", "bee/2.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for method in ("is_dir", "resolve"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
                open_source(root)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' holds no images"):
        open_source(tmp_path / "empty")
    (tmp_path / "empty" / "ant").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    with pytest.raises(UserError, match="empty' holds no images"):
        open_source(tmp_path / "empty")


def test_images_without_class_folders(tree: Tree) -> None:
    with pytest.raises(UserError, match="holds 2 files but no class folders"):
        open_source(tree("1.png", "2.png"))


@pytest.mark.parametrize("name", ["model.pt", "photo.jpg", "notes", "data.gz", "photos.7z"])
def test_a_file_of_an_unknown_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"'.*{name}' is none of these"):
        open_source(tmp_path / name)


def test_rows_over_several_readers() -> None:
    first, second = np.zeros((3, 2, 2), np.uint8), np.full((2, 2, 2), 9, np.uint8)
    second[1] = 7
    source = Source(
        "x",
        "memory",
        list("abcde"),
        list("uvuvu"),
        [""] * 5,
        list("ggghh"),
        Rows.joined([ArrayReader(first), ArrayReader(second)], [3, 2]),
    )
    source.keep([4, 0, 3])
    assert (source.names, source.labels, source.groups) == (["e", "a", "d"], ["u", "u", "v"], ["h", "g", "h"])
    assert [int(np.asarray(source.reader.read(i)).max()) for i in range(3)] == [7, 0, 9]
    source.keep([2])
    assert int(np.asarray(source.reader.read(0)).max()) == 9
