"""The course's two-layer network, pictures to try it on, and a witness that nothing was changed."""

import random

import numpy as np
import pytest
import torch
from torch import nn


def two_layer(classes=10, pixels=3072, scale=1e-4, seed=0):
    """3072-50-10 with Gaussian weights of 1e-4 and zero biases, on N×3×32×32."""
    source = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 50), nn.ReLU(), nn.Linear(50, classes))
    with torch.no_grad():
        for layer in (net[1], net[3]):
            layer.weight.copy_(scale * torch.randn(layer.weight.shape, generator=source))
            layer.bias.zero_()
    return net


def small_convnet(classes=10, seed=0, dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, classes),
        )
    with torch.no_grad():
        net[-1].weight.mul_(0.1)
        net[-1].bias.zero_()
    return net


def raw_pixels(count=20, classes=10, seed=0):
    """Random 0-255 images, mean subtracted, and balanced targets."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=source).float()
    return images - images.mean(0), torch.arange(count) % classes


def patterned(count=64, classes=4, size=16, seed=0):
    """Unit-scale images that carry their class as a pattern below noise, and targets."""
    patterns = torch.randn(classes, 3, size, size, generator=torch.Generator().manual_seed(12345))
    source = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=source)
    noise = torch.randn(count, 3, size, size, generator=source)
    return (patterns[targets] + noise) / 2**0.5, targets


def fingerprint(module, optimizer=None):
    """Bytes of weights, buffers, gradients, modes, optimizer state and global generators."""
    tensors = [*module.state_dict().values(), *(p.grad for p in module.parameters() if p.grad is not None)]
    if optimizer is not None:
        tensors += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    groups = repr([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]) if optimizer else ""
    return (
        [t.detach().numpy().tobytes() for t in tensors],
        [m.training for m in module.modules()],
        [p.requires_grad for p in module.parameters()],
        groups,
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),
        random.getstate(),
    )


@pytest.fixture
def lived_in():
    """A network in mid-training with its optimizer, gradients and mixed modes."""
    net = small_convnet(classes=4, dropout=0.5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    images, targets = patterned(16)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), targets).backward()
        optimizer.step()
    net[1].eval()
    net[3].bias.requires_grad_(False)
    return net, optimizer
