"""The sides that are compared do the same work, and what was measured is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_probe import judged
from kept_lines import KeptLines
from peak_share import OTHERS, kind_of
from training_sides import ByHand, Case, Default, MadeImages, Ours
from training_step import main

from wellfit.engine import CORES, Engine


@pytest.mark.parametrize("model", ["lenet5", "resnet18"])
def test_all_sides_start_from_the_same_loss_and_learn(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 and without mirrored images they are one training, but for the default's decay of biases."""
    case = Case(model, 32, 8, 1.0)
    images, engine = MadeImages(16, 32), Engine("cpu", "float32", "channels_last", CORES)
    batches = images.batches(32, 8, ())
    monkeypatch.setattr("training_sides.WORKERS", 0)
    hand, ours = ByHand(case.network(), images, batches, engine), Ours(case.network(), batches, engine)
    default = Default(case.network(), images, batches)
    monkeypatch.setattr(hand, "draw", type("Never", (), {"random": lambda self, count: np.ones(count)})())
    monkeypatch.setattr("training_sides.torch.rand", lambda shape: np.ones(()))
    expected = ours.turn(2) + ours.turn(2)
    np.testing.assert_allclose(hand.turn(4), expected, rtol=1e-4)
    np.testing.assert_allclose(default.turn(4), expected, rtol=1e-3)
    assert expected[-1] < expected[0]
    assert len(ours.lines) >= 4
    ours.close()


def test_rows_are_kept_and_a_torn_one_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "rows" / "kept.jsonl"
    KeptLines(file).add({"case": "a", "repeat": 0})
    with file.open("a") as stream:
        stream.write('{"case": "a", "rep')
    kept = KeptLines(file)
    assert kept.has(case="a", repeat=0)
    assert not kept.has(case="a", repeat=1)
    kept.add({"case": "a", "repeat": 1})
    assert KeptLines(file).rows == [{"case": "a", "repeat": 0}, {"case": "a", "repeat": 1}]


def test_an_unknown_case_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["resnet18-31"])
    assert "resnet18-224" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "convolutions and products"),
        ("aten::convolution_backward", "convolutions and products"),
        ("aten::native_batch_norm_backward", "BatchNorm"),
        ("aten::threshold_backward", "activations"),
        ("aten::max_pool2d_with_indices_backward", "pooling"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::copy_", "copies"),
        ("aten::add_", "additions"),
        ("aten::addmm", "convolutions and products"),
        ("aten::argmax", OTHERS),
    ],
)
def test_operations_are_told_apart_by_their_names(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_choice_is_judged_against_the_fastest_setting() -> None:
    def setting(dtype: str, speeds: list[float]) -> dict[str, object]:
        return {"dtype": dtype, "layout": "channels_last", "threads": 1, "speeds": speeds}

    settings = [setting("float32", [50.0, 52.0, 51.0]), setting("bfloat16", [100.0, 90.0, 101.0])]
    row = {"chosen": {"dtype": "bfloat16", "layout": "channels_last", "threads": 1}}
    assert judged(row, settings) == "best"
    row["chosen"]["dtype"] = "float32"
    assert judged(row, settings) == "missed (0.51)"
    settings[0]["speeds"] = [91.0, 92.0, 93.0]
    assert judged(row, settings) == "as good (0.92)"
