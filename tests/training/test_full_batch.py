"""L-BFGS on the whole split: scipy's minimum, the same bytes after a stop, noise refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from timm.layers import DropPath
from torch import nn

from wellfit.data.batches import Batch
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.models.layers.dropout import VanillaDropout, drop_connect
from wellfit.models.layers.pooling import FractionalMaxPool
from wellfit.models.layers.stochastic_depth import skipping
from wellfit.record import Record, read_record
from wellfit.training.full_batch import SplitLoss, check_settings, refuse_noise, train_full_batch
from wellfit.training.optimizers import build_optimizer
from wellfit.training.pace import Pace
from wellfit.training.regularize import Penalty, build_criterion

CLASSES, IMAGES = 3, 90
L2 = 0.02


@dataclass(frozen=True)
class Pixels:
    """Stands for Preprocessing: uint8 to [−1, 1] in float64."""

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.double() / 127.5 - 1


class Exact(Engine):
    """An engine that computes in float64, for comparisons with scipy."""

    def inputs(self, pixels, preprocessing):
        return preprocessing.normalise(pixels)

    def activate(self) -> None:
        return None


ENGINE = Exact("cpu", "float32", "contiguous", 1)


def split(sizes=(40, 30, 20)) -> list[Batch]:
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 2, 2), generator=source, dtype=torch.uint8)
    targets = (images[:, 0].float().mean((1, 2)) / 90 + torch.rand(IMAGES, generator=source)).long().clamp(0, 2)
    edges = np.cumsum([0, *sizes])
    return [Batch(images[a:b], targets[a:b], np.arange(a, b)) for a, b in pairwise(edges)]


def softmax_regression(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)).double()


def accuracy_of(chunks):
    def evaluate(module: nn.Module):
        module.eval()
        with torch.no_grad():
            scores = torch.cat([module(Pixels().normalise(batch.images)) for batch in chunks])
        targets = torch.cat([batch.targets for batch in chunks])
        loss = float(nn.functional.cross_entropy(scores, targets))
        accuracy = float((scores.argmax(1) == targets).double().mean())
        return accuracy, {"loss": loss, "accuracy": accuracy}

    return evaluate


def run(module, chunks=None, steps=60, criterion=None, **options):
    chunks = chunks or split()
    return train_full_batch(
        module,
        chunks,
        criterion or build_criterion(),
        build_optimizer("lbfgs", module, lr=1.0, tolerance_grad=1e-12, tolerance_change=1e-16),
        engine=ENGINE,
        preprocessing=Pixels(),
        pace=options.pop("pace", None) or Pace(steps),
        **options,
    )


def scipys_minimum(weights=None) -> tuple[float, np.ndarray]:
    """Softmax regression with an L2 term, by scipy from plain numpy formulas."""
    batches = split()
    x = np.concatenate([b.images.numpy().reshape(len(b.images), -1) for b in batches]) / 127.5 - 1
    y = np.concatenate([b.targets.numpy() for b in batches])
    w = np.ones(len(y)) if weights is None else np.asarray(weights)[y]
    w = w / w.sum()

    def f(flat):
        matrix, bias = flat[: 12 * CLASSES].reshape(CLASSES, 12), flat[12 * CLASSES :]
        scores = x @ matrix.T + bias
        scores -= scores.max(1, keepdims=True)
        p = np.exp(scores)
        p /= p.sum(1, keepdims=True)
        loss = -(w * np.log(p[np.arange(len(y)), y])).sum() + L2 * (matrix**2).sum()
        p[np.arange(len(y)), y] -= 1
        slope = (p * w[:, None]).T @ x + 2 * L2 * matrix
        return loss, np.concatenate([slope.ravel(), (p * w[:, None]).sum(0)])

    found = minimize(f, np.zeros(13 * CLASSES), jac=True, method="BFGS", options={"gtol": 1e-10})
    return float(found.fun), found.x[: 12 * CLASSES].reshape(CLASSES, 12)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_it_reaches_scipys_minimum_of_a_convex_loss(weights) -> None:
    net = softmax_regression()
    criterion = build_criterion(class_weights=weights).double()
    outcome = run(net, criterion=criterion, penalty=Penalty(1.0, square=L2), class_weights=weights, steps=200)
    loss, matrix = scipys_minimum(weights)
    assert outcome.losses[-1] == pytest.approx(loss, abs=1e-9)
    np.testing.assert_allclose(net[1].weight.detach().numpy(), matrix, atol=1e-6)
    assert outcome.reason == "finished"
    assert outcome.steps < 200  # the gradient vanished, and the training saw it


def test_the_chunks_do_not_matter() -> None:
    results = []
    for sizes in ((90,), (40, 30, 20), (10,) * 9):
        net = softmax_regression()
        closure = SplitLoss(net, split(sizes), build_criterion(), engine=ENGINE, preprocessing=Pixels())
        results.append((float(closure()), net[1].weight.grad.clone()))
    for loss, gradient in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-12)


def test_a_point_asked_for_again_is_not_computed_again() -> None:
    net = softmax_regression()
    closure = SplitLoss(net, split(), build_criterion(), engine=ENGINE, preprocessing=Pixels())
    first = float(closure())
    gradient = net[1].weight.grad.clone()
    net[1].weight.grad = None
    assert float(closure()) == first
    assert torch.equal(net[1].weight.grad, gradient)
    assert closure.passes == 1
    with torch.no_grad():
        net[1].bias[0] += 1.0
    assert float(closure()) != first
    assert closure.passes == 2


def test_the_loss_never_rises_and_the_best_on_validation_is_kept(tmp_path: Path) -> None:
    net, chunks = softmax_regression(), split()
    record = Record(tmp_path / "record.jsonl")
    outcome = run(net, evaluate=accuracy_of(chunks), record=record, steps=15)
    record.close()
    assert (np.diff(outcome.losses) <= 0).all()
    lines = list(read_record(tmp_path / "record.jsonl"))
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["step"] for line in steps] == list(range(1, outcome.steps + 1))
    assert len(epochs) == outcome.steps
    assert outcome.best.score == max(line["validation_accuracy"] for line in epochs)
    assert {"loss", "lr", "images_per_second", "wait", "epoch"} <= steps[0].keys()
    net.load_state_dict(outcome.best.weights)
    assert accuracy_of(chunks)(net)[0] == outcome.best.score


def test_stopped_and_taken_up_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    chunks = split()
    whole = softmax_regression()
    untouched = run(whole, chunks, steps=12, evaluate=accuracy_of(chunks))
    net, calls = softmax_regression(), iter(range(100))
    first = run(
        net,
        chunks,
        steps=12,
        evaluate=accuracy_of(chunks),
        checkpoint=tmp_path / "state",
        stop=lambda: next(calls) == 4,
    )
    assert first.reason == "stopped"
    assert first.steps == 5
    again = softmax_regression(seed=9)
    second = run(again, chunks, steps=12, evaluate=accuracy_of(chunks), checkpoint=tmp_path / "state")
    assert second.losses == untouched.losses
    assert torch.equal(again[1].weight, whole[1].weight)


def test_the_layout_of_the_weights_does_not_matter() -> None:
    """A convolution in channels_last does not lie in memory in its own order."""
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(3, 4, 2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, CLASSES)).double()
        losses.append(run(net.to(memory_format=layout), steps=5).losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_deadline_ends_it() -> None:
    ticks = iter(range(1000))
    pace = Pace(1000, deadline=8.0, clock=lambda: float(next(ticks)))
    assert run(softmax_regression(), pace=pace).steps < 10


def test_a_loss_that_is_no_number_ends_it() -> None:
    net = softmax_regression()
    nn.init.constant_(net[1].weight, float("nan"))
    assert run(net).reason == "diverged"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Dropout(0.5), r"'1' \(Dropout\) drops at random with probability 0.5"),
        (nn.BatchNorm1d(4), r"'1' \(BatchNorm1d\) makes each depend on the images beside it"),
        (VanillaDropout(0.2), r"VanillaDropout\) drops at random with probability 0.2"),
        (drop_connect(nn.Linear(4, 4), 0.3), r"DropConnectLinear\) drops at random with probability 0.3"),
        (skipping(0.4), r"StochasticDepth\) drops at random with probability 0.4"),
        (DropPath(0.1), r"DropPath\) drops at random with probability 0.1"),
        (FractionalMaxPool(1.4), "draws its regions anew"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.7), "draws its regions anew"),
    ],
)
def test_noise_is_refused_and_named(layer: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse_noise(nn.Sequential(nn.Linear(4, 4), layer))


def test_layers_without_noise_pass() -> None:
    refuse_noise(nn.Sequential(nn.Dropout(0.0), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.MaxPool2d(2)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": ("flip", "crop")}, "same images at each step, got augment"),
        ({"balance": "sampler"}, "each image once a step"),
        ({"schedule": "cosine"}, "line search, got schedule = 'cosine'"),
        ({"batch_size": 128}, "whole training split at each step, got training.batch_size = 128"),
        ({"batch_size": 2000, "images": 5000}, "split of 5,000 images"),
        ({"dtype": "bfloat16"}, "take float32"),
        ({"options": {"dropout": 0.2}}, "model.options.dropout = 0.2"),
    ],
)
def test_settings_that_cannot_go_with_it(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_settings(**settings)


def test_settings_that_can() -> None:
    check_settings(augment=("none",), balance="weights", schedule="constant", batch_size=90, images=90, dtype="float32")
    check_settings(augment=("auto",), options={"dropout": 0.0, "pooling": "average"})
