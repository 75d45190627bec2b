"""Exported files, run by other programs, against the run's own predictions."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from tests.recipe.plans import longer, small_plan, without_page, write_plan
from wellfit.data.decode import decode
from wellfit.data.sources import open_source
from wellfit.errors import UserError
from wellfit.inference.export import export_model
from wellfit.inference.predict import predict
from wellfit.models.saved import card_of, load_model, save_model
from wellfit.models.zoo import build
from wellfit.recipe.api import fit
from wellfit.record import Record, RunFolder

NETS = """
import torch
from torch import nn

class Branching(nn.Module):
    '''Takes another path where the image is bright.'''

    def __init__(self, num_classes):
        super().__init__()
        self.body, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, num_classes)

    def forward(self, x):
        x = self.body(x).flatten(1)
        if x.sum() > 0:
            x = x * 3
        return self.fc(x)

class Counting(Branching):
    '''Takes another path for more than two images.'''

    def forward(self, x):
        many = len(x) > 2
        return self.fc(self.body(x).flatten(1) * (-3 if many else 1))

class Twisted(Branching):
    '''Uses an operation that ONNX does not have.'''

    def forward(self, x):
        return self.fc(torch.special.bessel_j0(self.body(x).flatten(1)))
"""


def saved(path: Path, name: str, image_size: int, classes: int = 3, **options: Any) -> RunFolder:
    """A folder with an untrained model in it, and a record, so that it passes for a run."""
    folder = RunFolder(path)
    record = Record(folder.record)
    record.write("run", schema=1)
    record.close()
    built = build(name, classes, image_size=image_size, **options)
    preprocessing = {"size": image_size, "resize": image_size, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    engine = {"device": "cpu", "dtype": "float32", "layout": "contiguous", "threads": 1}
    card = card_of(built, [f"class {i}" for i in range(classes)], image_size, preprocessing)
    save_model(folder, built.module, {**card, "engine": engine, "temperature": 0.7})
    return folder


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_nets.py").write_text(NETS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "odd_nets", raising=False)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("digits")
    with without_page():
        return fit("digits", plan=write_plan(folder / "p.toml"), out=folder / "run").folder


def onnx_answers(path: str | Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def table(folder: RunFolder, images: list[Any]) -> tuple[list[str], np.ndarray]:
    answers = list(predict(folder, images))
    return [a["label"] for a in answers], np.array([list(a["probabilities"].values()) for a in answers])


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_every_digit_of_the_test_split_gets_the_answer_of_predict(
    digits_run: RunFolder, tmp_path: Path, to: str
) -> None:
    result = export_model(digits_run, to, tmp_path / "model")
    assert result["checked"]["difference"] < 1e-5
    source = open_source("digits")
    seen = np.load(digits_run.arrays / "answers-test.npz")
    assert len(seen["targets"]) == 269
    images = [np.asarray(source.reader.read(i)) for i in range(0, len(source), 3)]
    labels, expected = table(digits_run, images)
    pixels = np.stack([decode(image) for image in images]).transpose(0, 3, 1, 2)
    if to == "onnx":
        found = onnx_answers(result["file"], pixels)
    else:
        found = torch.jit.load(result["file"])(torch.from_numpy(pixels.copy())).detach().numpy()
    assert np.abs(found - expected).max() < 1e-4
    classes = load_model(digits_run)[1]["classes"]
    assert [classes[i] for i in found.argmax(1)] == labels


def test_photographs_of_all_sizes_get_the_answers_of_predict(test_data: Path, tmp_path: Path) -> None:
    archive = test_data / "data" / "ants-bees.tar"
    model = small_plan().model
    plan = write_plan(
        tmp_path / "p.toml",
        model=type(model)("whitened", "none", 64, 73, "none", 0, {"widths": [8, 16, 16]}),
        training=longer(12, batch_size=16, steps_per_epoch=10),
    )
    with without_page():
        folder = fit(archive, plan=plan, out=tmp_path / "run", force=True).folder
    with tarfile.open(archive) as files:
        files.extractall(tmp_path / "photos", filter="data")
    photos = sorted(p for p in (tmp_path / "photos").rglob("*.jpg") if "val" in p.parts)
    assert len(photos) > 100
    labels, expected = table(folder, photos)
    file = export_model(folder, "onnx")["file"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    classes = load_model(folder)[1]["classes"]
    compared = 0
    for photo, label, probabilities in zip(photos, labels, expected, strict=True):
        pixels = decode(photo.read_bytes())
        if min(pixels.shape[:2]) >= 1280:  # such JPEG files are decoded at half their size by predict
            continue
        found = session.run(None, {"images": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})[0][0]
        assert np.abs(found - probabilities).max() < 1e-4, photo
        assert classes[int(found.argmax())] == label
        compared += 1
    assert compared > 100


def test_the_file_says_what_it_takes_and_gives(digits_run: RunFolder, tmp_path: Path) -> None:
    result = export_model(digits_run, "onnx", tmp_path / "m.onnx")
    model = onnx.load(result["file"])
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["classes"]) == load_model(digits_run)[1]["classes"]
    assert (
        told["input"] == result["input"] == "images: uint8 N×3×H×W, RGB, 0-255: whole images upright, N, H and W free"
    )
    assert told["output"] == result["output"]
    taken = model.graph.input[0]
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    extra = {"wellfit.json": ""}
    torch.jit.load(export_model(digits_run, "torchscript", tmp_path / "m.pt")["file"], _extra_files=extra)
    assert json.loads(extra["wellfit.json"])["classes"] == told["classes"]


def test_a_fixed_file_takes_views_and_holds_no_resize(digits_run: RunFolder, tmp_path: Path) -> None:
    result = export_model(digits_run, "onnx", tmp_path / "fixed.onnx", fixed=True)
    kinds = {node.op_type for node in onnx.load(result["file"]).graph.node}
    assert "Range" not in kinds
    views = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    _, expected = table(digits_run, list(views.transpose(0, 2, 3, 1)))
    assert np.abs(onnx_answers(result["file"], views) - expected).max() < 1e-4


def test_weights_alone_can_be_loaded_and_say_whose_they_are(digits_run: RunFolder, tmp_path: Path) -> None:
    result = export_model(digits_run, "safetensors", tmp_path / "w.safetensors")
    module, card = load_model(digits_run)
    with safetensors.safe_open(result["file"], framework="pt") as file:
        told = json.loads(file.metadata()["wellfit"])
    assert told["classes"] == card["classes"]
    assert told["preprocessing"] == card["preprocessing"]
    module.load_state_dict(safetensors.torch.load_file(result["file"]))
    first = Path(result["file"]).read_bytes()
    assert Path(export_model(digits_run, "safetensors", tmp_path / "w2.safetensors")["file"]).read_bytes() == first
    assert result["checked"] is None


@pytest.mark.parametrize(("name", "image_size"), [("resnet20", 32), ("lenet5", 28)])
def test_nets_of_several_makes(tmp_path: Path, name: str, image_size: int) -> None:
    folder = saved(tmp_path / "run", name, image_size)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 50, 41), dtype=np.uint8)
    _, expected = table(folder, list(pictures.transpose(0, 2, 3, 1)))
    assert np.abs(onnx_answers(export_model(folder, "onnx")["file"], pictures) - expected).max() < 1e-4


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("name", "to", "why"),
    [
        ("odd_nets:Twisted", "onnx", r"the operation (aten|prims)\.\w*bessel_j0\S* stands in the way"),
        ("odd_nets:Branching", "onnx", "a branch or loop on a tensor stands in the way"),
        ("odd_nets:Counting", "torchscript", "answers otherwise than the network"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(tmp_path: Path, name: str, to: str, why: str) -> None:
    folder = saved(tmp_path / "run", name, 8)
    module, card = load_model(folder)
    nn.init.normal_(module.get_parameter("fc.weight"), 0.0, 3.0, generator=torch.Generator().manual_seed(0))
    save_model(folder, module, card)
    with pytest.raises(UserError, match=why) as raised:
        export_model(folder, to)
    assert "\n" not in str(raised.value)
    assert not (folder.path / "export").exists()


def test_a_missing_package_is_one_sentence(
    digits_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("wellfit.inference.export.find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(UserError, match=r"needs onnxscript, which is not installed; pip install 'wellfit\[onnx\]'"):
        export_model(digits_run, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "out", "rule"),
    [
        ("tflite", "m", "unknown export format 'tflite'"),
        ("onnx", "", "is a folder; add a name"),
        ("safetensors", "model.safetensors", "must not replace"),
    ],
)
def test_slips_are_said(digits_run: RunFolder, to: str, out: str, rule: str) -> None:
    before = digits_run.model_weights.read_bytes()
    with pytest.raises(UserError, match=rule):
        export_model(digits_run, to, digits_run.path / out)
    assert digits_run.model_weights.read_bytes() == before
