"""Going on from an earlier run (`fit --from RUN`): its network, its preprocessing, its classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wellfit.config import Config
from wellfit.data.preprocess import Preprocessing
from wellfit.findings import Finding
from wellfit.models.head import classifier_of, replace_classifier
from wellfit.models.saved import read_card
from wellfit.record import RunFolder, read_record

if TYPE_CHECKING:
    from wellfit.recipe.prepare import Prepared


def going_on(config: Config, earlier: str | Path) -> Config:
    """The configuration that starts from an earlier run's network, at its image size."""
    folder = RunFolder.open(earlier)
    made = read_card(folder)["architecture"]
    return config.replace(
        **{
            "model.name": made["name"],
            "model.options": made["options"],
            "model.image_size": int(made["image_size"]),
            "model.weights": str(folder.model_weights.resolve()),
        }
    )


def card_beside(weights: str) -> dict[str, Any] | None:
    """The model card that stands beside a run's weight file; None for weights of any other origin."""
    folder = RunFolder(Path(weights).parent)
    if Path(weights).name != folder.model_weights.name or not folder.model_card.exists():
        return None
    card: dict[str, Any] = json.loads(folder.model_card.read_text(encoding="utf-8"))
    return card


def preprocessing_beside(weights: str) -> Preprocessing | None:
    """The preprocessing that the weights were trained with, where they come from a run."""
    card = card_beside(weights)
    return None if card is None else Preprocessing.from_dict(card["preprocessing"])


def perhaps_seen(weights: str, data: Any, prepared: Prepared, seed: int) -> Finding | None:
    """Says that test images carved now may have trained the earlier network; None where they cannot have.

    They cannot where the test split was given, or where the same data were divided with the same seed.
    """
    test = len(prepared.split.test)
    if "test" in prepared.source.splits or not test:
        return None
    lines = list(read_record(RunFolder(Path(weights).parent).record))
    before = next((line for line in lines if line["kind"] == "run"), {})
    audited: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "audit"), {})
    place = str(Path(data).resolve()) if isinstance(data, str | Path) and Path(data).exists() else data
    sizes = {"train": len(prepared.split.train), "validation": len(prepared.split.validation), "test": test}
    same_data = isinstance(place, str) and before.get("request", {}).get("data") == place
    if same_data and before.get("seed") == seed and audited.get("splits") == sizes:
        return None
    return Finding(
        "test-perhaps-seen",
        "warning",
        f"the {test:,} test images were carved from these data, and the network gone on from may have been trained on "
        "some of them, so the test accuracy may be too high",
        {"test_images": test, "earlier": str(Path(weights).parent)},
        "name images that neither run has trained on with --test DIR",
        "SPEC D5",
    )


def match_classes(module: nn.Module, before: list[str], now: list[str], seed: int, image_size: int) -> None:
    """Order the classifier's rows by today's classes, in place; a class that is new starts afresh."""
    if before == now:
        return
    _, old = classifier_of(module, image_size)
    weight, bias = old.weight.detach().clone(), None if old.bias is None else old.bias.detach().clone()
    if len(before) != len(now):
        replace_classifier(module, len(now), seed, image_size)
    _, new = classifier_of(module, image_size)
    with torch.no_grad():
        for position, name in enumerate(now):
            if name in before:
                new.weight[position] = weight[before.index(name)]
                if bias is not None and new.bias is not None:
                    new.bias[position] = bias[before.index(name)]
