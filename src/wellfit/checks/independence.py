"""Two cheap questions: does the output depend on the image, and on nothing but the image?"""

from __future__ import annotations

import contextlib
import time

import torch
from torch import Tensor, nn

from wellfit.checks.result import CheckResult
from wellfit.checks.sandbox import Context, copy_of, own_randomness, scores, without_noise
from wellfit.findings import Finding
from wellfit.training.averaging import recompute_batchnorm

TOLERANCE = 1e-4  # share of the largest score: above rounding, below any real dependence
REFERENCE = "A. Karpathy 2019, A Recipe for Training Neural Networks"


def input_ignored(
    module: nn.Module, inputs: Tensor, *, context: Context = contextlib.nullcontext, seed: int = 0
) -> CheckResult:
    """Fail when zeroed images give the scores of the real ones: something cuts the input off.

    inputs: N×channels×H×W, not all zero. value: the largest difference, as a share of the largest score.
    """
    begun = time.monotonic()
    with own_randomness(module, seed, "input-ignored"), torch.no_grad(), context():
        network = without_noise(copy_of(module))
        real, blank = scores(network, inputs).double(), scores(network, torch.zeros_like(inputs)).double()
    difference, scale = float((real - blank).abs().max()), float(torch.maximum(real.abs(), blank.abs()).max())
    share = difference / scale if scale > 0 else 0.0
    passed = not share < 1e-6  # NaN is for the initial loss to report
    message = f"zeroed images change the scores by {share:.2g} of their size"
    finding = None
    if not passed:
        message = "zeroed images give the same scores as the real ones"
        action = "look for a layer that is never called, a detached tensor, or units that are never active"
        finding = Finding(
            "input-ignored", "error", message, {"difference": difference, "scale": scale}, action, REFERENCE
        )
    return CheckResult("input-ignored", passed, share, None, message, finding, time.monotonic() - begun)


def batch_leak(
    module: nn.Module, inputs: Tensor, *, context: Context = contextlib.nullcontext, seed: int = 0
) -> CheckResult:
    """Fail when, in evaluation mode, the scores of one image change with the other images of the batch.

    inputs: at least two images. value: the change of the first image's scores, as a share of the largest score.
    """
    begun = time.monotonic()
    with own_randomness(module, seed, "batch-leak"), torch.no_grad(), context():
        network = copy_of(module)
        # Untrained running statistics would let the activations of a deep net grow out of range.
        recompute_batchnorm(network, [inputs])
        network.eval()
        others = torch.cat([inputs[:1], 0.5 - 2.0 * inputs[1:].flip(0)])
        plain, changed = scores(network, inputs).double(), scores(network, others).double()
    difference, scale = float((plain[0] - changed[0]).abs().max()), float(plain.abs().max())
    share = difference / scale if scale > 0 else 0.0
    passed = len(inputs) < 2 or not share > TOLERANCE
    message = f"other images of the batch change an image's scores by {share:.2g} of their size"
    finding = None
    if not passed:
        action = "look for a normalisation, a reshape or a mean that runs over the batch dimension"
        finding = Finding("batch-leak", "error", message, {"difference": difference, "scale": scale}, action, REFERENCE)
    return CheckResult("batch-leak", passed, share, 0.0, message, finding, time.monotonic() - begun)
