"""What a monitor saw of a training, as plain numbers: all that the rules may look at.

Losses and learning rates are kept for every step; everything costlier only for watched steps (`Sample`).
Nothing here needs torch, so that a history can be written by hand or read back from a record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One parameter tensor: its name, its number of entries, whether it is a weight (two axes or more).

    fan_in: entries that make one output of a weight; 0 for what is none. decay: its weight decay in the optimizer.
    """

    name: str
    size: int
    weight: bool = True
    requires_grad: bool = True
    in_optimizer: bool = True
    fan_in: int = 0
    decay: float = 0.0


@dataclass(frozen=True)
class OptimizerGroup:
    """What an optimizer is set to for a group of its parameters; None: it has no such setting.

    name: of its class. momentum: or the first of two betas, as Adam has them. second: the second of them, or RMSprop's
        alpha. eps: what is added to the root of the second moment. maximize: whether it climbs.
    """

    name: str
    momentum: float | None = None
    second: float | None = None
    eps: float | None = None
    maximize: bool = False


@dataclass(frozen=True)
class Layer:
    """One activation at one watched step.

    mean, std: over all entries seen. spread: standard deviation over the images, averaged over the units: what
        is left of the differences between images; biases do not count.
    kind: "relu" (zero below 0), "bounded" (sigmoid, tanh and kin) or "other".
    dead: share of units silent on everything seen in the last watched steps; None before there are enough.
    saturated: share of entries at the ends of a bounded non-linearity; None for the other kinds.
    """

    name: str
    kind: str
    mean: float
    std: float
    spread: float = math.nan
    dead: float | None = None
    saturated: float | None = None


@dataclass(frozen=True)
class Output:
    """The network's answers (N×C) at one watched step.

    spread: standard deviation over the batch of the class probabilities, averaged over the classes.
    probabilities: whether the rows already are non-negative and sum to one.
    top: mean of the largest probability.
    as_logits, as_probabilities: the cross-entropy when the outputs are taken as either; need targets.
    as_twice: the cross-entropy of outputs that went through softmax once before the loss did it again.
    predicted, targets: counts by class; targets may be missing.
    mixed: whether the targets are shares of several classes, of some images more than of others (mixup).
    """

    images: int
    width: int
    spread: float
    probabilities: bool = False
    top: float = math.nan
    as_logits: float | None = None
    as_probabilities: float | None = None
    as_twice: float | None = None
    predicted: NDArray[np.int64] | None = None
    targets: NDArray[np.int64] | None = None
    correct: int | None = None
    mixed: bool = False


@dataclass(frozen=True)
class Tally:
    """The answers of every step since the last watched one, that one's own among them, counted by class.

    shown: images of each class; said: how often it was the answer; right: how often it was and should be.
    """

    shown: NDArray[np.int64]
    said: NDArray[np.int64]
    right: NDArray[np.int64]


@dataclass(frozen=True)
class BatchNorm:
    """One BatchNorm layer: whether it has trainable parameters, its momentum in torch's sense (the weight of the new
    batch; None: plain average), whether it keeps running statistics."""

    name: str
    learns: bool = True
    momentum: float | None = 0.1
    running: bool = True


@dataclass(frozen=True)
class Modes:
    """In which mode a watched training pass ran; arrays have one entry a layer of `History.batchnorms`.

    training: the mode of the watched module itself. evaluating: which BatchNorm layers were in evaluation mode.
    mean_gap: how far the running mean stood from the batch's, in standard deviations of the batch; median over the
        channels. var_gap: log(running variance / batch variance), likewise. NaN where there is nothing to compare.
    """

    training: bool
    evaluating: NDArray[np.bool_]
    mean_gap: Floats
    var_gap: Floats


@dataclass(frozen=True)
class InputFigures:
    """The images of some batches, summed up.

    shape: of one image. figures: average over the images of each one's C channel means, its C channel standard
        deviations, its colour (mean standard deviation of a pixel's channels about their mean, as a share of the
        standard deviation), its skew (third standardised moment) and its sharpness (mean step between neighbours, as
        a share of the standard deviation).
    scatter: (2C+3)×(2C+3) covariance of these over the images. between: likewise over the means of the batches.
    bands: brightness of the upper to the lower four bands of an image, then of the left to the right four, in its
        standard deviations about its mean, averaged over the images; of each of three channels, else of all together.
    bands_scatter, bands_between: their variances over the images and over the means of the batches.
    """

    shape: tuple[int, ...]
    images: int
    batches: int
    figures: Floats
    scatter: Floats
    between: Floats
    low: float
    high: float
    bands: Floats = field(default_factory=lambda: np.empty(0))
    bands_scatter: Floats = field(default_factory=lambda: np.empty(0))
    bands_between: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def channels(self) -> int:
        return (len(self.figures) - 3) // 2

    @property
    def means(self) -> Floats:
        return self.figures[: self.channels]

    @property
    def deviations(self) -> Floats:
        return self.figures[self.channels : -3]


@dataclass(frozen=True)
class Passes:
    """The forward passes of one epoch that no optimizer step followed: its validation.

    training: how many ran with the watched module in training mode. by_batch: in how many a BatchNorm layer
        normalised by the batch. smallest: images in the smallest batch; usual: in most batches. inputs: one for each
        set of images that was passed, as far as they can be told apart.
    closing: whether they stood at the epoch's end; else they ran without gradients between two steps.
    """

    passes: int
    training: int = 0
    by_batch: int = 0
    smallest: int | None = None
    inputs: tuple[InputFigures, ...] = ()
    closing: bool = True
    usual: int | None = None


@dataclass(frozen=True)
class Sample:
    """One watched step. The norms are one number a parameter, in the order of `History.parameters`.

    weight_norm, update_norm: of the weights before the step and of what the step added.
    gradient_norm: NaN where the parameter had no gradient.
    promised: −g·Δw, the fall of the loss that this step promises to first order.
    moved: which parameters differ from what they were at the first watched step, or moved in between; None: not known.
    input: mean and standard deviation of the batch that went in; received: of what the first layer with weights got
        of it, None where that was not seen. inputs: its images, to compare with validation's.
    modes: how the training pass ran; None: not seen.
    carried: whether the gradient of the last watched step was still there when the next step was made of it; None:
        not seen.
    tally: the answers since the last watched step; None where they cannot be counted.
    """

    step: int
    weight_norm: Floats
    update_norm: Floats
    gradient_norm: Floats
    promised: float = math.nan
    layers: Sequence[Layer] = ()
    output: Output | None = None
    carried: bool | None = None
    input: tuple[float, float] | None = None
    inputs: InputFigures | None = None
    modes: Modes | None = None
    received: tuple[float, float] | None = None
    moved: NDArray[np.bool_] | None = None
    tally: Tally | None = None

    @property
    def update_ratio(self) -> Floats:
        """‖Δw‖/‖w‖ of each parameter; NaN for parameters of zero norm, which have no ratio (SPEC C8)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.weight_norm > 0, self.update_norm / self.weight_norm, np.nan)

    @property
    def total_gradient(self) -> float:
        """Norm of the gradient over all parameters that have one; NaN without any."""
        seen = self.gradient_norm[~np.isnan(self.gradient_norm)]
        return float(np.sqrt(np.sum(seen**2))) if len(seen) else math.nan


@dataclass(frozen=True)
class Epoch:
    """Figures at the end of an epoch, as far as they are known; accuracies in [0, 1]. passes: its validation."""

    step: int
    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    passes: Passes | None = None


@dataclass
class History:
    """Everything seen so far.

    losses, lrs: one number a step (lrs may be empty: not known).
    begun: a checksum of each parameter's watched entries at the first watched step; −1: not taken.
    dropped: the share that each dropout layer drops while it trains. groups: of the optimizers.
    notes: how outputs and targets were read, where that had to be found out.
    unseen: what could not be watched, and why, e.g. {"layers": "the model is compiled"}.
    """

    losses: Sequence[float] = ()
    lrs: Sequence[float] = ()
    samples: list[Sample] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    batchnorms: list[BatchNorm] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)
    groups: list[OptimizerGroup] = field(default_factory=list)
    classes: int | None = None
    class_counts: NDArray[np.int64] | None = None
    begun: NDArray[np.int64] | None = None
    notes: Sequence[str] = ()
    unseen: dict[str, str] = field(default_factory=dict)

    def until(self, step: int) -> History:
        """The history as it stood after `step` steps: what a user would have seen who asked then.

        Class counts are those that came with the watched steps that are still kept. Parameters, and what could not be
        watched, are the same throughout a training.
        """
        samples = [s for s in self.samples if s.step < step]
        counts: NDArray[np.int64] | None = None
        for sample in samples:
            counts = with_classes_of(sample, counts)
        return replace(
            self,
            losses=self.losses[:step],
            lrs=self.lrs[:step],
            samples=samples,
            epochs=[e for e in self.epochs if e.step <= step],
            parameters=list(self.parameters),
            class_counts=counts,
            unseen=dict(self.unseen),
        )

    @property
    def loss(self) -> Floats:
        return np.asarray(self.losses, np.float64)

    @property
    def lr(self) -> Floats:
        return np.asarray(self.lrs, np.float64)

    @property
    def first_bad_step(self) -> int | None:
        """The first step whose loss is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.loss))
        return int(bad[0]) if len(bad) else None

    @property
    def finite_loss(self) -> Floats:
        """The losses before the first that is not finite."""
        return self.loss[: self.first_bad_step]

    @property
    def finite_samples(self) -> list[Sample]:
        """The watched steps whose norms are numbers and before which no loss was lost."""
        end = self.first_bad_step
        return [
            s
            for s in self.samples
            if (end is None or s.step < end) and np.isfinite(s.update_norm + s.weight_norm).all()
        ]

    @property
    def chance_loss(self) -> float | None:
        """log C: the cross-entropy of a network that knows nothing."""
        return math.log(self.classes) if self.classes and self.classes > 1 else None

    @property
    def reference_loss(self) -> float:
        """The first loss, or log C where that is larger: what "has the loss grown?" is measured against."""
        first = self.finite_loss[:1]
        return max(float(first[0]) if len(first) else 0.0, self.chance_loss or 0.0)

    @property
    def weights(self) -> NDArray[np.int64]:
        """Indices of the weight tensors that are to learn, in the order of the network."""
        return np.array(
            [i for i, p in enumerate(self.parameters) if p.weight and p.requires_grad and p.in_optimizer], np.int64
        )

    @property
    def warming_up(self) -> bool:
        """Whether the learning rate is still being raised at the end of what was seen."""
        lr = self.lr
        return len(lr) > 1 and bool(lr[-1] > 1.01 * lr[int(0.8 * (len(lr) - 1))])

    def at_full_rate(self, step: int) -> bool:
        """Whether the step was taken near the largest learning rate: not in a warm-up, not after a decay."""
        return step >= len(self.lrs) or bool(self.lr[step] >= 0.3 * self.lr.max())


def with_classes_of(sample: Sample, counts: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Images by class, those that came with the watched step added; begun anew where the classes are other ones."""
    shown = sample.tally.shown if sample.tally is not None else sample.output.targets if sample.output else None
    if shown is None:
        return counts
    return shown if counts is None or len(counts) != len(shown) else counts + shown


def level(values: Floats) -> float:
    """The typical value of a stretch of losses: its median, which one odd batch does not move."""
    return float(np.median(values)) if len(values) else math.nan


def fall_per_step(values: Floats) -> float:
    """Least-squares slope of a stretch, with the sign turned: positive when the loss falls."""
    if len(values) < 2:
        return 0.0
    x = np.arange(len(values)) - (len(values) - 1) / 2
    return float(-(x @ values) / (x @ x))
