"""What parts of the recipe must not be: stand-ins for tests/mutations.toml, the slips of published slides among them.

Each takes what the right part takes; a test that passes with one of these in place holds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wellfit.data.augmentations import erasing
from wellfit.diagnosis import statistics
from wellfit.diagnosis.rules.rule import Rule as DiagnosisRule
from wellfit.findings import Finding
from wellfit.inference import views
from wellfit.models import alexnet, catalogue, init
from wellfit.models.layers.activations import Activation
from wellfit.models.layers.normalization import Normalization
from wellfit.models.lenet import LeNet5
from wellfit.report import curves_filters
from wellfit.training import regularize, schedules, second_order
from wellfit.training.optimizers import Rule

# Layers


def convolution_without_bias(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def linear_without_bias(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight)


def average_of_pieces(layer: Any, x: Tensor) -> Tensor:
    """Maxout by the mean of its pieces: a linear layer."""
    return x.unflatten(1, (layer.pieces, -1)).mean(1)


def times_the_drop_probability(layer: Any, x: Tensor) -> Tensor:
    """Vanilla dropout scaled at test by the probability to drop, as one slide says."""
    return x * torch.empty_like(x).bernoulli_(1 - layer.p) if layer.training else x * layer.p


def mask_without_a_threshold(layer: Any, x: Tensor) -> Tensor:
    """Vanilla dropout whose mask is the uniform numbers themselves: `rand(shape)` without `< p`."""
    return x * torch.rand_like(x) if layer.training else x * (1 - layer.p)


def six_terms(layer: Any, x: Tensor) -> Tensor:
    """Vanilla dropout of 0.5 whose test side divides a sum of six terms by four."""
    return x * torch.empty_like(x).bernoulli_(1 - layer.p) if layer.training else x * (1 - layer.p) * 6 / 4


def one_draw_of_regions(layer: Any, x: Tensor) -> Tensor:
    """Fractional pooling that draws its regions at test too, once, instead of averaging."""
    size = layer.output_side(x.shape[-2]), layer.output_side(x.shape[-1])
    return F.fractional_max_pool2d(x, layer.width, output_size=size)


def first_regions(layer: Any, x: Tensor) -> Tensor:
    """Fractional pooling by one fixed draw of regions, in training and at test."""
    size = layer.output_side(x.shape[-2]), layer.output_side(x.shape[-1])
    samples = torch.zeros(x.shape[0], x.shape[1], 2, dtype=x.dtype)
    return F.fractional_max_pool2d(x, layer.width, output_size=size, _random_samples=samples)


def equal_drop_rates(last: float, blocks: int) -> list[float]:
    return [last] * blocks


def never_skipped(p: float) -> nn.Module:
    return nn.Identity()


class SumOverTheBatch(nn.Module):
    """LayerNorm with "statistics per batch": its γ and β, and BatchNorm's axes."""

    eps = 1e-5

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        others = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x, others, keepdim=True, correction=0)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight.view(shape) + self.bias.view(shape)


class NoEpsilon(SumOverTheBatch):
    """BatchNorm's training side by a formula that omits ε."""

    eps = 0.0


PER_BATCH = Normalization(SumOverTheBatch, SumOverTheBatch)
WITHOUT_EPSILON = Normalization(NoEpsilon, NoEpsilon)


class PreluAsMax(nn.PReLU):
    """max(αx, x): PReLU for slopes up to 1 only."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(self.weight * x, x)


PRELU_AS_MAX = Activation(PreluAsMax, "max(a·x, x)", "no", False, "Wrong.")


def silent_once(x: Tensor, unit: int) -> Tensor:
    """Dead as "x < 0" on any one image."""
    rest = [axis for axis in range(x.dim()) if axis != unit]
    return (x <= 0).any(dim=rest[0]) if len(rest) == 1 else (x <= 0).flatten(0, unit - 1).any(0).flatten(1).any(1)


# Initialisation


def divided_by_kaiming(module: nn.Module, seed: int, *, relu_bias: float = 0.0) -> None:
    """N / √(2/fan_in), as one slide prints it."""
    init._gaussian(module, seed, lambda fan_in, fan_out: math.sqrt(fan_in / 2), relu_bias)


def first_layers_alone(watch: Any) -> list[Any]:
    """Statistics that repeat the first layer's for all."""
    rows = STATISTICS_ROWS(watch)
    return [rows[0]] * len(rows)


STATISTICS_ROWS = statistics._EveryEntry.rows


# Networks


def negated(net: Any, x: Tensor) -> Tensor:
    return -LENET_FORWARD(net, x)


LENET_FORWARD = LeNet5.forward


def alexnet_of_64(classes: int, **options: Any) -> nn.Module:
    """The first layer of torchvision's weights under the paper's name."""
    net = ALEXNET(classes, **options)
    net.conv1 = nn.Conv2d(3, 64, 11, 4)
    return net


ALEXNET = alexnet.alexnet2012
WINNERS_BACKWARDS = catalogue.WINNERS[::-1]


def twice_the_side(model: Any, input_size: Any) -> tuple[int, ...]:
    return 3, 448, 448


def without_shortcut(block: Any, x: Tensor) -> Tensor:
    return block.relu(block.branch(block.residual(x)))


def always_a_shortcut(block: Any, x: Tensor) -> Tensor:
    y = block.branch(block.residual(x))
    return block.relu(y + x) if y.shape == x.shape else block.relu(y)


def one_pool_too_many(net: Any, x: Tensor) -> Tensor:
    """AlexNet with a pooling behind its fourth convolution, as one column shows it."""
    x = net.norm1(net.pool1(net.activation(net.conv1(x))))
    x = net.norm2(net.pool2(net.activation(net.conv2(x))))
    x = net.pool5(net.activation(net.conv4(net.activation(net.conv3(x)))))
    x = F.adaptive_max_pool2d(net.pool5(net.activation(net.conv5(x))), math.isqrt(net.fc6.in_features // 256))
    x = net.activation(net.fc6(net.dropout(x.flatten(1))))
    return net.fc(net.activation(net.fc7(net.dropout(x))))


# Optimizers, losses and averages


class Climbing(torch.optim.SGD):
    """x ← x + lr·g, as one deck's slides have it."""

    def __init__(self, params: Any, lr: float, **options: Any) -> None:
        super().__init__(params, lr=lr, maximize=True, **{k: v for k, v in options.items() if k != "fused"})


class RunningMean(torch.optim.SGD):
    """Momentum as a running mean: v ← ρv + (1 − ρ)·g."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        options.pop("fused", None)
        super().__init__(params, lr=lr, momentum=momentum, dampening=1 - momentum, **options)


class Uncorrected(torch.optim.Optimizer):
    """Adam without the correction of its start."""

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m, s = state.setdefault("m", torch.zeros_like(p)), state.setdefault("s", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["betas"][0])
                s.lerp_(p.grad.square(), 1 - group["betas"][1])
                p -= group["lr"] * m / (s.sqrt() + group["eps"])


CLIMBING = Rule(Climbing, ("cpu",))
RUNNING_MEAN = Rule(RunningMean, ("cpu",), takes_momentum=True)
UNCORRECTED = Rule(Uncorrected)
ADAGRAD = Rule(torch.optim.Adagrad)


def level(t: float, steps: float = 100.0, *, named: bool = False) -> float:
    return 1.0


def without_restarts(t: float, cycles: int = 4, growth: float = 1.0, floor: float = 0.0) -> float:
    return schedules.cosine(t, floor)


def steepest_descent(
    function: Any, start: Tensor, *, steps: int = 200, tolerance: float = 1e-8
) -> second_order.Minimum:
    """BFGS that keeps its first guess of the inverse Hessian."""
    found = BFGS(function, start, steps=steps, tolerance=tolerance)
    return replace(found, inverse_hessian=torch.eye(len(start), dtype=torch.float64))


BFGS = second_order.bfgs


def rank_one_updates(
    function: Any, start: Tensor, *, steps: int = 200, tolerance: float = 1e-8
) -> second_order.Minimum:
    """A quasi-Newton method, the symmetric rank-one update, under BFGS's name; exact steps on a quadratic."""
    x, identity = start.clone(), torch.eye(len(start), dtype=start.dtype)
    gradient, hessian = torch.func.grad(function), torch.func.hessian(function)(start)
    inverse, path = identity, [x]
    for step in range(steps):
        g = gradient(x)
        if g.abs().max() <= tolerance:
            break
        direction = -inverse @ g
        s = direction * -(g @ direction) / (direction @ hessian @ direction)
        y = hessian @ s
        inverse = identity * (y @ s) / (y @ y) if step == 0 else inverse
        gap = s - inverse @ y
        inverse = inverse + torch.outer(gap, gap) / (gap @ y)
        x = x + s
        path.append(x)
    return second_order.Minimum(x, float(function(x)), torch.stack(path), inverse, True)


def no_step(optimizer: Any, closure: Any = None) -> None:
    return None


def plain_cross_entropy(criterion: nn.CrossEntropyLoss, scores: Tensor, targets: Tensor) -> Tensor:
    """Without smoothing and without weights."""
    return F.cross_entropy(scores.float(), targets)


def weights_of_nothing(penalty: Any, module: nn.Module) -> Tensor:
    return torch.zeros(())


def always_whole_l2(strength: float, *, half: bool = False) -> regularize.Penalty:
    return regularize.Penalty(strength, square=1.0)


def l1_for_elastic(strength: float, beta: float = 1.0) -> regularize.Penalty:
    return regularize.Penalty(strength, absolute=1.0)


def hinge_over_classes(criterion: Any, scores: Tensor, targets: Tensor) -> Tensor:
    """torch's multi_margin_loss as it is: the sum divided by C."""
    return F.multi_margin_loss(scores.float(), targets, margin=criterion.margin)


def any_score_is_better(best: Any, score: float, loss: float) -> bool:
    return score >= best.score


def average_from_zero(
    average: Any, module: nn.Module, decay: float = 0.995, *, every: int = 1, ramp: bool = False
) -> None:
    """A Polyak average that starts at 0 instead of at x."""
    average.decay, average.every, average.ramp, average.steps = decay, every, ramp, 0
    named = [*module.named_parameters(), *module.named_buffers()]
    average.averaged = {n: torch.zeros_like(v, dtype=torch.float32) for n, v in named if v.is_floating_point()}


# Data


def unmoved(x: Tensor, y: Tensor, draws: np.ndarray, strength: float) -> tuple[Tensor, Tensor]:
    """A map of places that moves none."""
    return x, y


def first_of_two(images: np.ndarray, partners: np.ndarray, share: float, place: np.ndarray) -> tuple[np.ndarray, float]:
    """No mixing: the first image, and the share all the same."""
    return images, share


def own_label_only(targets: np.ndarray, partners: np.ndarray, share: float, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[targets]


def of_one_image(store: Any, rows: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of a single image in the place of the training set's."""
    pixels = store.image(int(np.asarray(rows)[0])).reshape(-1, 3) / 255.0
    return pixels.mean(0), pixels.std(0)


def by_its_own_figures(preprocessing: Any, pixels: Tensor) -> Tensor:
    """Each image with its own mean and deviation, as one slide writes it."""
    values = pixels.float() / 255.0
    std, mean = torch.std_mean(values, (2, 3), keepdim=True)
    return (values - mean) / std


def only_decorrelated(whitening: Any, features: np.ndarray) -> np.ndarray:
    return whitening.decorrelated(features)


def axes_of_equal_length(store: Any, rows: np.ndarray) -> np.ndarray:
    """Eigenvectors without their eigenvalues."""
    pixels = np.concatenate([store.image(int(row)).reshape(-1, 3) for row in rows]) / 255.0
    return np.linalg.eigh(np.cov(pixels.T))[1][:, ::-1]


def darker(images: np.ndarray, draws: np.ndarray, strength: float) -> np.ndarray:
    """Brightness by factors from 1 − strength to 1: their mean is not 1."""
    factors = 1 - strength * draws[:, 0]
    return (images * factors[:, None, None, None]).astype(np.uint8)


def barrel_alone(x: Tensor, y: Tensor, draws: np.ndarray, bend: float) -> tuple[Tensor, Tensor]:
    """A lens that bends one way."""
    factor = 1 + torch.from_numpy(draws[:, 0] * bend).float().view(-1, 1, 1) * (x * x + y * y)
    return x * factor, y * factor


def shifted_one_way(images: np.ndarray, draws: np.ndarray, most: float) -> np.ndarray:
    return np.roll(images, 1, axis=2)


def squares_for_rectangles(images: np.ndarray, draws: np.ndarray, chance: float, fill: np.ndarray) -> np.ndarray:
    return erasing.cutout(images, draws[:, 1:3], 0.5, fill)


# Rules, views and drawings


ALWAYS_VANISHED = DiagnosisRule(
    lambda history: Finding("vanishing-gradient", "warning", "Always.", {"first": "0"}, "None.", "none"), ()
)


def corner_alone(height: int, width: int) -> list[views.View]:
    return [views.View(0.0, 0.0, min(height, width) / 2)] * 50


def plain_view_twice(resize: int, size: int) -> Any:
    def layout(height: int, width: int) -> list[views.View]:
        side = min(height, width) * size / resize
        return [views.View((height - side) / 2, (width - side) / 2, side)] * 2

    return layout


def blank_filters(model: nn.Module) -> np.ndarray:
    weights = next(layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d))
    return np.zeros(weights.shape, dtype=np.float32)


def filters_on_one_scale(weights: Any) -> Any:
    """All filters by the largest weight of the layer: faint ones stay grey."""
    array = np.asarray(weights, np.float64)
    found = FILTERS_OF(array)
    colours = 0.5 + array.transpose(0, 2, 3, 1) / (2 * np.abs(array).max())
    return curves_filters.Filters(np.broadcast_to(colours, found.colours.shape), found.strongest)


FILTERS_OF = curves_filters.filters_of


def one_grey_pixel(filters: Any, columns: int | None = None) -> np.ndarray:
    return np.full((1, 1, 4), 0.5)
