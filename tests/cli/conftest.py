"""The command run in this process (starting Python and torch anew would take seconds), and small inputs for it."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.recipe.plans import write_plan
from wellfit import cli


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line of stderr, which must be the error, in one line, with no traceback anywhere."""
        assert "Traceback" not in self.out + self.err
        last = self.err.splitlines()[-1]
        assert last.startswith("wellfit: "), self.err
        return last.removeprefix("wellfit: ")

    @property
    def json(self) -> dict[str, Any]:
        """The last line of stdout."""
        values = json.loads(self.out.splitlines()[-1])
        assert values["schema"] == 1
        return dict(values)


Command = Callable[..., Ended]


@pytest.fixture
def wellfit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """wellfit("fit", "digits", …) in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["wellfit", *map(str, arguments)])
        monkeypatch.setattr(cli, "STARTED", time.monotonic())
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not (tmp_path / "wellfit-defect.txt").exists(), (tmp_path / "wellfit-defect.txt").read_text()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def png(seed: int, size: int = 20) -> bytes:
    """A small picture: even seeds are bright above, odd ones below, so that two classes can be told apart."""
    pixels = np.random.default_rng(seed).integers(0, 100, (size, size, 3))
    pixels[: size // 2] += 150 * (seed % 2 == 0)
    pixels[size // 2 :] += 150 * (seed % 2)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def photos(root: Path, images: int = 20, classes: tuple[str, ...] = ("above", "below")) -> Path:
    """A folder of class folders, `images` pictures each."""
    for number, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(images):
            (folder / f"{i:02d}.png").write_bytes(png(i * len(classes) + number))
    return root


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the built-in digits. Not to be written to."""
    from wellfit.recipe.api import fit

    folder = tmp_path_factory.mktemp("finished")
    fit("digits", plan=write_plan(folder / "small.toml"), out=folder / "run")
    return folder / "run"
