"""CIFAR files, written here as their authors lay them out."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from wellfit.data.sources import cifar, open_source
from wellfit.errors import UserError

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
FLAT = IMAGES.transpose(0, 3, 1, 2).reshape(12, 3072)
LABELS = np.arange(12) % 3
NAMES = ["plane", "car", "bird"]


def ten_python(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir(parents=True)
    for i, rows in enumerate((slice(0, 4), slice(4, 8)), start=1):
        batch = {b"data": FLAT[rows], b"labels": LABELS[rows].tolist(), b"batch_label": b"x"}
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(batch, protocol))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": FLAT[8:], b"labels": LABELS[8:].tolist()}, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, protocol))
    (folder / "readme.html").write_text("x")
    return folder


def ten_binary(folder: Path) -> Path:
    folder.mkdir(parents=True)
    rows = np.concatenate([LABELS[:, None].astype(np.uint8), FLAT], axis=1)
    (folder / "data_batch_1.bin").write_bytes(rows[:4].tobytes())
    (folder / "data_batch_2.bin").write_bytes(rows[4:8].tobytes())
    (folder / "test_batch.bin").write_bytes(rows[8:].tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def hundred_python(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        coarse = [9] * len(LABELS[rows])
        batch = {b"data": FLAT[rows], b"fine_labels": LABELS[rows].tolist(), b"coarse_labels": coarse}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": NAMES, b"coarse_label_names": ["no"]}, 2))
    return folder


def hundred_binary(folder: Path) -> Path:
    folder.mkdir(parents=True)
    coarse = np.full((12, 1), 9, np.uint8)
    rows = np.concatenate([coarse, LABELS[:, None].astype(np.uint8), FLAT], axis=1)
    (folder / "train.bin").write_bytes(rows[:8].tobytes())
    (folder / "test.bin").write_bytes(rows[8:].tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES))
    return folder


LAYOUTS = {
    "cifar-10-batches-py": ten_python,
    "cifar-10-batches-bin": ten_binary,
    "cifar-100-python": hundred_python,
    "cifar-100-binary": hundred_binary,
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("give", ["folder", "parent", "archive"])
def test_every_layout(name: str, give: str, tmp_path: Path) -> None:
    folder = LAYOUTS[name](tmp_path / "data" / name)
    data = {"folder": folder, "parent": folder.parent, "archive": tmp_path / f"{name}.tar.gz"}[give]
    with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(folder, name)
    source = open_source(data)
    assert source.kind == "cifar"
    assert source.splits == ["train"] * 8 + ["test"] * 4
    assert source.labels == [NAMES[i] for i in LABELS]
    np.testing.assert_array_equal(np.stack([source.reader.read(i) for i in range(12)]), IMAGES)


def test_pickles_of_newer_protocols_and_no_class_names(tmp_path: Path) -> None:
    folder = ten_python(tmp_path / "c", protocol=4)
    (folder / "batches.meta").unlink()
    assert open_source(folder).labels == [str(i) for i in LABELS]


class Evil:
    def __reduce__(self) -> tuple:
        return (exec, ("import pathlib; pathlib.Path('evil').touch()",))


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ten_python(tmp_path / "c")
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no CIFAR batch that can be read safely .it asks for builtins\.exec"):
        open_source(folder)
    assert not (tmp_path / "evil").exists()


def buffer_of(content: object) -> bytes:
    stream = io.BytesIO()
    pickle.dump(content, stream, 2)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        buffer_of([1, 2]),
        buffer_of({b"data": FLAT[:4]}),
        buffer_of({b"data": FLAT[:4].astype(float), b"labels": [0] * 4}),
        buffer_of({b"data": FLAT[:4, :10], b"labels": [0] * 4}),
        buffer_of({b"data": FLAT[:4], b"labels": [0] * 3}),
        buffer_of({b"data": FLAT[:4], b"labels": [0, 1, 2, 99]}),
    ],
)
def test_damaged_batches_are_one_sentence(content: bytes, tmp_path: Path) -> None:
    folder = ten_python(tmp_path / "c")
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)


def test_a_cut_binary_batch(tmp_path: Path) -> None:
    folder = ten_binary(tmp_path / "c")
    (folder / "test_batch.bin").write_bytes(b"\0" * 5000)
    with pytest.raises(UserError, match="no whole CIFAR file: 5000 bytes"):
        open_source(folder)


def test_other_sets_cost_no_path_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(PurePosixPath):
        def __new__(cls, *parts: str) -> PurePosixPath:
            made.append(parts)
            return PurePosixPath(*parts)

    monkeypatch.setattr(cifar, "PurePosixPath", Counted)
    layouts = ("{}.jpg", "cat/{}.jpg", "train/cat/{}.jpg", "set/train/cat/{}.jpg", "test.bin/{}.png")
    assert cifar.find_cifar([layout.format(i) for layout in layouts for i in range(20)]) == []
    assert not made
    assert cifar.find_cifar(["set/meta", "set/train", "set/test", "set/1.jpg"]) == ["set/train", "set/test"]
    assert len({parts for parts in made if len(parts) == 1}) == 3 + 1  # three files, their folder
    assert cifar.find_cifar(["deep/er/set/meta", "deep/er/set/train"]) == []
