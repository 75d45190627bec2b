"""The rules that read classes and splits off paths."""

from __future__ import annotations

import pytest

from wellfit.data.sources.layout import arrange, is_stray
from wellfit.errors import UserError


def arranged(*paths: str) -> list[tuple[str, str, str]]:
    layout = arrange(paths, "photos")
    return [
        (paths[row], label, split) for row, label, split in zip(layout.rows, layout.labels, layout.splits, strict=True)
    ]


def test_plain_class_folders() -> None:
    assert arranged("ant/1.jpg", "bee/2.jpg") == [("ant/1.jpg", "ant", ""), ("bee/2.jpg", "bee", "")]


def test_nested_folders_belong_to_their_class() -> None:
    assert [label for _, label, _ in arranged("ant/1.jpg", "ant/2019/x/2.jpg", "bee/3.jpg")] == ["ant", "ant", "bee"]


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (("train", "val"), "validation"),
        (("Train", "VALID"), "validation"),
        (("training", "Validation"), "validation"),
        (("TRAIN", "Test"), "test"),
        (("train", "testing"), "test"),
    ],
)
def test_split_folders_in_any_spelling(folders: tuple[str, str], split: str) -> None:
    got = arranged(*(f"{folder}/{label}/1.jpg" for folder in folders for label in ("ant", "bee")))
    assert [(label, s) for _, label, s in got] == [("ant", "train"), ("bee", "train"), ("ant", split), ("bee", split)]


@pytest.mark.parametrize("top", ["", "photos/", "a/b/"])
def test_wrapping_folders_are_seen_through(top: str) -> None:
    plain = arranged(*(f"{top}{label}/{i}.jpg" for label in ("ant", "bee") for i in range(3)))
    assert {label for _, label, _ in plain} == {"ant", "bee"}
    split = arranged(
        *(f"{top}{s}/{label}/{i}.jpg" for s in ("train", "test") for label in ("ant", "bee") for i in range(3))
    )
    assert {(label, s) for _, label, s in split} == {(c, s) for c in ("ant", "bee") for s in ("train", "test")}


def test_a_train_folder_alone_is_wrapping() -> None:
    assert arranged("train/ant/1.jpg", "train/bee/2.jpg")[0] == ("train/ant/1.jpg", "ant", "")


def test_a_class_may_be_called_train_or_test() -> None:
    got = arranged("train/1.jpg", "train/2.jpg", "test/1.jpg", "plane/1.jpg")
    assert [label for _, label, _ in got] == ["train", "train", "test", "plane"]
    assert {split for _, _, split in got} == {""}


def test_a_class_called_train_with_sub_folders_beside_another_class() -> None:
    got = arranged("train/steam/1.jpg", "train/diesel/2.jpg", "plane/1.jpg", "plane/2.jpg")
    assert [label for _, label, _ in got] == ["train", "train", "plane", "plane"]


def test_loose_images_are_left_out_by_name() -> None:
    layout = arrange(["cover.jpg", "ant/1.jpg", "bee/2.jpg"], "photos")
    assert [(x.file, x.reason) for x in layout.left_out] == [("cover.jpg", "not in a class folder")]
    assert layout.labels == ["ant", "bee"]

    paths = ["train/preview.jpg", "unlabelled/9.jpg"] + [
        f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("ant", "bee") for i in range(3)
    ]
    layout = arrange(paths, "photos")
    assert {x.file: x.reason for x in layout.left_out} == {
        "train/preview.jpg": "not in a class folder",
        "unlabelled/9.jpg": "outside the train, validation and test folders",
    }
    assert len(layout.rows) == 12


def test_a_loose_image_beside_the_wrapping_folder() -> None:
    paths = ["cover.jpg"] + [f"photos/{c}/{i}.jpg" for c in ("ant", "bee") for i in range(3)]
    layout = arrange(paths, "x")
    assert set(layout.labels) == {"ant", "bee"}
    assert [x.file for x in layout.left_out] == ["cover.jpg"]


def test_one_class_with_sub_folders_and_images_stays_one_class() -> None:
    assert {label for _, label, _ in arranged("ant/1.jpg", "ant/2.jpg", "ant/more/3.jpg")} == {"ant"}


def test_labels_are_verbatim() -> None:
    assert [label for _, label, _ in arranged("Ant /1.jpg", "ant/2.jpg", "007/3.jpg")] == ["Ant ", "ant", "007"]


def test_nothing_and_no_class_folders() -> None:
    with pytest.raises(UserError, match="'photos' holds no images; give a folder with one sub-folder"):
        arrange([], "photos")
    with pytest.raises(UserError, match="'photos' holds 2 files but no class folders; put the images of each class"):
        arrange(["1.jpg", "2.jpg"], "photos")


@pytest.mark.parametrize(
    "path",
    [
        *(".DS_Store", "ant/.DS_Store", "ant/Thumbs.db", "ant/desktop.ini", "__MACOSX/ant/._1.jpg", ".git/x/1.png"),
        *("ant/notes.txt", "README.md", "ant/labels.CSV", "ant/meta.json", "@eaDir/1.jpg"),
    ],
)
def test_stray(path: str) -> None:
    assert is_stray(path)


@pytest.mark.parametrize("path", ["ant/1.jpg", "ant/1", "ant/1.unknown", "Thumbs.db/1.jpg", "a.txt/1.jpg"])
def test_not_stray(path: str) -> None:
    assert not is_stray(path)
