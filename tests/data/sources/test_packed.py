"""idx, .npz and digits."""

from __future__ import annotations

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.sources.conftest import counts
from wellfit.data.sources import cache, open_source
from wellfit.data.sources.packed import FASHION, read_idx
from wellfit.errors import UserError

RNG = np.random.default_rng(3)
TRAIN = RNG.integers(0, 256, (20, 5, 4), dtype=np.uint8)
TEST = RNG.integers(0, 256, (10, 5, 4), dtype=np.uint8)
TRAIN_LABELS = np.arange(20, dtype=np.uint8) % 10
TEST_LABELS = np.arange(10, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, packed: bool, before: str = "", dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, images, labels in (("train", TRAIN, TRAIN_LABELS), ("t10k", TEST, TEST_LABELS)):
        for what, array, kind in (("images", images, "idx3"), ("labels", labels, "idx1")):
            name = f"{before}{part}-{what}{dot}{kind}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("before", ["", "emnist-letters-", "raw/"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_folder(tmp_path: Path, packed: bool, before: str, dot: str) -> None:
    (tmp_path / "mnist" / "raw").mkdir(parents=True)
    source = open_source(write_idx(tmp_path / "mnist", packed=packed, before=before, dot=dot))
    assert source.kind == "idx"
    assert source.splits == ["train"] * 20 + ["test"] * 10
    assert source.names[0] == "train#0"
    assert source.names[20] == "test#0"
    assert source.labels == [str(i % 10) for i in range(20)] + [str(i) for i in range(10)]
    np.testing.assert_array_equal(np.stack([source.reader.read(i) for i in range(30)]), np.concatenate([TRAIN, TEST]))


def test_one_idx_file(tmp_path: Path) -> None:
    folder = write_idx(tmp_path, packed=True)
    source = open_source(folder / "t10k-images-idx3-ubyte.gz")
    assert source.splits == [""] * 10
    np.testing.assert_array_equal(source.reader.read(3), TEST[3])


def test_idx_inside_an_archive(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "mnist", packed=True)
    with zipfile.ZipFile(tmp_path / "mnist.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"mnist/{file.name}")
    source = open_source(tmp_path / "mnist.zip")
    assert (source.kind, len(source)) == ("idx", 30)
    np.testing.assert_array_equal(source.reader.read(29), TEST[9])


def test_fashion_names_only_where_the_folder_says_so(tmp_path: Path) -> None:
    assert open_source(write_idx(tmp_path / "Fashion_MNIST", packed=False)).labels[:10] == FASHION
    assert open_source(write_idx(tmp_path / "fashion", packed=False)).labels[9] == "9"


def test_idx_errors(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "a", packed=False)
    labels = folder / "train-labels-idx1-ubyte"
    labels.unlink()
    with pytest.raises(UserError, match="there is no 'train-labels-idx1-ubyte'"):
        open_source(folder)
    labels.write_bytes(idx(TRAIN_LABELS[:-1]))
    with pytest.raises(UserError, match="20 images and 19 labels"):
        open_source(folder)
    folder = write_idx(tmp_path / "b", packed=False)
    write_idx(folder, packed=False, before="emnist-")
    with pytest.raises(UserError, match="several idx data sets"):
        open_source(folder)


@pytest.mark.parametrize("packed", [True, False])
def test_damaged_idx(packed: bool) -> None:
    whole = gzip.compress(idx(TRAIN)) if packed else idx(TRAIN)
    np.testing.assert_array_equal(read_idx(whole, 3, "x"), TRAIN)
    damaged = [whole[:-9], whole[:9], b"", b"no idx at all"]
    damaged.append(gzip.compress(idx(TRAIN) + b"more") if packed else whole + b"more")
    damaged.append(gzip.compress(idx(TRAIN_LABELS)) if packed else idx(TRAIN_LABELS))
    for data in damaged:
        with pytest.raises(UserError, match="is no whole idx file of 3 dimensions"):
            read_idx(data, 3, "x")


def test_an_idx_bomb_is_refused_before_it_is_unpacked() -> None:
    declared = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 20, 1 << 10, 1 << 10)
    with pytest.raises(UserError, match="unpacks to more than"):
        read_idx(gzip.compress(declared + bytes(1000)), 3, "x")


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        (("x_train", "y_train", "x_test", "y_test"), ["train"] * 20 + ["test"] * 10),
        (("train_images", "train_labels", "test_images", "test_labels"), ["train"] * 20 + ["test"] * 10),
        (("images", "labels"), [""] * 20),
        (("x", "y"), [""] * 20),
    ],
)
def test_npz(tmp_path: Path, keys: tuple[str, ...], splits: list[str]) -> None:
    np.savez_compressed(tmp_path / "d.npz", **dict(zip(keys, (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS), strict=False)))
    source = open_source(tmp_path / "d.npz")
    assert source.kind == "npz"
    assert source.splits == splits
    assert source.labels[:3] == ["0", "1", "2"]
    np.testing.assert_array_equal(source.reader.read(len(source) - 1), (TEST if len(source) == 30 else TRAIN)[-1])


def test_npz_with_validation_and_class_names(tmp_path: Path) -> None:
    arrays = {
        f"{s}_{w}": a for s in ("train", "val", "test") for w, a in (("images", TEST), ("labels", TEST_LABELS[:, None]))
    }
    np.savez(tmp_path / "d.npz", **arrays, class_names=np.array(list("abcdefghij")))
    source = open_source(tmp_path / "d.npz")
    assert source.splits == ["train"] * 10 + ["validation"] * 10 + ["test"] * 10
    assert source.labels[:10] == list("abcdefghij")


def test_npz_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "d.npz"
    np.savez(file, pixels=TRAIN)
    with pytest.raises(UserError, match="holds pixels; save it under these names"):
        open_source(file)
    np.savez(file, images=np.array([{"a": 1}], dtype=object), labels=np.zeros(1))
    with pytest.raises(UserError, match=r"no \.npz file of plain arrays"):
        open_source(file)
    file.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match=r"no \.npz file"):
        open_source(file)
    np.savez(file, images=TRAIN, labels=TEST_LABELS)
    with pytest.raises(UserError, match="20 images and 10 labels"):
        open_source(file)
    monkeypatch.setattr(cache, "RATIO_FLOOR", 1000)
    np.savez_compressed(file, images=np.zeros((1000, 40, 40), np.uint8), labels=np.zeros(1000))
    with pytest.raises(UserError, match="200 times its size"):
        open_source(file)


def test_digits_equal_scikit_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    monkeypatch.chdir(tmp_path)
    source = open_source("digits")
    assert (source.kind, source.location, len(source)) == ("digits", "digits", 1797)
    assert source.labels == [str(i) for i in labels]
    got = np.stack([source.reader.read(i) for i in range(1797)]).reshape(1797, 64)
    assert got.max() == 255
    np.testing.assert_allclose(got, values * 255 / 16, atol=0.5)


def test_a_folder_called_digits_wins_over_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "digits", packed=False)
    monkeypatch.chdir(tmp_path)
    assert open_source("digits").kind == "idx"


def test_fashion_mnist(real_data: Path) -> None:
    source = open_source(real_data / "fashion-mnist")
    assert (source.splits.count("train"), source.splits.count("test")) == (60_000, 10_000)
    assert counts(source.labels) == dict.fromkeys(FASHION, 7000)
    pixels = source.reader.read(69_999)
    assert pixels.shape == (28, 28)
    assert pixels.max() > 100
