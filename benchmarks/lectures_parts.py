"""The taught figures that need no images: rows of `lectures.py` as (row, what, taught, how it is measured)."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import wellfit
from wellfit.data.augmentations.mixing import soft_targets
from wellfit.inference.views import multi_scale
from wellfit.models.catalogue import WINNERS
from wellfit.models.layers.activations import build_activation
from wellfit.models.stack import stack
from wellfit.models.zoo import build as wellfit_net
from wellfit.models.zoo import construct
from wellfit.training.averaging import WeightAverage
from wellfit.training.optimizers import build_optimizer
from wellfit.training.schedules import schedule

Outcome = tuple[str, bool | None]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: Sequence[float], taught: Sequence[float], rel: float) -> bool:
    return bool(np.allclose(found, taught, rtol=rel, atol=0))


def said(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def pooling(_: argparse.Namespace) -> Outcome:
    x = torch.tensor([[[[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]]])
    most, mean = nn.MaxPool2d(2)(x)[0, 0].tolist(), nn.AvgPool2d(2)(x)[0, 0].tolist()
    return f"max {most}, average {mean}", most == [[6, 8], [3, 4]] and mean == [[3.25, 5.25], [2, 2]]


def batch_norm_identity(_: argparse.Namespace) -> Outcome:
    layer, x = nn.BatchNorm2d(3), 5 + 3 * normal(8, 3, 4, 4)
    with torch.no_grad():
        layer.weight.copy_((x.var((0, 2, 3), correction=0) + layer.eps).sqrt())
        layer.bias.copy_(x.mean((0, 2, 3)))
        off = float((layer(x) - x).abs().max())
    return f"largest difference {off:.1e}", off < 1e-5


def deep_tanh_loss(lr: float, seed: int, *, normalised: bool) -> float:
    """Loss after 300 full-batch steps of ten tanh layers from N(0, 0.01²) on two classes of 256 points."""
    points = normal(256, 20)
    targets = (points[:, 0] * points[:, 1] > 0).long()
    layers: list[nn.Module] = []
    for i in range(10):
        layers += [nn.Linear(20 if i == 0 else 50, 50), *([nn.BatchNorm1d(50)] if normalised else []), nn.Tanh()]
    net = nn.Sequential(*layers, nn.Linear(50, 2))
    for i, layer in enumerate(m for m in net if isinstance(m, nn.Linear)):
        layer.weight.data.copy_(0.01 * normal(*layer.weight.shape, seed=100 * seed + i))
        nn.init.zeros_(layer.bias)
    optimizer = build_optimizer("momentum", net, lr=lr)
    for _step in range(300):
        loss = functional.cross_entropy(net(points), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def batch_norm_rescues(_: argparse.Namespace) -> Outcome:
    """How many of four seeds learn (a loss below 0.1, from 0.69); the verdict is on the lower of two rates."""
    text, learnt = [], {}
    for lr in (0.01, 0.1):
        for normalised in (False, True):
            ends = [deep_tanh_loss(lr, seed, normalised=normalised) for seed in range(4)]
            learnt[lr, normalised] = sum(end < 0.1 for end in ends)
        text.append(f"lr {lr}: {learnt[lr, False]} of 4 seeds without, {learnt[lr, True]} with")
    return "; ".join(text), learnt[0.01, False] == 0 and learnt[0.01, True] == 4


def four_masks(_: argparse.Namespace) -> Outcome:
    weights, x = torch.tensor([0.7, -1.3]), torch.tensor([2.0, 5.0])
    mean = sum(float((weights * x) @ torch.tensor(mask)) for mask in itertools.product([0.0, 1.0], repeat=2)) / 4
    half = 0.5 * float(weights @ x)
    return f"{mean:.4f} against {half:.4f}", math.isclose(mean, half, rel_tol=1e-6)


def masks_in_all(_: argparse.Namespace) -> Outcome:
    digits = len(str(2**4096)) - 1
    return f"2^4096 = {str(2**4096)[0]}.{str(2**4096)[1:3]}·10^{digits}", digits == 1233


def activations(_: argparse.Namespace) -> Outcome:
    """Values and gradients at −10, 0 and 10."""
    shown, right = [], True
    taught = {
        "sigmoid": ([4.54e-5, 0.5, 1.0], [4.54e-5, 0.25, 4.54e-5]),
        "tanh": ([-1.0, 0.0, 1.0], [8.24e-9, 1.0, 8.24e-9]),
        "relu": ([0.0, 0.0, 10.0], [0.0, 0.0, 1.0]),
        "leaky_relu": ([-0.1, 0.0, 10.0], [0.01, 0.01, 1.0]),
        "elu": ([-0.99995, 0.0, 10.0], [4.54e-5, 1.0, 1.0]),
        "gelu": ([0.0, 0.0, 10.0], [0.0, 0.5, 1.0]),
    }
    for name, (values, slopes) in taught.items():
        x = torch.tensor([-10.0, 0.0, 10.0], dtype=torch.float64, requires_grad=True)
        y = build_activation(name).double()(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        right &= bool(np.allclose(y.detach(), values, rtol=2e-3, atol=1e-9))
        right &= bool(np.allclose(slope, slopes, rtol=2e-3, atol=1e-9))
        shown.append(f"{name} {said(y.tolist())} (slope {said(slope.tolist())})")
    return "; ".join(shown), right


def ten_layers(
    activation: str, rule: str, fits: Callable[[np.ndarray, np.ndarray], bool], *, means: bool = False
) -> Callable[[argparse.Namespace], Outcome]:
    def measure(_: argparse.Namespace) -> Outcome:
        net = stack((500,) * 11, activation, initialisation=rule, bias=False, seed=0)
        pull = normal(1000, 500, seed=9)
        found = wellfit.activation_statistics(net, normal(1000, 500), loss=lambda outputs: (outputs * pull).sum())
        mean, std = (np.array([getattr(row, which) for row in found.layers]) for which in ("mean", "std"))
        slope = np.array([row.gradient_std for row in found.layers])
        text = (f"mean {said(mean)}; " if means else "") + f"std {said(std)}; gradient's std {said(slope)}"
        return text, fits(mean, std)

    return measure


TANH_XAVIER = [0.628, 0.486, 0.408, 0.357, 0.321, 0.292, 0.273, 0.255, 0.239, 0.228]
RELU_MEAN = [0.399, 0.272, 0.186, 0.136, 0.0996, 0.0722, 0.0498, 0.0351, 0.0254, 0.0184]
RELU_STD = [0.582, 0.404, 0.277, 0.199, 0.140, 0.103, 0.0727, 0.0516, 0.0386, 0.0261]
SMALL = [0.213, 0.0476, 0.0106, 0.00238, 0.000532]


def wide_layers(_: argparse.Namespace) -> Outcome:
    ends = {}
    for rule in ("small_gaussian=0.01", "small_gaussian=0.05", "kaiming"):
        net = stack((4096,) * 7, "relu", initialisation=rule, bias=False, seed=0)
        rows = wellfit.activation_statistics(net, normal(16, 4096)).layers
        ends[rule.removeprefix("small_gaussian=")] = (rows[0].std, rows[-1].std)
    text = "; ".join(f"{rule}: std {first:.3g} → {last:.3g}" for rule, (first, last) in ends.items())
    collapse, blow_up, level = (last / first for first, last in ends.values())
    return text, collapse < 0.05 and blow_up > 30 and 0.8 < level < 1.25


def two_xaviers(_: argparse.Namespace) -> Outcome:
    spread = {}
    for rule in ("xavier", "xavier_average"):
        layer = stack((1000, 250), "tanh", initialisation=rule, bias=False).get_submodule("linear1")
        assert isinstance(layer, nn.Linear)
        spread[rule] = float(layer.weight.std().detach())
    text = f"1/√fan_in {spread['xavier']:.4f}, √(2/(fan_in+fan_out)) {spread['xavier_average']:.4f}"
    return text, close(list(spread.values()), [1000**-0.5, (2 / 1250) ** 0.5], 0.01)


def alexnet_shapes(_: argparse.Namespace) -> Outcome:
    table = wellfit.complexity(construct("alexnet2012", 1000, image_size=227), 227)
    maps = [
        "×".join(map(str, row.output_shape)) for row in table.layers if row.output_shape and len(row.output_shape) == 3
    ]
    wanted = ["96×55×55", "96×27×27", "256×27×27", "256×13×13", "384×13×13", "256×6×6"]
    return " → ".join(dict.fromkeys(maps[1:])), all(shape in maps for shape in wanted)


def vgg16(what: str) -> Callable[[argparse.Namespace], Outcome]:
    def measure(_: argparse.Namespace) -> Outcome:
        table = wellfit.complexity(construct("vgg16", 1000, image_size=224), 224)
        if what == "parameters":
            found = (table.weights, table.parameters)
            return f"{found[0]:,} weights, {found[1]:,} with biases", found == (138_344_128, 138_357_544)
        if what == "activations":
            # As taught: the input, every convolution, pool and fully connected layer; ReLUs in place.
            kept = [row for row in table.layers if not row.type.endswith(("ReLU", "Dropout", "Flatten"))]
            in_all = sum(row.activations for row in kept)
            text = f"{in_all:,} ({4 * in_all / 1e6:.0f} MB); the table of wellfit adds {table.activations:,}"
            return text, in_all == 15_237_608
        early, late = table.early_activations or 0.0, table.late_parameters or 0.0
        return f"{early:.1%} of the activations, {late:.1%} of the weights", round(early, 2) == 0.72 and round(
            late, 2
        ) == 0.89

    return measure


def winners(_: argparse.Namespace) -> Outcome:
    found = {winner.name: winner.top5_error for winner in WINNERS}
    picked = [found.get(name) for name in ("ZFNet", "VGG", "ResNet-152")]
    return ", ".join(f"{w.year} {w.name} {w.top5_error}" for w in WINNERS), picked == [11.7, 7.3, 3.57]


def three_small_filters(_: argparse.Namespace) -> Outcome:
    net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _i in range(3)))
    once = nn.Conv2d(8, 8, 7, padding=3, bias=False)
    field = wellfit.complexity(net, (8, 32, 32)).receptive_field
    counts = sum(p.numel() for p in net.parameters()), sum(p.numel() for p in once.parameters())
    return f"field {field}, {counts[0]} against {counts[1]} weights", field == 7 and counts == (27 * 64, 49 * 64)


def adam_first_step(_: argparse.Namespace) -> Outcome:
    """Without the correction the first step is lr·(1−β1)g / √((1−β2)g²) = lr·0.1/√0.001; with it, lr."""
    lr, slope = 1e-3, 0.37
    plain = 0.1 * slope / math.sqrt(0.001 * slope**2)
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = build_optimizer("adam", [x], lr=lr)
    x.grad = torch.full_like(x, slope)
    optimizer.step()
    step = abs(float(x.detach())) / lr
    return f"{plain:.2f}·lr without the correction, {step:.4f}·lr with it", round(plain, 2) == 3.16 and abs(
        step - 1
    ) < 1e-4


def schedules(_: argparse.Namespace) -> Outcome:
    """Multipliers at the first, the middle and the last step of 100 (1/t: α0/(1+kt) with k·T = 9)."""
    taught = {
        "constant": (1, 1, 1),
        "step": (1, 0.1, 0.001),
        "exponential": (1, 0.1, 0.01),
        "inverse_time": (1, 1 / 5.5, 0.1),
        "cosine": (1, 0.5, 0),
        "linear": (1, 0.5, 0),
    }
    found = {name: tuple(schedule(name)(t) for t in (0.0, 0.5, 1.0)) for name in taught}
    text = "; ".join(f"{name} {said(values)}" for name, values in found.items())
    return text, all(np.allclose(found[name], taught[name], atol=1e-9) for name in taught)


def polyak(_: argparse.Namespace) -> Outcome:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 2.0)
    average = WeightAverage(net, 0.995)
    nn.init.constant_(net.weight, 4.0)
    average.update(net)
    first = float(average.averaged["weight"])
    return f"2 → {first:.4f} after one step at 4", math.isclose(first, 0.995 * 2 + 0.005 * 4, rel_tol=1e-6)


def views(_: argparse.Namespace) -> Outcome:
    square = multi_scale(224, 224)
    smallest = set(square[:10])
    return f"{len(square)} views, {len(smallest)} distinct at the smallest scale", (len(square), len(smallest)) == (
        50,
        2,
    )


def mixed_labels(_: argparse.Namespace) -> Outcome:
    mixed = soft_targets(np.array([0]), np.array([1]), 0.4, 2)[0]
    return f"cat {mixed[0]:.1f}, dog {mixed[1]:.1f}", bool(np.allclose(mixed, [0.4, 0.6]))


def hinge_start(_: argparse.Namespace) -> Outcome:
    from wellfit.training.regularize import build_criterion

    value = float(build_criterion("hinge")(torch.zeros(8, 10), torch.arange(8)))
    return f"{value:.4f}", value == 9.0


UNTRAINED = [
    "resnet18", "resnet34", "resnet50", "resnet20", "resnet56", "plain20", "lenet5", "vgg11", "vgg11_bn",
    "torchvision:resnet18", "torchvision:vgg11", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "mnasnet0_5", "mnasnet1_0", "densenet121", "shufflenet_v2_x0_5", "regnet_y_400mf", "convnext_tiny", "swin_t",
    "timm:vit_tiny_patch16_224", "timm:test_resnet", "timm:lcnet_050", "timm:mobilenetv4_conv_small",
    "timm:repvit_m0_9",
]  # fmt: skip


def untrained_zoo(_: argparse.Namespace) -> Outcome:
    """How many nets with wellfit's scaled classifiers pass the gate, ten classes of noise at 32 pixels."""
    from wellfit.checks.initial_loss import initial_loss

    x, targets = normal(20, 3, 32, 32), torch.arange(20) % 10
    passed = 0
    for name in UNTRAINED:
        module = wellfit_net(name, 10, image_size=32).module.train()
        passed += initial_loss(module, nn.CrossEntropyLoss(), x, targets, classes=10, created_head=True).passed
    return f"{passed} of {len(UNTRAINED)}", passed >= 25


def foreign_starts(_: argparse.Namespace) -> Outcome:
    """Initial loss of torchvision's own initialisation over log 2, in training mode on noise; four seeds a net."""
    import torchvision

    x, targets = normal(8, 3, 224, 224), torch.arange(8) % 2
    factors: dict[str, list[float]] = {}
    for name in ("resnet50", "efficientnet_b0", "mnasnet1_0"):
        for seed in range(4):
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(seed)
                module = torchvision.models.get_model(name, num_classes=2).train()
                loss = float(functional.cross_entropy(module(x), targets))
            factors.setdefault(name, []).append(loss / math.log(2))
    ranges = ", ".join(f"{name} {min(found):.1f} to {max(found):.1f}" for name, found in factors.items())
    mean = {name: float(np.mean(found)) for name, found in factors.items()}
    return ranges, mean["resnet50"] < mean["efficientnet_b0"] < mean["mnasnet1_0"] and mean["mnasnet1_0"] > 3


def random_draws(_: argparse.Namespace) -> Outcome:
    """9 trials of two parameters: values of the important one that a grid and a random search look at."""
    from wellfit.randomness import generator

    grid = len({x for x, _y in itertools.product(range(3), range(3))})
    scattered = len(set(generator(0, "random against grid").random((9, 2))[:, 0]))
    return f"grid {grid}, random {scattered}", (grid, scattered) == (3, 9)


ROWS: list[tuple[str, str, str, Callable[[argparse.Namespace], Outcome]]] = [
    ("D8", "test-time views", "50 views; two distinct at the smallest scale of a square image", views),
    ("D14", "mixup's blended label", "cat 0.4, dog 0.6", mixed_labels),
    ("N1", "2×2 pooling", "max [[6 8] [3 4]], average [[3.25 5.25] [2 2]]", pooling),
    ("N2", "BatchNorm with γ = √(Var+ε), β = E", "the identity", batch_norm_identity),
    ("N2", "ten tanh layers from N(0, 0.01²)", "learn with BatchNorm, not without", batch_norm_rescues),
    ("N3", "mean over the four masks of two inputs", "½(w1x + w2y)", four_masks),
    ("N3", "masks of a layer of 4096 units", "2^4096 ≈ 10^1233", masks_in_all),
    ("N7", "activations and slopes at −10, 0, 10", "sigmoid saturates (slope ¼ at 0), ReLU dies below 0", activations),
    ("I1", "tanh, 0.01·N(0,1)", f"std {said(SMALL)} … 3e-7",
     ten_layers("tanh", "small_gaussian=0.01", lambda m, s: close(s[:5], SMALL, 0.05) and close(s[9:], [3e-7], 0.15))),
    ("I2", "tanh, 1.0·N(0,1)", "std 0.982 at every layer",
     ten_layers("tanh", "small_gaussian=1.0", lambda m, s: bool(np.abs(s - 0.982).max() < 0.003))),
    ("I3", "tanh, N/√fan_in", f"std {said(TANH_XAVIER)}",
     ten_layers("tanh", "xavier", lambda m, s: close(s, TANH_XAVIER, 0.04))),
    ("I4", "ReLU, N/√fan_in", f"mean {said(RELU_MEAN)}; std {said(RELU_STD)}",
     ten_layers("relu", "xavier", lambda m, s: close(m, RELU_MEAN, 0.35) and close(s, RELU_STD, 0.35), means=True)),
    ("I5", "ReLU, N·√(2/fan_in)", "mean ≈ 0.56, std ≈ 0.83 at every layer",
     ten_layers("relu", "kaiming", lambda m, s: close(m, [0.56] * 10, 0.3) and close(s, [0.83] * 10, 0.3), means=True)),
    ("I6", "ReLU, 6 layers of 4096, batch 16", "0.01 collapses, 0.05 blows up, Kaiming stays level", wide_layers),
    ("N8", "the two forms of Xavier, 1000 → 250 units", "std 0.0316 and 0.0400", two_xaviers),
    ("A1", "AlexNet's maps (C×H×W)", "96×55×55, 96×27×27, 256×27×27, 256×13×13, 384×13×13, 256×6×6", alexnet_shapes),
    ("V1", "VGG-16's parameters", "138,344,128 weights, 138,357,544 with biases", vgg16("parameters")),
    ("V1", "VGG-16's activations", "printed as 24 M; they add to 15,237,608, 61 MB", vgg16("activations")),
    ("N10", "VGG-16: early memory, late weights", "72% by the end of block 2; 89% in FC layers", vgg16("shares")),
    ("N10", "ILSVRC winners' top-5 error", "ZFNet 11.7, VGG 7.3, ResNet-152 3.57", winners),
    ("N10", "three 3×3 convolutions against one 7×7", "both see 7×7; 27C² against 49C²", three_small_filters),
    ("O6", "Adam's first step", "3.16·lr without bias correction", adam_first_step),
    ("O9", "schedules at first, middle, last step", "the printed formulas", schedules),
    ("O12", "Polyak average, started at x", "0.995·x̄ + 0.005·x", polyak),
    ("C2", "hinge loss at equal scores, 10 classes", "C − 1 = 9", hinge_start),
    ("C2", "untrained nets of the zoo that pass the gate", "at least 25", untrained_zoo),
    ("C2", "foreign nets, two classes, loss over log 2", "ResNet-50 up to 1.6, EfficientNet-B0 2.4-4.5, MNASNet 5.7-17",
     foreign_starts),
    ("S2", "values of one parameter seen in 9 trials", "grid 3, random 9", random_draws),
]  # fmt: skip
