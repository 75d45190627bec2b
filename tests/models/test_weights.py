from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from wellfit.errors import UserError
from wellfit.models.weights import read_state
from wellfit.models.zoo import build


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return build("resnet20", 10, image_size=32, seed=5).module.state_dict()


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "best_prec1": torch.tensor(91.7), "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict_ema": s, "state_dict": {k: torch.zeros_like(v) for k, v in s.items()}},
        lambda s: {k.replace("layer1.", "layer1._orig_mod."): v for k, v in s.items()},
    ],
)
def test_wrappers_and_prefixes_are_understood(state: dict, wrap, tmp_path: Path) -> None:
    built = build("resnet20", 10, image_size=32, weights=write(tmp_path / "w.pth", wrap(state)))
    assert same(built.module, state)
    assert built.source == str(tmp_path / "w.pth")


def test_safetensors_are_read(state: dict, tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    built = build("resnet20", 10, image_size=32, weights=str(tmp_path / "w.safetensors"))
    assert same(built.module, state)


def test_half_precision_becomes_float32(state: dict, tmp_path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    module = build("resnet20", 10, image_size=32, weights=write(tmp_path / "w.pt", halves)).module
    assert module.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(module.conv1.weight, state["conv1.weight"], atol=1e-3, rtol=1e-3)


def test_another_class_count_makes_a_new_classifier_and_says_so(state: dict, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", state)
    built = build("resnet20", 3, image_size=32, weights=path)
    assert built.module.linear.weight.shape == (3, 64)
    assert torch.equal(built.module.layer3[2].conv2.weight, state["layer3.2.conv2.weight"])
    assert any("has 10 classes: a new one for 3" in note for note in built.notes)
    assert not any("classes" in n for n in build("resnet20", 10, image_size=32, weights=path).notes)


def test_a_backbone_without_classifier_is_noted(state: dict, tmp_path: Path) -> None:
    backbone = {k: v for k, v in state.items() if not k.startswith("linear.")}
    built = build("resnet20", 10, image_size=32, weights=write(tmp_path / "w.pth", backbone))
    assert any("has no classifier" in note for note in built.notes)


def test_weights_of_another_architecture_are_counted_and_named(state: dict, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", state)
    with pytest.raises(UserError, match=r"missing \(layer1\.3\.conv1\.weight.*choose the model"):
        build("resnet32", 10, image_size=32, weights=path)
    with pytest.raises(UserError, match=r"1 of another shape \(conv1\.weight 16×3×3×3 instead of 16×1×3×3\)"):
        build("resnet20", 10, image_size=32, weights=path, channels=1)
    with pytest.raises(UserError, match="unknown to the model"):
        build("plain20", 10, image_size=32, weights=write(tmp_path / "x.pth", {**state, "extra": torch.zeros(2)}))


def test_a_classifier_of_another_width_is_another_architecture(state: dict, tmp_path: Path) -> None:
    wide = {**state, "linear.weight": torch.zeros(5, 128), "linear.bias": torch.zeros(5)}
    with pytest.raises(UserError, match="of another shape"):
        build("resnet20", 10, image_size=32, weights=write(tmp_path / "w.pth", wide))


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.target,))


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    for writer in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        writer({"state_dict": Payload(target)}, tmp_path / "bad.pth")
        with pytest.raises(UserError, match=r"bad\.pth"):
            read_state(tmp_path / "bad.pth")
        assert not target.exists()


def test_code_in_a_checkpoint_is_called_code(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="pickled code, which is never run"):
        read_state(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "cannot be read"),
        ("w.pth", b"no weights at all", "cannot be read"),
        ("w.safetensors", b"\x10\x00", "cannot be read"),
        ("w.onnx", b"abc", "ends in one of"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_state(tmp_path / name)


def test_a_truncated_file_is_damaged(state: dict, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", state)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        read_state(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none at"):
        read_state(tmp_path / "none.pth")
    with pytest.raises(UserError, match="tensors by name"):
        read_state(write(tmp_path / "w.pth", {}))
    with pytest.raises(UserError, match="tensors by name"):
        read_state(write(tmp_path / "v.pth", {"optimizer": {"lr": 0.1}}))


def test_versions_of_layers_survive_the_reading(tmp_path: Path) -> None:
    module = build("mnasnet0_5", 10, image_size=32, seed=3).module
    path = write(tmp_path / "w.pth", OrderedDict(module.state_dict()))
    assert same(build("mnasnet0_5", 10, image_size=32, weights=path).module, module.state_dict())
    safetensors.torch.save_file(module.state_dict(), tmp_path / "w.safetensors")
    again = build("mnasnet0_5", 10, image_size=32, weights=tmp_path / "w.safetensors").module
    assert same(again, module.state_dict())


def test_a_real_backbone_of_another_width(real_weights: Path) -> None:
    path = real_weights / "mobilenet_v2_035_backbone_torchvision_keys.pth"
    built = build("mobilenet_v2", 2, image_size=64, weights=path, width_mult=0.35)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    assert torch.equal(built.module.features[18][0].weight, stored["features.18.0.weight"])
    assert any("has no classifier" in note for note in built.notes)
    assert any("assumed" in note for note in built.notes)
    with pytest.raises(UserError, match="of another shape"):
        build("mobilenet_v2", 2, image_size=64, weights=path)
