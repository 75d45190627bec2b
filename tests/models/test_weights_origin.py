"""Where weights come from is said, kept with the model, and asked for by the right word (SPEC T1)."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from wellfit.errors import UserError
from wellfit.models.saved import card_of, load_model, read_card, save_model
from wellfit.models.zoo import build, weights_at_hand
from wellfit.record import RunFolder


@pytest.fixture
def cifar_file(no_network: Path) -> Path:
    """A resnet20 of ten classes under the published file's name, saved as the published one is."""
    path = no_network / "hub" / "checkpoints" / "resnet20-12fca82f.th"
    path.parent.mkdir(parents=True)
    state = build("resnet20", 10, image_size=32, seed=5).module.state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return path


def test_model_json_says_what_the_weights_were(cifar_file: Path, tmp_path: Path) -> None:
    built = build("resnet20", 3, image_size=32, weights="pretrained")
    folder = RunFolder(tmp_path / "run")
    save_model(folder, built.module, card_of(built, ["a", "b", "c"], 32, {}))
    weights = read_card(folder)["weights"]
    assert weights["classes"] == 10
    assert weights["licence"] == "BSD-2-Clause"
    assert weights["source"].endswith("resnet20-12fca82f.th")
    assert weights["preprocessing"] == {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "image_size": 32,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    assert load_model(folder)[1]["classes"] == ["a", "b", "c"]


def test_a_start_from_random_numbers_has_no_origin() -> None:
    weights = card_of(build("resnet20", 3, image_size=32), ["a", "b", "c"], 32, {})["weights"]
    assert set(weights.values()) == {None}


def test_the_prefix_of_data_parallel_training_is_understood_and_said(cifar_file: Path) -> None:
    built = build("resnet20", 10, image_size=32, weights=cifar_file)
    assert any("begin with 'module.', which was taken off" in note for note in built.notes)
    assert built.weights_classes == 10
    assert built.mean == [0.485, 0.456, 0.406]  # the file's name says whose it is


def test_a_file_without_a_classifier_has_no_class_count(tmp_path: Path) -> None:
    state = build("lenet5", 10, image_size=32, seed=5).module.state_dict()
    last = list(state)[-1].rpartition(".")[0]
    backbone = {key: value.contiguous() for key, value in state.items() if not key.startswith(last)}
    safetensors.torch.save_file(backbone, tmp_path / "backbone.safetensors")
    built = build("lenet5", 4, image_size=32, weights=tmp_path / "backbone.safetensors")
    assert built.weights_classes is None
    assert any("has no classifier" in note for note in built.notes)


def test_imagenet_does_not_mean_cifar(cifar_file: Path) -> None:
    assert weights_at_hand("resnet20") is None
    with pytest.raises(UserError, match="trained on CIFAR-10, not on ImageNet: ask for them with --weights pretrained"):
        build("resnet20", 10, image_size=32, weights="imagenet")


def test_a_file_that_does_not_fit_names_the_one_that_would_and_its_place(no_network: Path, tmp_path: Path) -> None:
    torch.save(build("plain20", 10, image_size=32).module.state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"does not fit.*resnet32-d509ac18\.th in '.*checkpoints'.*pretrained"
    ) as caught:
        build("resnet32", 10, image_size=32, weights=tmp_path / "other.pth")
    assert str(no_network) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_network_names_the_file_and_its_place(no_network: Path) -> None:
    with pytest.raises(UserError, match=r"resnet56-4bfd9763\.th.*put that file into '.*checkpoints'"):
        build("resnet56", 10, image_size=32, weights="pretrained")
