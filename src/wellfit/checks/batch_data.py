"""What batches of tensors say of the data behind them: the audit's findings where there are no files to look at."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.checks.losses import LossKind
from wellfit.checks.sandbox import copy_of, own_randomness, without_noise
from wellfit.checks.targets import class_of
from wellfit.data.appearance import MISTAKES, PIXEL_MEASURES, Measure
from wellfit.data.audit_findings import IMBALANCE_LARGE
from wellfit.data.preparation import Sample, contrasts
from wellfit.data.split_mismatch import ACTION, mismatch_finding
from wellfit.diagnosis.entrance import FIRST_LAYERS, received
from wellfit.diagnosis.inputs import measure, sum_up_inputs, to_host
from wellfit.diagnosis.rules.likeness import lasting_difference
from wellfit.diagnosis.scale import is_unusual
from wellfit.findings import Finding

# Augmentation changes texture and layout of the training images; it leaves these alone, contrast within half.
KEPT_BY_AUGMENTATION = ("brightness", "warmth", "green")
SCALES = 0.5  # log of how many times as wide the values of one side are
BRIGHTNESS = 0.06  # of four standard deviations of the training images
IMAGES = 400
# Images of a batch whose figures are taken together, and of a side, in classes that both have.
BATCH, FEWEST = 25, 40
# Smoothness of images no smaller than this: differences in either direction, standard errors, what photographs stay
# below at the sizes that networks are fed, and how much more the plainest blocks of the training images may differ from
# pixel to pixel before it is noise.
SMALLEST, SMOOTHER, ROUGHER, NOISE, SMOOTH, BLOCK, GRAINY = 16, 0.18, 0.45, 6.0, 1.78, 4, 0.2
# The quantile that sparse noise leaves alone; images of a side that are looked at so closely.
USUAL, TEXTURES = 0.6, 120


def not_finite(inputs: Tensor) -> list[Finding]:
    """Images that hold NaN or infinite values. inputs: N×…"""
    bad = int((~torch.isfinite(inputs).flatten(1).all(1)).sum())
    if not bad:
        return []
    return [
        Finding(
            "nan",
            "error",
            f"{bad:,} of {len(inputs):,} images hold values that are not finite",
            {"images": bad, "of": len(inputs)},
            "look for a division by zero in the preprocessing, such as by the standard deviation of a blank image",
            "SPEC D3",
        )
    ]


def unnormalised(module: nn.Module, inputs: Tensor, seed: int = 0) -> list[Finding]:
    """What enters the first layer with weights is far from centred and scaled.

    A module that normalises its input itself, by a first BatchNorm or by hand, is not accused.
    """
    entering = _received(module, inputs, seed).double()
    if not entering.numel() or not bool(torch.isfinite(entering).all()):
        return []
    mean, std = float(entering.mean()), float(entering.std())
    low, high = float(entering.min()), float(entering.max())
    if not is_unusual(mean, std):
        return []
    return [
        Finding(
            "unnormalised-input",
            "warning",
            f"the first layer receives values from {low:.4g} to {high:.4g}, mean {mean:.3g} and standard deviation "
            f"{std:.3g}; about 0 and 1 are usual",
            {"mean": mean, "std": std, "minimum": low, "maximum": high},
            "subtract the training images' mean of each channel and divide by their standard deviation, once, in "
            "training and validation alike",
            "SPEC D3",
        )
    ]


def _received(module: nn.Module, inputs: Tensor, seed: int) -> Tensor:
    """What the first layer with weights gets; the inputs themselves where there is none."""
    network = without_noise(copy_of(module))
    seen: list[Tensor] = []

    def note(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found = received(arguments, named) if not seen else None
        if found is not None:
            seen.append(found.clone())

    for layer in network.modules():
        if isinstance(layer, FIRST_LAYERS):
            layer.register_forward_pre_hook(note, with_kwargs=True)
    # A module that cannot be run is another check's to refuse.
    with own_randomness(module, seed, "received"), torch.no_grad(), contextlib.suppress(Exception):
        network(inputs)
    return seen[0] if seen else inputs


def imbalanced(counts: np.ndarray, *, weighted: bool) -> list[Finding]:
    """Some classes are far more frequent than others. counts: images of each class among those seen.

    weighted: the loss weighs classes, so that somebody has thought of it: a remark then.
    """
    present = counts[counts > 0].astype(np.float64)
    if len(present) < 2:
        return []
    largest, smallest = int(counts.argmax()), int(np.flatnonzero(counts)[present.argmin()])
    high, low = present.max(), present.min()
    # A few images of many classes differ by chance: two standard errors of both counts are allowed for.
    sure = (high - 2 * high**0.5) / (low + 2 * low**0.5 + 1)
    if high / low < IMBALANCE_LARGE or sure < IMBALANCE_LARGE / 3:
        return []
    return [
        Finding(
            "imbalanced-classes",
            "info" if weighted else "warning",
            f"class {largest} has {high / low:.0f} times the images of class {smallest} ({int(high):,} and "
            f"{int(low):,} of the {int(present.sum()):,} seen)",
            {
                "largest": largest,
                "smallest": smallest,
                "ratio": round(float(high / low), 2),
                "classes": {str(i): int(n) for i, n in enumerate(counts.tolist())},
            },
            "weigh rare classes more in the loss or draw them more often, and judge by balanced accuracy",
            "Buda, Maki and Mazurowski 2018",
        )
    ]


def fingerprints(images: Tensor) -> list[bytes]:
    """One hash of its bytes for each image; b"" for an image of one value, which tells nothing. images: N×…"""
    rows = images.detach().cpu().contiguous().flatten(1)
    plain = (rows == rows[:, :1]).all(1).tolist()
    table = rows.numpy() if rows.dtype != torch.bfloat16 else rows.float().numpy()
    return [
        b"" if same else hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        for row, same in zip(table, plain, strict=True)
    ]


def leaked(training: Collection[bytes], validation: Collection[bytes]) -> list[Finding]:
    """Byte-identical images on both sides. training, validation: fingerprints."""
    known = set(training) - {b""}
    copies = sum(1 for digest in validation if digest in known)
    if not copies:
        return []
    return [
        Finding(
            "train-val-leak",
            "warning",
            f"{copies:,} of the {len(validation):,} validation images seen are byte for byte among the "
            f"{len(training):,} training images seen",
            {"copies": copies, "validation": len(validation), "training": len(training)},
            "divide the images before anything else, and take what both sides hold out of the training part",
            "SPEC D5; Barz and Denzler 2020",
        )
    ]


def prepared_otherwise(training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> list[Finding]:
    """The validation tensors have other values than the training tensors, within classes. Each: images, targets."""
    if training[0].ndim != 4 or validation[0].ndim != 4 or training[0].shape[1] != validation[0].shape[1]:
        return []
    first, second = (_middle(pair[0][:IMAGES].detach().float().cpu()) for pair in (training, validation))
    if not bool(torch.isfinite(first).all()) or not bool(torch.isfinite(second).all()):
        return []
    spread = float(first.std())
    if spread == 0.0:
        return []
    middle, unit = float(first.mean()), 4 * spread
    samples = []
    for images, (_, targets) in ((first, training), (second, validation)):
        scaled = ((images - middle) / unit + 0.5).permute(0, 2, 3, 1).numpy()
        widths = images.flatten(2).std(2).clamp_min(1e-3 * spread).log().double().numpy()
        classes = class_of(targets[:IMAGES].detach().cpu()).numpy()
        samples.append(Sample(list(scaled), classes, {f"channel {i}": w for i, w in enumerate(widths.T)}))
    ignored = tuple(name for name in PIXEL_MEASURES if name not in KEPT_BY_AUGMENTATION)
    measures = {f"channel {i}": _width(i) for i in range(first.shape[1])}
    found, mistake = contrasts(samples[0], samples[1], measures, ignored)
    kept = [c for c in found if c.measure != PIXEL_MEASURES["brightness"].name or c.gap >= BRIGHTNESS]
    if not kept:
        return _unlike(training, validation)
    return [mismatch_finding(kept, mistake if mistake in MISTAKES else "", "validation", [len(first), len(second)])]


def _unlike(training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor]) -> list[Finding]:
    """What the whole images show that augmentation does not do: grey, inverted, turned, enlarged pictures."""
    sides = [_of_equal_shares(training, validation), _of_equal_shares(validation, training)]
    if min(map(len, sides)) < FEWEST:
        return []
    tables = [to_host([t for t in map(measure, side.split(BATCH)) if t is not None]) for side in sides]
    train, val = (sum_up_inputs(table, tuple(side.shape[1:])) for table, side in zip(tables, sides, strict=True))
    seen = lasting_difference(train, val) if train is not None and val is not None else None
    seen = seen or _another_texture(*sides)
    if seen is None:
        return []
    return [
        Finding(
            "train-val-mismatch",
            "warning",
            f"the validation images were prepared otherwise than the training images of the same classes: {seen}",
            {"split": "validation", "images": [len(side) for side in sides]},
            ACTION,
            "SPEC D3, D5",
        )
    ]


def _another_texture(train: Tensor, val: Tensor) -> str | None:
    """Validation images that are smoother than training's and than photographs are (enlarged, blurred), or rougher by
    far. Each: N×C×H×W.

    Training images are often made smoother than they were, by crops that are enlarged; noise and sharpening make them
    rougher, which leaves validation's as smooth as photographs are.
    """
    if train.shape[1:] != val.shape[1:] or min(train.shape[2:]) < SMALLEST:
        return None
    # Less an eighth of each side, where images that are shifted end.
    train, val = (_middle(side[:: -(-len(side) // TEXTURES)], 8) for side in (train, val))
    ours, theirs = _smoothness(train), _smoothness(val)
    if min(len(ours), len(theirs)) < FEWEST:
        return None
    apart = float(theirs.mean() - ours.mean())
    error = float((ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt())
    noisy = float(_plainest(train) - _plainest(val)) > GRAINY
    # Noise in places spares some images, or most pixels of each.
    spared = float(ours.quantile(0.75)) > float(theirs.mean()) - SMOOTHER / 2
    usual = float(_smoothness(val, USUAL).mean() - _smoothness(train, USUAL).mean())
    smoother = apart > SMOOTHER and float(theirs.mean()) > SMOOTH and usual > SMOOTHER / 2 and not (noisy or spared)
    if not (abs(apart) > NOISE * error and (smoother or apart < -ROUGHER)):
        return None
    what = "rougher, as with noise or with pixels in another order"
    if smoother:
        what = "smoother, as small or blurred pictures are that were enlarged"
    return (
        f"they are {what} (two pixels on, values differ by {theirs.mean():.2f} times as much as one pixel on, in "
        f"training by {ours.mean():.2f})"
    )


def _smoothness(images: Tensor, share: float | None = None) -> Tensor:
    """For each image: how many times as much its values differ two pixels on as one pixel on. Noise: 1, a slope: 2.

    share: by that quantile of the differences rather than by their mean. Images without a difference are left out.
    """
    one, two = (
        torch.cat(
            [
                (images[..., n:] - images[..., :-n]).abs().flatten(1),
                (images[..., n:, :] - images[..., :-n, :]).abs().flatten(1),
            ],
            dim=1,
        )
        for n in (1, 2)
    )
    one, two = (d.mean(1) if share is None else d.kthvalue(int(share * d.shape[1]), 1).values for d in (one, two))
    return two[one > 0].double() / one[one > 0].double()


def _plainest(images: Tensor) -> Tensor:
    """How much the plainest tenth of an image differs from pixel to pixel, as a share of all: noise spares none."""
    blocks = functional.avg_pool2d((images[..., 1:] - images[..., :-1]).abs().mean(1, keepdim=True), BLOCK).flatten(1)
    return (blocks.quantile(0.1, 1) / blocks.mean(1).clamp_min(1e-12)).mean()


def _of_equal_shares(own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """As many images of each class as both sides have among those looked at: a sorted split begins with one class."""
    mine, theirs = (class_of(targets[:IMAGES].detach().cpu()) for _, targets in (own, other))
    rows = [torch.nonzero(mine == c).flatten()[: int((theirs == c).sum())] for c in mine.unique()]
    # Batches of all classes: what differs between them is then no matter of the order.
    order = torch.cat(rows).sort().values
    return own[0][:IMAGES][order.to(own[0].device)].detach().float().cpu()


def _middle(images: Tensor, part: int = 4) -> Tensor:
    """All but a `part`-th on each side: shifted, turned and padded training images are black at their borders."""
    height, width = images.shape[2:]
    return images[:, :, height // part : height - height // part, width // part : width - width // part]


def _width(channel: int) -> Measure:
    return Measure(f"spread of an image's values in channel {channel}", SCALES, log=True)


def softmax_twice(outputs: Tensor, kind: LossKind) -> list[Finding]:
    """The model ends in a softmax and the loss applies one too. outputs: N×C."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or kind.name != "cross-entropy":
        return []
    table = outputs.detach().double()
    if not (bool((table >= 0).all()) and bool(((table.sum(1) - 1).abs() < 1e-3).all())):
        return []
    return [
        Finding(
            "double-softmax",
            "warning",
            "the model's outputs are never negative and sum to one, and cross-entropy applies softmax once more",
            {"minimum": float(table.min()), "largest_error_of_sum": float((table.sum(1) - 1).abs().max())},
            "return raw scores from the model; apply softmax only where probabilities are shown",
            "PyTorch, CrossEntropyLoss; SPEC C2",
        )
    ]
