"""Whatever people hand over by mistake: exit code 2, one clear sentence, no traceback, and with --json an object."""

from __future__ import annotations

import gzip
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command, photos, png, zipped
from tests.recipe.plans import write_plan
from wellfit import engine

Prepare = Callable[[Path], list[str]]


def missing_path(folder: Path) -> list[str]:
    photos(folder / "photos", 2)
    return ["fit", "photo"]


def empty_folder(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["fit", "empty"]


def one_class(folder: Path) -> list[str]:
    photos(folder / "photos", 3, ("cat",))
    return ["fit", "photos"]


def one_usable_image(folder: Path) -> list[str]:
    photos(folder / "photos", 4)
    for i in range(1, 4):
        (folder / "photos" / "below" / f"{i:02d}.png").write_bytes(b"no picture")
    return ["fit", "photos"]


def corrupt_zip(folder: Path) -> list[str]:
    path = zipped(folder / "photos.zip", ("a/1.png", png(0)), ("b/1.png", png(1)))
    path.write_bytes(path.read_bytes()[:-30])
    return ["fit", "photos.zip"]


def corrupt_tar(folder: Path) -> list[str]:
    (folder / "photos.tar.gz").write_bytes(gzip.compress(os.urandom(4096))[:2000])
    return ["fit", "photos.tar.gz"]


def zip_leaving_its_folder(folder: Path) -> list[str]:
    zipped(folder / "photos.zip", ("a/1.png", png(0)), ("../b/1.png", png(1)))
    return ["fit", "photos.zip"]


def tar_with(folder: Path, change: Callable[[tarfile.TarInfo], None]) -> list[str]:
    with tarfile.open(folder / "photos.tar", "w") as archive:
        for name in ("a/1.png", "b/1.png"):
            archive.add(photos(folder / name[0] / "photos", 1) / "above" / "00.png", name)
        member = tarfile.TarInfo("b/2.png")
        change(member)
        archive.addfile(member)
    return ["fit", "photos.tar"]


def tar_with_a_link(folder: Path) -> list[str]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"

    return tar_with(folder, change)


def tar_with_a_hard_link(folder: Path) -> list[str]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = tarfile.LNKTYPE, "../../secret.png"

    return tar_with(folder, change)


def tar_with_an_absolute_path(folder: Path) -> list[str]:
    def change(member: tarfile.TarInfo) -> None:
        member.name = "/b/2.png"

    return tar_with(folder, change)


def manifest(folder: Path, text: str) -> list[str]:
    photos(folder / "photos", 2)
    (folder / "labels.csv").write_text(text)
    return ["fit", "labels.csv"]


def manifest_without_the_column(folder: Path) -> list[str]:
    return manifest(folder, "image,labels\nphotos/above/00.png,cat\nphotos/below/00.png,dog\n")


def manifest_without_the_named_column(folder: Path) -> list[str]:
    return [*manifest(folder, "image,label\nphotos/above/00.png,cat\n"), "--group-column", "nest"]


def manifest_whose_files_are_all_missing(folder: Path) -> list[str]:
    return manifest(folder, "image,label\nnowhere/00.png,cat\nnowhere/01.png,dog\n")


def an_unknown_format(folder: Path) -> list[str]:
    (folder / "photos.rar").write_bytes(b"Rar!")
    return ["fit", "photos.rar"]


def with_photos(*arguments: str) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        photos(folder / "photos")
        return ["fit", "photos", *arguments]

    return prepare


def with_config(text: str | bytes) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        (folder / "mine.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["fit", "digits", "--config", "mine.toml"]

    return prepare


def with_plan(change: Callable[[str], str], *arguments: str) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        path = write_plan(folder / "plan.toml")
        path.write_text(change(path.read_text()))
        return ["fit", "digits", "--plan", "plan.toml", *arguments]

    return prepare


def no_run(*arguments: str) -> Prepare:
    def prepare(folder: Path) -> list[str]:
        photos(folder / "photos", 2)
        return [a.replace("PHOTOS", str(folder / "photos")) for a in arguments]

    return prepare


def out_below_a_file(folder: Path) -> list[str]:
    (folder / "file").write_text("")
    return ["fit", "digits", "--out", "file/run"]


def out_is_a_file(folder: Path) -> list[str]:
    (folder / "file").write_text("")
    return ["fit", "digits", "--out", "file"]


DATA: dict[str, tuple[Prepare, str]] = {
    "missing path": (missing_path, r"'photo' does not exist \(did you mean 'photos'\?\)"),
    "empty folder": (empty_folder, r"holds no images; give a folder with one sub-folder of images for each class"),
    "one class": (one_class, r"at least 2 classes are needed, but .* holds only 'cat' \(3 images\)"),
    "one usable image": (one_usable_image, r"'below'"),
    "corrupt zip": (corrupt_zip, r"photos\.zip"),
    "corrupt tar": (corrupt_tar, r"photos\.tar\.gz"),
    "zip with ..": (zip_leaving_its_folder, r"\.\./b/1\.png"),
    "tar with a link": (tar_with_a_link, r"b/2\.png"),
    "tar with a hard link": (tar_with_a_hard_link, r"b/2\.png"),
    "tar with an absolute path": (tar_with_an_absolute_path, r"/b/2\.png"),
    "missing column": (manifest_without_the_column, r"no column 'label' \(did you mean 'labels'\?\)"),
    "missing named column": (manifest_without_the_named_column, r"no column 'nest'"),
    "missing files": (manifest_whose_files_are_all_missing, r"not one of its 2 files exists"),
    "unknown format": (an_unknown_format, r"'photos\.rar' is none of these"),
}
SETTINGS: dict[str, tuple[Prepare, str]] = {
    "budget 1s": (
        with_photos("--budget", "1s"),
        r"a budget of 1 s is too small.*the smallest sensible one is --budget",
    ),
    "budget soon": (with_photos("--budget", "soon"), r"such as 90s, 10m or 2h, got 'soon'"),
    "budget -5": (with_photos("--budget=-5"), r"a duration is a number .* got '-5'"),
    "budget nan": (with_photos("--budget", "nan"), r"a duration is a number .* got 'nan'"),
    "unknown model": (with_photos("--model", "resnet81"), r"unknown model 'resnet81' \(did you mean 'resnet\d+'\?\)"),
    "unknown own model": (with_photos("--model", "no_such_package.nets:Net"), r"no_such_package"),
    "unknown metric": (with_photos("--metric", "acuracy"), r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"),
    "unknown optimizer": (with_photos("--optimizer", "sdg"), r"unknown optimizer 'sdg' \(did you mean 'sgd'\?\)"),
    "unknown device": (with_photos("--device", "gpu"), r"unknown device 'gpu'"),
    "unknown dtype": (with_photos("--dtype", "half"), r"unknown dtype 'half'"),
    "missing weight file": (with_photos("--weights", "w.pth", "--model", "resnet18"), r"w\.pth"),
    "lr that is no rate": (with_photos("--lr=-1"), r"optimizer\.lr lies between 0 and inf, got -1"),
    "unknown key": (with_config("[optimizer]\nlearning_rate = 1.0"), r"unknown key 'optimizer\.learning_rate'"),
    "broken TOML": (with_config("seed = = 1"), r"'mine\.toml' is no valid TOML: "),
    "binary TOML": (with_config(b"\xff\x00"), r"'mine\.toml' is no valid TOML: "),
    "wrong type": (with_config("seed = 'one'"), r"'seed' is of type int, got 'one'"),
    "missing config": (with_photos("--config", "none.toml"), r"there is no file 'none\.toml'"),
    "broken plan": (with_plan(lambda text: text + "\n[["), r"'plan\.toml' is no valid TOML"),
    "plan without a part": (
        with_plan(lambda t: t[: t.index("[search]")]),
        r"no complete plan: search, training missing",
    ),
    "plan without a key": (with_plan(lambda t: t.replace('name = "whitened"\n', "")), r"no complete plan .*name"),
    "plan with an unknown key": (
        with_plan(lambda t: t.replace("steps = 60", "setps = 60")),
        r"unknown key 'training\.setps'",
    ),
    "plan of a newer wellfit": (with_plan(lambda t: t.replace("schema = 1", "schema = 2")), r"a plan of version 2"),
    "rate beside a plan": (with_plan(lambda t: t, "--lr", "0.1"), r"--plan repeats .* so --lr cannot be given"),
    "other seed beside a plan": (with_plan(lambda t: t, "--seed", "7"), r"so --seed cannot be given beside it"),
    "missing plan": (with_photos("--plan", "none.toml"), r"there is no file 'none\.toml'"),
    "from what is no run": (with_photos("--from", "photos"), r"'photos' is no run"),
    "out below a file": (out_below_a_file, r"the run folder 'file/run' cannot be made"),
    "out is a file": (out_is_a_file, r"--out names a folder, but 'file' is a file"),
}
RUNS: dict[str, tuple[Prepare, str]] = {
    **{
        f"{name} on what is no run": (no_run(name, "PHOTOS", *more), r"photos' is no run: it has no record\.jsonl")
        for name, more in {"resume": [], "report": [], "show": [], "predict": ["a.png"], "evaluate": ["PHOTOS"]}.items()
    },
    **{
        f"{name} on a missing folder": (no_run(name, "nowhere", *more), r"'nowhere' is no folder")
        for name, more in {"resume": [], "report": [], "show": [], "predict": ["a.png"], "evaluate": ["PHOTOS"]}.items()
    },
}
USAGE: dict[str, tuple[Prepare, str]] = {
    "unknown command": (lambda folder: ["fti"], r"No such command 'fti'\. Did you mean 'fit'\?; see `wellfit --help`"),
    "unknown option": (lambda folder: ["fit", "digits", "--bugdet", "3m"], r"--bugdet.*see `wellfit fit --help`"),
    "missing argument": (lambda folder: ["fit"], r"Missing argument 'DATA'; see `wellfit fit --help`"),
    "no number": (lambda folder: ["fit", "digits", "--seed", "one"], r"'one' is not a valid integer"),
}


@pytest.mark.parametrize(
    ("prepare", "said"), [*DATA.values(), *SETTINGS.values(), *RUNS.values()], ids=[*DATA, *SETTINGS, *RUNS]
)
def test_a_mistake_is_one_sentence_and_code_2(prepare: Prepare, said: str, wellfit: Command, tmp_path: Path) -> None:
    ended = wellfit(*prepare(tmp_path), "--json")
    assert ended.code == 2
    error = ended.json["error"]
    assert error["kind"] == "user"
    assert error["message"] == ended.sentence
    assert "\n" not in error["message"]
    assert re.search(said, error["message"]), error["message"]


@pytest.mark.parametrize(("prepare", "said"), USAGE.values(), ids=USAGE)
def test_a_slip_on_the_command_line_is_one_sentence_and_code_2(
    prepare: Prepare, said: str, wellfit: Command, tmp_path: Path
) -> None:
    ended = wellfit(*prepare(tmp_path))
    assert ended.code == 2
    assert re.search(said, ended.sentence), ended.sentence
    assert ended.out == ""
    again = wellfit(*prepare(tmp_path), "--json")
    assert again.json["error"] == {"kind": "usage", "message": again.sentence}


@pytest.mark.parametrize(
    "name", ["missing path", "one class", "corrupt zip", "zip with ..", "missing column", "missing files"]
)
@pytest.mark.parametrize("command", ["audit", "check"])
def test_other_commands_on_data_say_the_same(name: str, command: str, wellfit: Command, tmp_path: Path) -> None:
    prepare, said = DATA[name]
    _, *arguments = prepare(tmp_path)
    ended = wellfit(command, *arguments)
    assert ended.code == 2
    assert re.search(said, ended.sentence)


def test_a_mistyped_path_leaves_nothing_behind(wellfit: Command, tmp_path: Path) -> None:
    wellfit("fit", "nowhere", "--out", "runs/a")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_a_device_that_is_not_here(
    wellfit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_has_mps", lambda: False)
    ended = wellfit(*with_plan(lambda text: text.replace('device = "cpu"', 'device = "mps"'))(tmp_path))
    assert ended.code == 2
    assert "device 'mps' was asked for, but torch finds none" in ended.sentence


def test_a_mistake_in_the_data_leaves_the_folder_free_for_the_corrected_command(
    wellfit: Command, tmp_path: Path
) -> None:
    ended = wellfit("fit", tmp_path, "--out", "run")
    assert "holds no images" in ended.sentence
    assert not (tmp_path / "run").exists()


def png_of(width: int, height: int) -> bytes:
    """A valid PNG header that promises width×height pixels, and hardly any data behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_bad_files_are_named_left_out_and_end_nothing(wellfit: Command, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 6)
    bad = {
        "above/huge.png": png_of(60_000, 60_000),
        "above/empty.png": b"",
        "above/text.jpg": b"this is no picture",
        "below/half.png": png(1)[:200],
        "below/pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "below/.DS_Store": b"\0\0\0\1Bud1",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    ended = wellfit("audit", "photos", "--json")
    assert ended.code == 0, ended.err
    result = ended.json
    assert result["images"] == 12
    assert result["classes"] == {"above": 6, "below": 6}
    left_out = {item["file"]: item["reason"] for item in result["left_out"]}
    assert left_out.keys() == {name for name in bad if not name.endswith(".DS_Store")}
    assert all(left_out.values())
    assert "60" in left_out["above/huge.png"]
    assert result["findings"][0]["id"] == "unreadable-files"


def test_missing_files_of_a_manifest_are_named_and_left_out(wellfit: Command, tmp_path: Path) -> None:
    photos(tmp_path / "photos", 4)
    rows = [f"photos/{name}/{i:02d}.png,{name}" for name in ("above", "below") for i in range(5)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    ended = wellfit("audit", "labels.csv", "--json")
    assert ended.code == 0
    assert ended.json["images"] == 8
    assert ended.json["left_out"] == [
        {"file": f"photos/{name}/04.png", "reason": "file not found"} for name in ("above", "below")
    ]


def test_a_folder_that_holds_other_files_is_no_run_folder(wellfit: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "plan.toml").write_text("of = 'something else'")
    ended = wellfit("fit", "digits", "--out", "mine", "--json")
    assert ended.code == 2
    assert "names a new or an empty folder" in ended.json["error"]["message"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["plan.toml"]
