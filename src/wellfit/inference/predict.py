"""Predicting with a run's model: one answer a file, and a bad file never ends the others' turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wellfit.data.decode import Undecodable, decode
from wellfit.data.preprocess import Preprocessing
from wellfit.data.views import evaluation_view
from wellfit.engine import Engine, engine_here
from wellfit.errors import UserError
from wellfit.inference.evaluate import softmax
from wellfit.inference.views import answers_over_views, preset
from wellfit.models.saved import load_model
from wellfit.record import RunFolder

BATCH = 32
SHORT_SIDE = 320  # to which larger images are reduced first, as the pixel store does


def predict(
    folder: RunFolder, images: Sequence[Any], *, abstain: float | None = None, views: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield {"file", "label", "probabilities"} or {"file", "error"} for each image, in order.

    images: file names, H×W or H×W×3 uint8 arrays, or PIL images; anything without a name is called "image 3".
    abstain: the share of wrong answers to stay below (0.01, 0.02, 0.05, 0.1 or 0.2): an image whose confidence is
        under the threshold found on validation gets label None and "abstained": True.
    views: a name of `views.VIEWS`, over which the probabilities of each image are averaged; by default those that the
        model's card names, since its temperature and thresholds were found with them.

    Raises UserError where the folder holds no model or the rate has no threshold, and for unknown views.
    """
    if views is not None:
        preset(views)
    module, card = load_model(folder)
    preprocessing = Preprocessing.from_dict(card["preprocessing"])
    engine = engine_here(Engine(**card["engine"]))
    engine.place(module)
    threshold = _threshold(card, abstain)
    views = views or str(card.get("views", "none"))
    for begin in range(0, len(images), BATCH):
        answers: list[dict[str, Any]] = []
        read: list[np.ndarray] = []
        for position, image in enumerate(images[begin : begin + BATCH], start=begin):
            answers.append({"file": name_of(image, position)})
            try:
                pixels = pixels_of(image, preprocessing)
                if views == "none":  # the rest of the image need not be kept
                    pixels = evaluation_view(pixels, preprocessing.resize, preprocessing.size)
                read.append(pixels)
            except (Undecodable, OSError) as error:
                answers[-1]["error"] = reason_of(error)
        if read:
            if views == "none":
                stacked = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2)
                with torch.inference_mode(), engine.autocast():
                    logits = module(engine.inputs(stacked, preprocessing)).float().cpu().numpy()
            else:
                logits = answers_over_views(
                    module, _InMemory(read), np.arange(len(read)), views, engine=engine, preprocessing=preprocessing
                )
            rows = iter(softmax(logits / card.get("temperature", 1.0)))
            for answer in answers:
                if "error" not in answer:
                    answer |= _answer(next(rows), card["classes"], threshold)
        yield from answers


class _InMemory:
    """A few images, as the views read them."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self.images = images

    def image(self, index: int) -> np.ndarray:
        return self.images[index]

    def uniform(self) -> np.ndarray | None:
        return None


def _answer(probabilities: np.ndarray, classes: list[str], threshold: float | None) -> dict[str, Any]:
    best = int(probabilities.argmax())
    answer: dict[str, Any] = {"label": classes[best]}
    if threshold is not None:
        answer["abstained"] = bool(probabilities[best] < threshold)
        if answer["abstained"]:
            answer["label"] = None
    answer["probabilities"] = {name: round(float(p), 6) for name, p in zip(classes, probabilities, strict=True)}
    return answer


def _threshold(card: dict[str, Any], rate: float | None) -> float | None:
    if rate is None:
        return None
    known = {float(key): value for key, value in card.get("abstention_thresholds", {}).items()}
    if rate not in known:
        listed = ", ".join(f"{key:g}" for key in sorted(known)) or "none"
        raise UserError(f"--abstain takes an error rate that the model has a threshold for ({listed}), got {rate:g}")
    value = known[rate]
    return float("inf") if value is None else float(value)


def name_of(image: Any, position: int) -> str:
    """What an image is called in an answer: its file, or "image 3"."""
    if isinstance(image, str | Path):
        return str(image)
    return getattr(image, "filename", "") or f"image {position}"


def pixels_of(image: Any, preprocessing: Preprocessing) -> np.ndarray:
    """H×W×3 uint8 of a file, an array or a PIL image, at the short side that a prediction starts from.

    Raises Undecodable or OSError.
    """
    return decode(_content(image), short_side=max(preprocessing.resize, SHORT_SIDE))


def _content(image: Any) -> bytes | np.ndarray:
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    array = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if array.dtype != np.uint8:
        raise Undecodable(f"pixels are uint8 in 0-255, got {array.dtype}")
    return array


def reason_of(error: Exception) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
