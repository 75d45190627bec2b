"""Two cheap questions: does the output depend on the image, and on nothing but the image?"""

from __future__ import annotations

import contextlib
import math
import time

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, copy_of, own_randomness, scores, wakened, without_noise
from wellfit.findings import Finding
from wellfit.training.averaging import recompute_batchnorm

TOLERANCE = 1e-4  # share of the largest score: above rounding, below any real dependence
IGNORED = 1e-6  # the same, below which the input counts for nothing
REFERENCE = "A. Karpathy 2019, A Recipe for Training Neural Networks"


def input_ignored(
    module: nn.Module, inputs: Tensor, *, context: Context = contextlib.nullcontext, seed: int = 0
) -> CheckResult:
    """Fail when zeroed images give the scores of the real ones: something cuts the input off.

    inputs: N×channels×H×W, not all zero. value: the largest difference, as a share of the largest score; the smaller
    of two, without noise and as in training (where dropout draws the same numbers for both).
    """
    begun = time.monotonic()
    quiet, difference, scale = _share_of_input(module, inputs, context, seed, training=False)
    noisy = _share_of_input(module, inputs, context, seed, training=True)[0]
    share = min(quiet, noisy)
    passed = share >= IGNORED
    message = f"zeroed images change the scores by {share:.2g} of their size"
    finding = None
    if not passed:
        when = "" if quiet < IGNORED else " in training mode"
        message = f"zeroed images give the same scores as the real ones{when}"
        action = "look for a layer that is never called, a detached tensor, or units that are never active"
        if when:
            action = "look for a dropout that drops everything, or another layer that differs between the two modes"
        finding = Finding(
            "input-ignored", "error", message, {"difference": difference, "scale": scale}, action, REFERENCE
        )
    return CheckResult("input-ignored", passed, share, None, message, finding, time.monotonic() - begun)


@torch.no_grad()
def _share_of_input(
    module: nn.Module, inputs: Tensor, context: Context, seed: int, *, training: bool
) -> tuple[float, float, float]:
    """(share, difference, scale): how far zeroed images move the scores."""
    outputs = []
    for images in (inputs, torch.zeros_like(inputs)):
        with own_randomness(module, seed, "input-ignored"), context():
            network = wakened(copy_of(module), seed)
            network = network.train() if training else without_noise(network)
            outputs.append(scores(network, images).double())
    real, blank = outputs
    difference, scale = float((real - blank).abs().max()), float(torch.maximum(real.abs(), blank.abs()).max())
    share = 0.0 if scale == 0 else difference / scale
    return (1.0 if math.isnan(share) else share), difference, scale  # NaN is for the initial loss to report


def batch_leak(
    module: nn.Module, inputs: Tensor, *, context: Context = contextlib.nullcontext, seed: int = 0
) -> CheckResult:
    """Fail when, in evaluation mode, the scores of one image change with the other images of the batch.

    inputs: at least two images. value: the largest change of the first image's scores, and of the last one's, while
    the others change, as a share of the largest score.
    """
    begun = time.monotonic()
    network = wakened(copy_of(module), seed)
    # Untrained running statistics would let the activations of a deep net grow out of range.
    with own_randomness(module, seed, "batch-leak"), context():
        recompute_batchnorm(network, [inputs])
    network.eval()

    def answers(images: Tensor) -> Tensor:
        # The same draws each time: a dropout that is on in evaluation too is no leak.
        with own_randomness(module, seed, "batch-leak"), torch.no_grad(), context():
            return scores(network, images).double()

    # Each way round: what a sum along the batch carries goes to later images only.
    plain, changed = answers(inputs), 0.5 - 2.0 * inputs.flip(0)
    first = answers(torch.cat([inputs[:1], changed[1:]]))[0]
    last = answers(torch.cat([changed[:-1], inputs[-1:]]))[-1]
    difference = float(torch.maximum((plain[0] - first).abs().max(), (plain[-1] - last).abs().max()))
    scale = float(plain.abs().max())
    share = difference / scale if scale > 0 else 0.0
    passed = len(inputs) < 2 or not share > TOLERANCE
    message = f"other images of the batch change an image's scores by {share:.2g} of their size"
    finding = None
    if not passed:
        action = "look for a normalisation, a reshape or a mean that runs over the batch dimension"
        finding = Finding("batch-leak", "error", message, {"difference": difference, "scale": scale}, action, REFERENCE)
    return CheckResult("batch-leak", passed, share, 0.0, message, finding, time.monotonic() - begun)
