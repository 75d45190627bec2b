"""Decoding: every kind of file gives the picture that a viewer shows."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.test_headers import png_header
from wellfit.data import decode as module
from wellfit.data.decode import Undecodable, decode, from_pillow
from wellfit.data.resize import resized

RNG = np.random.default_rng(7)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack([*np.meshgrid(np.linspace(0, 255, 96), np.linspace(0, 255, 64)), np.full((64, 96), 90.0)], axis=2)
SMOOTH = SMOOTH.round().astype(np.uint8)  # 64×96×3


def save(pixels: np.ndarray | Image.Image, name: str, **options: object) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@pytest.fixture(params=["fast", "pillow"])
def jpeg_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to decode a JPEG."""
    if request.param == "pillow":
        monkeypatch.setattr(module, "_fast_jpeg", None)
    elif module._fast_jpeg is None:
        pytest.skip("simplejpeg is not installed")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
    ],
)
def test_lossless_formats_come_back_exactly(name: str, options: dict) -> None:
    np.testing.assert_array_equal(decode(save(PIXELS, name, **options)), PIXELS)


@pytest.mark.usefixtures("jpeg_path")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_jpeg_equals_pillows_own_decoding(options: dict) -> None:
    data = save(SMOOTH, "JPEG", quality=90, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("short_side", [None, 8, 16, 23, 31, 64])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_both_jpeg_paths_give_the_same_pixels(
    short_side: int | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module._fast_jpeg is None:
        pytest.skip("simplejpeg is not installed")
    for size in [(96, 64), (61, 103), (250, 130)]:
        data = save(Image.fromarray(SMOOTH).resize(size).convert(mode), "JPEG", quality=70)
        monkeypatch.undo()
        fast = decode(data, short_side)
        monkeypatch.setattr(module, "_fast_jpeg", None)
        np.testing.assert_array_equal(fast, decode(data, short_side))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb_of_the_same_size(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray((SMOOTH[..., 0].astype(np.uint16)) * 257)
    else:
        image = Image.fromarray(SMOOTH).convert(mode)
    name = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    pixels = decode(save(image, name))
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.std() > 20


def test_sixteen_bits_are_scaled_by_the_full_range() -> None:
    values = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
    for name in ("PNG", "TIFF"):
        pixels = decode(save(Image.fromarray(values), name))
        np.testing.assert_array_equal(pixels[..., 0], [[0, 0, 1, 128, 255]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32896.0, 65535.0], [0, 128, 255]),
    ],
)
def test_float_greyscale_by_its_range(values: list[float], expected: list[int]) -> None:
    pixels = decode(save(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    np.testing.assert_array_equal(pixels[0, :, 1], expected)


@pytest.mark.parametrize(
    ("value", "reason"), [(-3.0, "no known scale"), (1e6, "no known scale"), (np.nan, "not finite")]
)
def test_float_values_without_a_scale_are_refused(value: float, reason: str) -> None:
    data = save(Image.fromarray(np.array([[0.0, value]], np.float32)), "TIFF")
    with pytest.raises(Undecodable, match=reason):
        decode(data)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [255, 0, 128]
    got = decode(save(rgba, "PNG"))
    np.testing.assert_allclose(got[0].astype(int), [[200, 0, 0], [255, 255, 255], [227, 127, 127]], atol=1)

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for name in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode(save(palette, name, transparency=1))[0], [[10, 20, 30], [255, 255, 255]])


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "green", "blue")]
    for name in ("GIF", "WEBP", "TIFF"):
        options = {"lossless": True} if name == "WEBP" else {}
        data = save(frames[0], name, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(data), np.full((4, 6, 3), [255, 0, 0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_equals_pillows_transpose(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "WEBP" else {}
    data = save(SMOOTH, name, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    got = decode(data)
    assert got.shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))
    np.testing.assert_array_equal(got, expected)
    assert decode(data, 16).shape == ((24, 16, 3) if orientation >= 5 else (16, 24, 3))


def test_orientation_by_hand() -> None:
    """A red corner at the top left as stored, turned by orientation 6 (a quarter clockwise), is at the top right."""
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = [255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(save(pixels, "PNG", exif=exif))
    assert turned.shape == (3, 2, 3)
    assert turned[0, 1].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_broken_exif_does_not_lose_the_picture() -> None:
    data = save(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert decode(data).shape == (64, 96, 3)


@pytest.mark.parametrize("short_side", [5, 16, 33, 63, 64, 200])
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_short_side_is_reduced_and_never_enlarged(name: str, short_side: int) -> None:
    for size in [(96, 64), (64, 96)]:
        shape = decode(save(Image.fromarray(SMOOTH).resize(size), name), short_side).shape
        short = min(short_side, 64)
        assert min(shape[:2]) == short
        assert max(shape[:2]) == round(96 * short / 64)
        assert (shape[1] > shape[0]) == (size[0] > size[1])


def test_a_sliver_keeps_at_least_one_pixel() -> None:
    assert decode(np.zeros((2, 500), np.uint8), 1).shape == (1, 250, 3)
    assert decode(np.zeros((500, 1), np.uint8), 1).shape == (500, 1, 3)


@pytest.mark.usefixtures("jpeg_path")
def test_reduction_is_antialiased() -> None:
    """A fine checkerboard becomes even grey; picking single pixels would leave black and white."""
    board = np.indices((256, 256)).sum(0) % 2 * 255
    board = np.repeat(board[..., None].astype(np.uint8), 3, 2)
    for name in ("PNG", "JPEG"):
        small = decode(save(board, name), 20)[2:-2, 2:-2]
        assert np.abs(small.astype(int) - 127).max() <= 3


@pytest.mark.usefixtures("jpeg_path")
def test_scaled_jpeg_decoding_stays_close_to_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = np.asarray(Image.fromarray(RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)).resize((480, 320)))
    data = save(photo, "JPEG", quality=95)
    scaled = decode(data, 40).astype(float)
    monkeypatch.setattr(module, "_RESERVE", 1e9)
    exact = decode(data, 40).astype(float)
    assert 0 < np.sqrt(((scaled - exact) ** 2).mean()) < 2


BIG = np.asarray(Image.fromarray(RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)).resize((485, 323)))


def in_mode(mode: str) -> Image.Image:
    """BIG as a picture of that mode."""
    if mode == "I;16":
        return Image.fromarray(np.asarray(Image.fromarray(BIG).convert("L")).astype(np.uint16) * 257)
    image = Image.fromarray(BIG)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(BIG[::-1, :, 0]))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "I;16"])
def test_large_images_are_averaged_over_blocks_strip_by_strip(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(in_mode(mode), "PNG")
    full = decode(data)
    assert full.shape == BIG.shape
    # 323 rows to 40: blocks of four leave 81, the last of them over three rows, and more than twice the 40.
    padded = np.pad(full.astype(float), ((0, 1), (0, 3), (0, 0)), constant_values=np.nan)
    means = np.nanmean(padded.reshape(81, 4, 122, 4, 3), axis=(1, 3))
    expected = resized((means + 0.5).astype(np.uint8), 40, 60, "bicubic")
    found = decode(data, 40)
    assert np.abs(found.astype(int) - expected).max() <= 1
    for rows in (1, 7):
        monkeypatch.setattr(module, "_STRIP", 485 * rows)
        np.testing.assert_array_equal(decode(data, 40), found)
        np.testing.assert_array_equal(decode(data), full)
    np.testing.assert_array_equal(decode(full, 40), found)  # the same pixels, without a file


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_averaging_blocks_first_stays_close_to_the_slow_way(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(in_mode(mode).crop((0, 0, 480, 320)), "PNG")
    quick = decode(data, 40).astype(float)
    monkeypatch.setattr(module, "_RESERVE", 1e9)
    exact = decode(data, 40).astype(float)
    assert 0 < np.sqrt(((quick - exact) ** 2).mean()) < 2


def test_large_arrays_of_grey_or_of_a_part_are_averaged_alike() -> None:
    grey = np.ascontiguousarray(BIG[..., 0])
    found = decode(np.stack([grey] * 3, 2), 40)
    for same in (grey, grey[..., None], np.asfortranarray(grey)):
        np.testing.assert_array_equal(decode(same, 40), found)
    part = BIG[::-1, 5:, :]
    np.testing.assert_array_equal(decode(part, 40), decode(part.copy(), 40))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_large_images_are_never_held_as_a_whole_in_rgb(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[tuple[int, int]] = []
    plain = module._eight_bit
    monkeypatch.setattr(module, "_eight_bit", lambda image: turned.append(image.size) or plain(image))
    image = Image.new(mode, (2500, 2000))
    cases = {"file": save(image, "PNG"), "array": np.zeros((2000, 2500), np.uint8)}
    decode(cases["file"], 40)  # what is imported on the way is not counted below
    assert sum(height for _, height in turned) == 2000
    assert max(width * height for width, height in turned) <= module._STRIP < 2500 * 2000 / 10
    for name, data in cases.items():
        tracemalloc.start()
        try:
            decode(data, 40)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2500 * 2000, name  # a third of an array of its pixels; Pillow's own memory is not traced


def test_arrays() -> None:
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(decode(grey), np.stack([grey] * 3, 2))
    np.testing.assert_array_equal(decode(grey[..., None]), np.stack([grey] * 3, 2))
    got = decode(PIXELS)
    np.testing.assert_array_equal(got, PIXELS)
    assert decode(PIXELS, 12).shape == (12, 20, 3)
    for wrong in (PIXELS.astype(np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(Undecodable):
            decode(wrong)


@pytest.mark.usefixtures("jpeg_path")
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.95, 0.6])
def test_truncated_files(name: str, share: float) -> None:
    noise = RNG.integers(0, 256, (80, 120, 3), dtype=np.uint8)
    data = save(noise, name)
    with pytest.raises(Undecodable) as caught:
        decode(data[: int(len(data) * share)])
    if name == "JPEG":
        assert caught.value.reason == "truncated"


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.usefixtures("jpeg_path")
def test_damaged_bytes_give_pixels_or_a_reason() -> None:
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = save(PIXELS, name)
        for seed in range(25):
            rng = np.random.default_rng(seed)
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 6):
                broken[at] = rng.integers(0, 256)
            assert outcome(bytes(broken))


def outcome(data: bytes) -> tuple[int, ...] | str:
    """The shape, or the reason why not; anything but Undecodable is let through and fails the test."""
    try:
        return decode(data, 16).shape
    except Undecodable as error:
        return error.reason


def test_large_images_bring_no_warning_and_leave_pillows_limit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 24×40 is nearly ten times as large: Pillow would refuse
    datas = [save(PIXELS, name) for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in datas:
            assert decode(data).shape == PIXELS.shape
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Undecodable, match="megapixels"):
        decode(png_header(60_000, 60_000))


def test_a_name_says_nothing(tmp_path) -> None:
    file = tmp_path / "really_a_png.jpg"
    file.write_bytes(save(PIXELS, "PNG"))
    assert module.sniff(file.read_bytes()).format == "PNG"
    np.testing.assert_array_equal(decode(file.read_bytes()), PIXELS)


def test_threads_agree_with_one_after_the_other() -> None:
    datas = [save(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8), n) for n in ("JPEG", "PNG", "WEBP") * 40]
    with ThreadPoolExecutor(8) as pool:
        for many, one in zip(pool.map(decode, datas), map(decode, datas), strict=True):
            np.testing.assert_array_equal(many, one)


def test_from_pillow_follows_the_same_rules() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(SMOOTH, "PNG", exif=exif)
    np.testing.assert_array_equal(from_pillow(Image.open(io.BytesIO(data))), decode(data))
    with pytest.raises(Undecodable):
        from_pillow(Image.open(io.BytesIO(save(PIXELS, "PNG")[:-900])))


def test_undecodable_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(Undecodable("truncated"))).reason == "truncated"


def test_importing_decode_does_not_import_torch() -> None:
    code = (
        "import sys, wellfit.data.decode, wellfit.data.sources;print({'torch', 'pandas', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_pixels_that_may_not_be_written_are_shrunk_and_left() -> None:
    held = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    before = held.copy()
    held.flags.writeable = False
    small = decode(held, 20)
    assert small.shape == (20, 30, 3)
    assert small.flags.writeable
    assert (held == before).all()
