"""What is already in Python."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.sources.conftest import png
from wellfit.data.headers import Undecodable
from wellfit.data.sources import Source, open_source
from wellfit.errors import UserError

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(11)
COLOUR = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
LABELS = [0, 1, 2, 0, 1, 2]


def pixels(source: Source) -> np.ndarray:
    return np.stack([source.reader.read(i) for i in range(len(source))])


def test_arrays_of_every_layout() -> None:
    for images, expected in [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY[:, None], GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
    ]:
        for data in (images, torch.from_numpy(images.copy())):
            source = open_source((data, LABELS))
            np.testing.assert_array_equal(pixels(source), expected)
            assert source.labels == ["0", "1", "2", "0", "1", "2"]
            assert (source.kind, source.location, source.names[5]) == ("memory", "memory", "#5")


def test_an_ambiguous_layout_follows_the_librarys_habit() -> None:
    images = RNG.integers(0, 256, (4, 3, 9, 3), dtype=np.uint8)
    assert open_source((images, [0, 1, 0, 1])).reader.read(0).shape == (3, 9, 3)
    assert open_source((torch.from_numpy(images), [0, 1, 0, 1])).reader.read(0).shape == (9, 3, 3)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_floats_by_range(kind: type) -> None:
    for images in ((GREY / 255).astype(kind), GREY.astype(kind)):
        got = pixels(open_source((images, LABELS))).astype(int)
        assert np.abs(got - GREY).max() <= (1 if kind is np.float16 else 0)


def test_other_number_types() -> None:
    np.testing.assert_array_equal(pixels(open_source((GREY.astype(np.int64), LABELS))), GREY)
    np.testing.assert_array_equal(pixels(open_source((GREY > 99, LABELS))), (GREY > 99) * 255)
    np.testing.assert_array_equal(pixels(open_source((torch.tensor(GREY).to(torch.bfloat16), LABELS))) // 2, GREY // 2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY / 127.5 - 1, "these values run from -1 to 1; give the images as they were before any normalisation"),
        (GREY.astype(float) * 9, "0-255, but these values run from 0"),
        (np.full((6, 4, 4), np.nan), "values run from nan"),
        (np.zeros((6, 4, 4), complex), "type is complex128"),
        (np.zeros((6, 4, 4, 7), np.uint8), "1 or 3 channels"),
        (np.zeros((6, 4), np.uint8), r"its shape is \(6, 4\)"),
    ],
)
def test_arrays_that_are_refused(images: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source((images, LABELS))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(LABELS),
        np.array(LABELS)[:, None],
        torch.tensor(LABELS),
        np.array(LABELS, float),
        [np.int64(i) for i in LABELS],
        [torch.tensor(i) for i in LABELS],
        [str(i) for i in LABELS],
        np.array([str(i) for i in LABELS]),
    ],
)
def test_labels_in_every_form(labels: object) -> None:
    assert open_source((GREY, labels)).labels == ["0", "1", "2", "0", "1", "2"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "6 images and 2 labels"),
        (np.eye(6), "undo any one-hot coding"),
        ([0.5] * 6, "names or whole numbers, got 0.5"),
        ([None] * 6, "names or whole numbers, got None"),
        ([float("nan")] * 6, "names or whole numbers, got nan"),
    ],
)
def test_labels_that_are_refused(labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source((GREY, labels))


def test_pil_images_of_different_sizes_in_both_forms() -> None:
    images = [Image.fromarray(COLOUR[i, : 4 + i]) for i in range(6)]
    for data in ((images, LABELS), list(zip(images, LABELS, strict=True))):
        source = open_source(data)
        for i in range(6):
            np.testing.assert_array_equal(source.reader.read(i), COLOUR[i, : 4 + i])


def test_lists_of_arrays_and_tensors_share_one_scale() -> None:
    bright = torch.tensor(COLOUR[0]).permute(2, 0, 1).float()
    dark = torch.zeros(3, 4, 4) + 1.0  # 0-1 on its own, nearly black beside the other
    source = open_source([(bright, "a"), (dark, "b")])
    np.testing.assert_array_equal(source.reader.read(0), COLOUR[0])
    np.testing.assert_array_equal(source.reader.read(1), np.ones((4, 4, 3)))
    with pytest.raises(UserError, match="share one type of number"):
        open_source([(COLOUR[0], "a"), (COLOUR[1].astype(float), "b")])


def test_pairs_of_path_and_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    monkeypatch.chdir(tmp_path)
    source = open_source([("0.png", "a"), (tmp_path / "1.png", "b"), ("2.png", "a")])
    assert [source.reader.read(i) for i in range(2)] == [png(0), png(1)]
    assert [(x.file, x.reason) for x in source.left_out] == [("2.png", "file not found")]
    with pytest.raises(UserError, match="not one of the 2 files exists"):
        open_source([("x.png", "a"), ("y.png", "b")])


class Pictures(torch.utils.data.Dataset):
    def __init__(self, make: object, **attributes: object) -> None:
        self.make = make
        self.reads = 0
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple:
        self.reads += 1
        return self.make(index), LABELS[index]


def as_pil(index: int) -> Image.Image:
    return Image.fromarray(COLOUR[index])


def as_array(index: int) -> np.ndarray:
    return COLOUR[index]


def as_tensor(index: int) -> object:
    return torch.tensor(COLOUR[index]).permute(2, 0, 1) / 255


@pytest.mark.parametrize("make", [as_pil, as_array, as_tensor])
def test_a_torch_dataset(make: object) -> None:
    dataset = Pictures(make, classes=["x", "y", "z"])
    source = open_source(dataset)
    assert source.labels == ["x", "y", "z"] * 2
    np.testing.assert_array_equal(pixels(source), COLOUR)
    subset = open_source(torch.utils.data.Subset(dataset, [4, 0]))
    assert subset.labels == ["y", "x"]
    np.testing.assert_array_equal(pixels(subset), COLOUR[[4, 0]])


def test_known_targets_spare_a_pass_over_the_images() -> None:
    dataset = Pictures(as_pil, classes=["x", "y", "z"], targets=torch.tensor(LABELS))
    before = dataset.reads
    assert open_source(dataset).labels == ["x", "y", "z"] * 2
    with_targets = dataset.reads - before
    plain = Pictures(as_pil, classes=["x", "y", "z"])
    open_source(plain)
    assert with_targets == plain.reads - 6
    subset = torch.utils.data.Subset(dataset, [5, 1])
    assert open_source(subset).labels == ["z", "y"]


def test_items_that_fail_later_are_undecodable() -> None:
    def make(index: int) -> np.ndarray:
        if failing and index == 2:
            raise OSError("disk on fire")
        return COLOUR[index]

    failing: list[int] = []
    source = open_source(Pictures(make))
    failing.append(1)
    with pytest.raises(Undecodable, match="disk on fire"):
        source.reader.read(2)
    with pytest.raises(Undecodable):
        source.reader.stamp(2)
    assert source.reader.read(3).shape == (8, 10, 3)


def test_a_dataset_of_something_else() -> None:
    class Dictionaries(Pictures):
        def __getitem__(self, index: int) -> dict:
            return {"image": 1}

    with pytest.raises(UserError, match="gives pairs"):
        open_source(Dictionaries(as_pil))
    with pytest.raises(UserError, match="values run from"):
        open_source(Pictures(lambda i: as_tensor(i) * 4 - 2))
    with pytest.raises(UserError, match="label 2 has no name: the data name 2 classes"):
        open_source(Pictures(as_pil, classes=["x", "y"]))


@pytest.mark.parametrize("data", [7, None, {"a": 1}, GREY, torch.zeros(3), [1, 2], (1, 2, 3), object()])
def test_what_is_not_understood(data: object) -> None:
    with pytest.raises(UserError, match=r"give a path|data may be a path"):
        open_source(data)


def test_nothing_in_it() -> None:
    with pytest.raises(UserError, match="holds no images"):
        open_source(([], []))
    with pytest.raises(UserError, match="holds no images"):
        open_source((np.zeros((0, 4, 4), np.uint8), []))
    with pytest.raises(UserError, match="holds no images"):
        open_source([])
    with pytest.raises(UserError, match="the dataset is empty"):
        open_source(torch.utils.data.Subset(Pictures(as_pil), []))


def test_stamps_tell_pixels_apart_and_readers_can_be_pickled() -> None:
    for data in ((COLOUR, LABELS), ([Image.fromarray(p) for p in COLOUR], LABELS)):
        reader = open_source(data).reader
        again = pickle.loads(pickle.dumps(reader))
        assert [again.stamp(i) for i in range(6)] == [reader.stamp(i) for i in range(6)]
        assert len({reader.stamp(i) for i in range(6)}) == 6
        np.testing.assert_array_equal(again.read(2), COLOUR[2])
    changed = COLOUR.copy()
    changed[0, 0, 0, 0] ^= 1
    assert open_source((changed, LABELS)).reader.stamp(0) != open_source((COLOUR, LABELS)).reader.stamp(0)
