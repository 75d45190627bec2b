"""Is a search faster when many small networks are trained as one program?

K networks of one architecture, each with a learning rate and a weight decay of its own, on the same batches: in turn,
each with torch's fused SGD, and packed: parameters stacked, gradients by torch.func's vmap over the networks, one
update of all of them. One thread, float32, processor time of the training steps alone,
repetitions apart; both come to the same weights within float tolerance.

usage: python benchmarks/packing.py [NET ...] [--networks 8 32] [--batches 16 128] [--repeats 7]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from search_nets import StridedLeNet
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from wellfit.models.zoo import build
from wellfit.recipe.machine import machine

MOMENTUM = 0.9
IMAGES = 4_000  # that each way trains on, all networks together, at least
WORTH = 1.2


def strided(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StridedLeNet(10)


NETS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "two_layer": (32, lambda seed: build("two_layer", 10, image_size=32, seed=seed, hidden=50, std=1e-2).module),
    "lenet5": (28, lambda seed: build("lenet5", 10, image_size=28, seed=seed).module),
    "strided": (28, strided),
}
"""Image size and network, by name."""


def in_turn(
    nets: Sequence[nn.Module], batches: Sequence[tuple[Tensor, Tensor]], lr: Sequence[float], decay: Sequence[float]
) -> list[dict[str, Tensor]]:
    """The weights that each network comes to, trained one after another."""
    for net, rate, strength in zip(nets, lr, decay, strict=True):
        rule = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=strength, fused=True)
        for images, targets in batches:
            rule.zero_grad()
            cross_entropy(net(images), targets).backward()
            rule.step()
    return [{name: weights.detach() for name, weights in net.named_parameters()} for net in nets]


def packed(
    nets: Sequence[nn.Module], batches: Sequence[tuple[Tensor, Tensor]], lr: Sequence[float], decay: Sequence[float]
) -> list[dict[str, Tensor]]:
    """The same as one program: K×… parameters, K rates and decays."""
    stacked, buffers = stack_module_state(list(nets))
    weights = {name: value.detach() for name, value in stacked.items()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    shape = copy.deepcopy(nets[0]).to("meta")
    device = next(iter(weights.values())).device
    rates, strengths = torch.tensor(lr, device=device), torch.tensor(decay, device=device)

    def loss(own: dict[str, Tensor], more: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(functional_call(shape, (own, more), (images,)), targets)

    slopes = vmap(grad(loss), in_dims=(0, 0, None, None))
    for images, targets in batches:
        for name, slope in slopes(weights, buffers, images, targets).items():
            each = (-1, *[1] * (slope.dim() - 1))
            velocity[name].mul_(MOMENTUM).add_(slope).add_(weights[name] * strengths.view(each))
            weights[name].sub_(velocity[name] * rates.view(each))
    return [{name: value[i] for name, value in weights.items()} for i in range(len(nets))]


def compare(name: str, count: int, batch: int, repeats: int) -> str:
    """One line: images a second of both ways, and the ratio's median and range over the repetitions."""
    side, make = NETS[name]
    steps = max(2, -(-IMAGES // (count * batch)))
    draw = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.rand(batch, 3, side, side, generator=draw) - 0.5,
            torch.randint(0, 10, (batch,), generator=draw),
        )
        for _ in range(steps)
    ]
    lr = [0.01 * (1 + i % 4) for i in range(count)]
    decay = [1e-4 * (i % 3) for i in range(count)]
    seconds: dict[str, list[float]] = {"in turn": [], "packed": []}
    apart = 0.0
    for _ in range(repeats):
        found = []
        for way, train in (("in turn", in_turn), ("packed", packed)):
            nets = [make(seed) for seed in range(count)]
            begun = time.process_time()
            found.append(train(nets, batches, lr, decay))
            seconds[way].append(time.process_time() - begun)
        for one, other in zip(*found, strict=True):
            apart = max(apart, *(float((one[key] - other[key]).abs().max()) for key in one))
    images = count * batch * steps
    speeds = {way: images / min(spent) for way, spent in seconds.items()}
    ratios = [one / other for one, other in zip(seconds["in turn"], seconds["packed"], strict=True)]
    middle = statistics.median(ratios)
    return (
        f"{name:<10} {count:>8} {batch:>6} {speeds['in turn']:>9,.0f} {speeds['packed']:>9,.0f}   "
        f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f}){' wins' if middle >= WORTH else '     '}  {apart:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--networks", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    for name in arguments.nets:
        if name not in NETS:
            parser.error(f"a net is one of {', '.join(NETS)}, got '{name}'")
    torch.set_num_threads(1)
    print(f"{machine()}, torch {torch.__version__}\nimages a second of all networks together, one thread")
    print("net        networks  batch   in turn    packed   times as fast (range)  weights differ by")
    for name in arguments.nets or NETS:
        for count in arguments.networks:
            for batch in arguments.batches:
                print(compare(name, count, batch, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
