"""Prediction, evaluation and export over several views: what the card names, or what is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.data.memory_store import MemoryStore, random_images
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.export import export_model
from wellfit.inference.image_graph import ImageGraph
from wellfit.inference.predict import predict
from wellfit.inference.views import VIEWS, answers_over_views
from wellfit.models.saved import card_of, save_model
from wellfit.models.zoo import build
from wellfit.record import RunFolder

CPU = Engine("cpu", "float32", "contiguous", 1)
SIZES = Preprocessing(16, 18, (0.5,) * 3, (0.25,) * 3)


def saved(path: Path, views: str | None) -> RunFolder:
    """A small network with random weights and that many views in its card."""
    path.mkdir()
    folder = RunFolder(path)
    folder.record.write_text('{"kind": "run", "schema": 1}\n', encoding="utf-8")
    built = build("whitened", 3, image_size=16, seed=1, widths=[8, 8, 8])
    card = card_of(built, ["a", "b", "c"], 16, SIZES.as_dict())
    card |= {"temperature": 0.05, "engine": CPU.as_dict()} | ({} if views is None else {"views": views})
    save_model(folder, built.module, card)
    return folder


def table(answers: list[dict[str, object]]) -> np.ndarray:
    return np.array([list(answer["probabilities"].values()) for answer in answers])


@pytest.mark.parametrize("views", VIEWS)
def test_a_prediction_is_the_mean_over_the_views_asked_for(tmp_path: Path, views: str) -> None:
    images = [random_images(1, 20 + 4 * i, 30, seed=i)[0] for i in range(3)]
    got = table(list(predict(saved(tmp_path / "run", None), images, views=views)))
    module = build("whitened", 3, image_size=16, seed=1, widths=[8, 8, 8]).module
    logits = answers_over_views(module, MemoryStore(images), np.arange(3), views, engine=CPU, preprocessing=SIZES)
    np.testing.assert_allclose(got, softmax(logits / 0.05), atol=2e-5)


def test_without_a_wish_the_cards_views_are_taken_and_an_older_card_has_one(tmp_path: Path) -> None:
    images = list(random_images(2, 24, 24))
    kept, older = saved(tmp_path / "kept", "shift-flip"), saved(tmp_path / "older", None)
    assert list(predict(kept, images)) == list(predict(older, images, views="shift-flip"))
    assert list(predict(older, images)) == list(predict(kept, images, views="none"))
    assert list(predict(kept, images)) != list(predict(older, images))


def test_a_bad_file_between_images_is_named_and_passed_over(tmp_path: Path) -> None:
    images: list[object] = [*random_images(2, 24, 24)]
    images.insert(1, tmp_path / "missing.jpg")
    answers = list(predict(saved(tmp_path / "run", "five"), images))
    assert ["error" in answer for answer in answers] == [False, True, False]
    whole = list(predict(saved(tmp_path / "again", "five"), [images[0], images[2]]))
    assert answers[2]["probabilities"] == whole[1]["probabilities"]


def test_unknown_views_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'shift'"):
        next(predict(RunFolder(tmp_path), [], views="shifd"))


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("mean_image", [False, True])
def test_an_exported_graph_averages_over_the_views(views: str, mean_image: bool) -> None:
    image = np.random.default_rng(3).random((16, 16, 3)).astype(np.float32) if mean_image else None
    sizes = Preprocessing(16, 18, (0.4, 0.5, 0.6), (1.0, 1.0, 1.0), "any", image)
    module = build("whitened", 3, image_size=16, seed=1, widths=[8, 8, 8]).module.eval()
    graph = ImageGraph(module, sizes, short_side=320, temperature=0.05, fixed=False, views=views).eval()
    images = random_images(3, 40, 44)
    with torch.no_grad():
        got = graph(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    logits = answers_over_views(module, MemoryStore(images), np.arange(3), views, engine=CPU, preprocessing=sizes)
    np.testing.assert_allclose(got, softmax(logits / 0.05), atol=1e-3)


def test_an_onnx_file_averages_over_views_of_any_number_of_images(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", "shift-flip")
    told = export_model(run, "onnx")
    session = onnxruntime.InferenceSession(told["file"], providers=["CPUExecutionProvider"])
    for number, height, width in [(1, 40, 44), (5, 33, 20)]:
        images = random_images(number, height, width)
        found = session.run(None, {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
        np.testing.assert_allclose(found, table(list(predict(run, images))), atol=1e-3)


def test_a_file_says_which_views_it_holds_and_what_it_does_not_hold(tmp_path: Path) -> None:
    ten = saved(tmp_path / "ten", "ten")
    told = export_model(ten, "torchscript")
    assert told["views"] == "ten"
    assert not any("views" in note for note in told["notes"])
    images = random_images(3, 40, 44)
    found = torch.jit.load(told["file"])(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(found, table(list(predict(ten, images))), atol=1e-3)
    fixed = export_model(ten, "torchscript", tmp_path / "fixed.pt", fixed=True)
    assert fixed["views"] == "none"
    assert any("over the views 'ten'" in note and "centre view alone" in note for note in fixed["notes"])
    extra = {"wellfit.json": ""}
    torch.jit.load(fixed["file"], _extra_files=extra)
    kept = json.loads(extra["wellfit.json"])
    assert (kept["views"], kept["views_of_the_model"]) == ("none", "ten")
