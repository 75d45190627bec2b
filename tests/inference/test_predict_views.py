"""Prediction, evaluation and export over several views: what the card names, or what is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
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


def test_the_exported_graph_holds_flip_and_says_what_it_does_not_hold(tmp_path: Path) -> None:
    module = build("whitened", 3, image_size=16, seed=1, widths=[8, 8, 8]).module.eval()
    graph = ImageGraph(module, SIZES, short_side=320, temperature=0.05, fixed=False, mirrored=True).eval()
    images = random_images(3, 40, 40)
    with torch.no_grad():
        got = graph(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    logits = answers_over_views(module, MemoryStore(images), np.arange(3), "flip", engine=CPU, preprocessing=SIZES)
    np.testing.assert_allclose(got, softmax(logits / 0.05), atol=1e-4)
    flip = export_model(saved(tmp_path / "flip", "flip"), "torchscript")
    assert not any("views" in note for note in flip["notes"])
    ten = export_model(saved(tmp_path / "ten", "ten"), "torchscript")
    assert any("over the views 'ten'" in note and "centre view alone" in note for note in ten["notes"])
    assert (flip["views"], ten["views"]) == ("flip", "none")
    extra = {"wellfit.json": ""}
    torch.jit.load(ten["file"], _extra_files=extra)
    told = json.loads(extra["wellfit.json"])
    assert (told["views"], told["views_of_the_model"]) == ("none", "ten")
