from __future__ import annotations

import errno
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, listed, noise, scene
from wellfit.data import store_build
from wellfit.data.decode import decode
from wellfit.data.inspect import inspect
from wellfit.data.sources import LeftOut, open_source
from wellfit.data.sources.arrays import ArrayReader
from wellfit.data.store import build_store
from wellfit.data.thumbnails import thumbnails
from wellfit.errors import UserError


def whole(source, **options):
    inspection = inspect(source)
    options.setdefault("short_side", 320)
    return build_store(source, inspection, np.arange(len(source.names)), **options)


def stored_folder(cache: Path) -> Path:
    (folder,) = [path for path in (cache / "stores").iterdir() if path.is_dir() and not path.suffix]
    return folder


def test_images_of_any_size_come_back_as_decoded(gone) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encoded(noise(0, 5, 9)),
        encoded(scene(1, 60, 90), "JPEG"),
        encoded(scene(2, 70, 50), "JPEG", exif=turned),
        encoded(noise(3, 30, 20)),
    ]
    store = whole(listed(files), short_side=30)
    assert len(store) == 4
    assert [store.shape(i) for i in range(4)] == [
        (5, 9),
        (30, 45),
        (30, 42),
        (30, 20),
    ]  # reduced, turned, never enlarged
    for row, data in enumerate(files):
        assert (store.image(row) == decode(data, 30)).all()
    assert store.uniform() is None
    assert store.usable.all()
    assert (store.thumbnails == thumbnails([decode(data, 30) for data in files])).all()
    assert store.shapes.tolist() == [list(store.shape(i)) for i in range(4)]


def test_rows_and_indices() -> None:
    source = listed([encoded(noise(i)) for i in range(6)])
    inspection = inspect(source)
    store = build_store(source, inspection, [4, 1, 3], short_side=320)
    assert store.indices.tolist() == [4, 1, 3]
    assert store.row_of.tolist() == [-1, 1, -1, 2, 0, -1]
    assert store.content_hashes == [inspection.content_hash[i] for i in (4, 1, 3)]
    assert (store.image(0) == noise(4)).all()
    assert 0 not in source.reader.read_rows[6:]  # images that were not asked for are not read


def test_equal_sizes_make_one_array() -> None:
    images = np.stack([noise(i) for i in range(5)])
    store = whole(listed([encoded(image) for image in images]))
    assert (store.uniform() == images).all()
    with pytest.raises(ValueError, match="read-only"):
        store.uniform()[0, 0, 0, 0] = 1


def test_a_bad_image_is_named_and_does_not_cost_the_one_array() -> None:
    images = [scene(i, 48, 48) for i in range(4)]
    files = [encoded(image) for image in images]
    files[2] = files[2][: len(files[2]) // 2]
    store = whole(listed(files))
    assert store.usable.tolist() == [True, True, False, True]
    assert store.left_out == [LeftOut("2.png", "truncated")]
    assert store.shape(2) == (0, 0)
    assert store.image(2).shape == (0, 0, 3)
    assert not store.thumbnails[2].any()
    uniform = store.uniform()
    assert not uniform[2].any()
    assert (uniform[[0, 1, 3]] == np.stack([images[i] for i in (0, 1, 3)])).all()
    assert whole(listed(files)).left_out == store.left_out  # also when it is only opened


def test_nothing_usable_and_nothing_asked_for() -> None:
    store = whole(listed([encoded(scene(0))[:200]]))
    assert not store.usable.any()
    assert store.uniform() is None
    source = listed([encoded(noise(0))])
    assert len(build_store(source, inspect(source), [], short_side=8)) == 0


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3)])
def test_arrays_in_one_piece_give_the_same_as_one_by_one(shape: tuple[int, ...], own_cache: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, *shape), dtype=np.uint8)
    one_by_one = whole(listed(list(images)))
    expected = one_by_one.uniform().copy(), one_by_one.thumbnails.copy()
    assert (expected[0] == np.stack([decode(image) for image in images])).all()
    del one_by_one
    for path in stored_folder(own_cache).iterdir():
        path.unlink()
    source = listed(list(images))
    source.reader = ArrayReader(images)
    together = whole(source)
    assert (together.uniform() == expected[0]).all()
    assert (together.thumbnails == expected[1]).all()


def test_large_arrays_are_reduced() -> None:
    images = np.stack([scene(i, 40, 60) for i in range(3)])
    source = listed(list(images))
    source.reader = ArrayReader(images)
    store = whole(source, short_side=20)
    assert (store.uniform() == np.stack([decode(image, 20) for image in images])).all()


def test_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [encoded(noise(i)) for i in range(4)]
    calls: list[tuple[int, int]] = []
    first = whole(listed(files), progress=lambda *args: calls.append(args))
    assert calls[-1] == (4, 4)
    calls.clear()
    monkeypatch.setattr(store_build, "decode", None)
    again = whole(listed(files, names=["w", "x", "y", "z"]), progress=lambda *args: calls.append(args))
    assert calls == []
    assert again.folder == first.folder  # the contents count, not the names or the place
    assert (again.uniform() == first.uniform()).all()


def test_another_store_for_other_contents_order_or_size() -> None:
    files = [encoded(noise(i, 20, 20)) for i in range(3)]
    folders = {
        whole(listed(files)).folder,
        whole(listed(files[::-1])).folder,
        whole(listed(files[:2])).folder,
        whole(listed([*files[:2], encoded(noise(9, 20, 20))])).folder,
        whole(listed(files), short_side=10).folder,
    }
    assert len(folders) == 5


@pytest.mark.parametrize("name", ["pixels.bin", "index.bin", "thumbnails.bin", "store.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "garbage"])
def test_a_damaged_store_is_built_again(own_cache: Path, name: str, damage: str) -> None:
    files = [encoded(noise(i)) for i in range(4)]
    whole(listed(files))
    path = stored_folder(own_cache) / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": content[:-1], "longer": content + b"x", "garbage": b"{]"}[damage])
    store = whole(listed(files))
    assert (store.uniform() == np.stack([noise(i) for i in range(4)])).all()
    assert path.read_bytes() == content


@pytest.mark.parametrize("slow", [0.0, 0.1], ids=["quick disk", "slow disk"])
def test_a_build_that_broke_off_goes_on(slow: float, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that is still being written when the user interrupts is kept, too."""
    files = [encoded(noise(i)) for i in range(1000)]
    whole(listed(files))
    untouched = {path.name: path.read_bytes() for path in stored_folder(own_cache).iterdir()}
    for path in stored_folder(own_cache).iterdir():
        path.unlink()

    fsync = store_build.os.fsync
    monkeypatch.setattr(store_build, "SHARD_IMAGES", 256)
    monkeypatch.setattr(store_build.os, "fsync", lambda descriptor: (time.sleep(slow), fsync(descriptor)))

    def stop(done: int, total: int) -> None:
        if done >= 640:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole(listed(files), progress=stop)
    source = listed(files)
    inspection = inspect(source)
    source.reader.read_rows.clear()
    store = build_store(source, inspection, np.arange(1000), short_side=320)
    assert sorted(source.reader.read_rows) == list(range(512, 1000))  # two whole shards were kept
    assert {path.name: path.read_bytes() for path in stored_folder(own_cache).iterdir()} == untouched
    assert (store.image(999) == noise(999)).all()


def test_a_shard_that_the_disk_refuses_costs_itself_and_what_comes_after(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written while the next one is decoded, and still no mark vouches for it."""
    files = [encoded(noise(i)) for i in range(1000)]
    monkeypatch.setattr(store_build, "SHARD_IMAGES", 256)
    fsync, calls = store_build.os.fsync, list[int]()

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:  # three files and the mark of the first shard
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(store_build.os, "fsync", failing)
        with pytest.raises(UserError, match="Input/output error"):
            whole(listed(files))
    mark = store_build.read_mark(stored_folder(own_cache))
    assert mark is not None
    assert mark.rows == 256
    source = listed(files)
    inspection = inspect(source)
    source.reader.read_rows.clear()
    store = build_store(source, inspection, np.arange(1000), short_side=320)
    assert sorted(source.reader.read_rows) == list(range(256, 1000))
    assert all((store.image(i) == noise(i)).all() for i in (0, 255, 256, 999))


def test_few_images_wait_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_build, "usable_cores", lambda: 2)
    monkeypatch.setattr(store_build, "_PART_IMAGES", 4)
    source = listed([encoded(noise(i)) for i in range(400)])
    inspection = inspect(source)
    source.reader.read_rows.clear()
    ahead: list[int] = []
    build_store(
        source,
        inspection,
        np.arange(400),
        short_side=320,
        progress=lambda done, total: ahead.append(len(source.reader.read_rows) - done),
    )
    assert max(ahead) <= 4 * 6  # (twice the threads, and one part that is being written) of 4 images each


def test_a_file_that_changed_after_it_was_hashed_is_left_out_once() -> None:
    files = [encoded(noise(i)) for i in range(3)]
    source = listed(files)
    inspection = inspect(source)
    source.reader.items[1] = encoded(noise(50))
    store = build_store(source, inspection, [0, 1, 2], short_side=320)
    assert store.left_out == [LeftOut("1.png", "changed while the data were being read")]
    source.reader.items[1] = files[1]
    assert build_store(source, inspection, [0, 1, 2], short_side=320).usable.all()


def test_a_file_that_went_away_is_tried_again(gone) -> None:
    files = [encoded(noise(i)) for i in range(3)]
    source = listed(files)
    inspection = inspect(source)
    source.reader.items[2] = gone
    store = build_store(source, inspection, [0, 1, 2], short_side=320)
    assert store.left_out == [LeftOut("2.png", gone.reason)]
    source.reader.items[2] = files[2]
    assert build_store(source, inspection, [0, 1, 2], short_side=320).usable.all()


def test_pickled_and_opened_in_a_worker() -> None:
    store = whole(listed([encoded(noise(i)) for i in range(3)]))
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.uniform() == store.uniform()).all()
    assert copy.row_of.tolist() == store.row_of.tolist()
    assert len(pickle.dumps(store)) < 5000  # a path, not the pixels


def test_wrong_arguments() -> None:
    source = listed([encoded(noise(0))])
    with pytest.raises(ValueError, match="short_side"):
        build_store(source, inspect(source), [0], short_side=0)
    with pytest.raises(ValueError, match="repeated"):
        build_store(source, inspect(source), [0, 0], short_side=8)


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WELLFIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="WELLFIT_CACHE"):
        whole(listed([encoded(noise(0))]))


def test_real_photos(real_data: Path) -> None:
    source = open_source(real_data / "ants-bees.tar")
    inspection = inspect(source)
    rows = np.arange(0, 40)
    store = build_store(source, inspection, rows, short_side=64)
    assert store.usable.all()
    assert (np.minimum(*store.shapes.T) == 64).all()
    assert (store.image(7) == decode(source.reader.read(7), 64)).all()
