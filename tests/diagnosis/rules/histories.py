"""Histories written by hand, and the verdict of one rule on them."""

import numpy as np
import torch

from wellfit.diagnosis.history import Epoch, History, Parameter, Sample
from wellfit.diagnosis.inputs import measure, sum_up_inputs, to_host
from wellfit.diagnosis.rules import RULES


def verdict(name, history):
    assert not any(need(history) for need in RULES[name].needs), "the rule may not judge this history"
    return RULES[name].judge(history)


def noisy(values, scale=0.03, seed=0):
    values = np.asarray(values, float)
    return (values * (1 + scale * np.random.default_rng(seed).normal(size=len(values)))).tolist()


def falling(n=300, start=2.3, end=0.2, seed=0):
    return noisy(end + (start - end) * np.exp(-np.arange(n) / 60), seed=seed)


def sample(step, ratio=1e-3, gradient=1.0, promised=0.01, n=2, **kwargs):
    ones = np.ones(n)
    return Sample(step, ones, ratio * ones, np.full(n, float(gradient)), promised, **kwargs)


def watched(losses, **kwargs):
    samples = [sample(s, **kwargs) for s in range(0, len(losses), 10)]
    parameters = [Parameter("0.weight", 100), Parameter("2.weight", 100)]
    return History(losses=losses, samples=samples, parameters=parameters, classes=10)


def epochs(**curves):
    lengths = {len(v) for v in curves.values()}
    assert len(lengths) == 1
    rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    return [Epoch(step=10 * (i + 1), **row) for i, row in enumerate(rows)]


def seen_as(images: torch.Tensor):
    """The figures of images N×C×H×W."""
    return sum_up_inputs(to_host([measure(images)]), tuple(images.shape[1:]))
