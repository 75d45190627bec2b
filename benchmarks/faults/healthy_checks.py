"""Checks and audits of settings in which nothing is wrong: nets of networks.py, of torchvision and of timm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from faults.case import Case
from faults.checking import Checking, Folders, healthy_audit, healthy_check
from faults.data import Images, Tensors, channels_first
from faults.networks import NETWORKS, he, lenet, mlp, plain, squeezenet, vgg
from faults.sick.plant import Around, last_linear


def cases() -> list[Case]:
    """All of these."""
    return [*ordinary(), *losses(), *kinds_of_net(), *foreign(), *audits()]


# ---- optimizers as users make them ---------------------------------------------------------------------


def sgd(lr: float = 0.02, decay: float = 5e-4) -> Callable[[nn.Module], Optimizer]:
    return lambda model: SGD(model.parameters(), lr, momentum=0.9, weight_decay=decay)


def adam(lr: float = 1e-3) -> Callable[[nn.Module], Optimizer]:
    return lambda model: Adam(model.parameters(), lr)


def adamw(lr: float = 1e-3) -> Callable[[nn.Module], Optimizer]:
    return lambda model: AdamW(model.parameters(), lr, weight_decay=0.05)


def no_decay_on_vectors(model: nn.Module) -> Optimizer:
    weights = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return AdamW([{"params": weights, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], lr=1e-3)


def slower_body(model: nn.Module) -> Optimizer:
    """A lower rate for all but the last layer."""
    head = {id(p) for p in last_linear(model).parameters()}
    body = [p for p in model.parameters() if id(p) not in head]
    return SGD(
        [{"params": body, "lr": 1e-3}, {"params": last_linear(model).parameters(), "lr": 1e-2}],
        momentum=0.9,
        weight_decay=1e-4,
    )


def warmed_up(model: nn.Module) -> Optimizer:
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=50)
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "momentum": sgd(),
    "Adam": adam(),
    "AdamW": adamw(),
    "groups": no_decay_on_vectors,
    "warm-up": warmed_up,
    "NAdam": lambda model: NAdam(model.parameters(), 1e-3),
    "RMSprop": lambda model: RMSprop(model.parameters(), 5e-4),
    "Adagrad": lambda model: Adagrad(model.parameters(), 1e-2),
    "a function": lambda model: lambda params: AdamW(params, 1e-3),
    "a name": lambda model: "nesterov",
    "slower body": slower_body,
}
FORMS = ("batch", "loader", "dataset", "list")


def ordinary() -> list[Case]:
    """Each network on two data sets, optimizers and forms in turn."""
    made, number = [], 0
    for name in NETWORKS:
        for data in ("digits", "fashion-mnist", "cifar10"):
            if name == "squeezenet" or (data == "fashion-mnist" and number % 3):
                number += 1
                continue
            optimizer, form = list(OPTIMIZERS)[number % len(OPTIMIZERS)], FORMS[number % len(FORMS)]
            setting = Checking(name, data, OPTIMIZERS[optimizer], form=form, compared=bool(number % 2), seed=number)
            made.append(healthy_check(f"{name}/{data}/{optimizer}/{form}", setting))
            number += 1
    return made


# ---- losses --------------------------------------------------------------------------------------------


class Focal(nn.Module):
    """Lin et al. 2017, with a focus of 2."""

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(scores, targets, reduction="none")
        return ((1 - (-losses).exp()) ** 2 * losses).mean()


def hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """Σ over wrong classes of max(0, 1 + s_j − s_y), averaged."""
    right = scores.gather(1, targets[:, None])
    margins = (1 + scores - right).clamp_min(0).scatter(1, targets[:, None], 0.0)
    return margins.sum(1).mean()


def brier(scores: Tensor, targets: Tensor) -> Tensor:
    return (scores.softmax(1) - F.one_hot(targets, scores.shape[1])).square().sum(1).mean()


def yes_or_no(scores: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores.squeeze(1), targets.float())


def with_logs(model: nn.Module) -> nn.Module:
    return Around(model, after=lambda s: s.log_softmax(1))


def one_output(channels: int, size: int, classes: int) -> nn.Module:
    return lenet(channels, size, 1)


def l2_of(model: nn.Module) -> Callable[[nn.Module], Tensor]:
    return lambda m: 1e-4 * torch.stack([p.square().sum() for p in m.parameters() if p.ndim > 1]).sum()


def l2_of_this_one(model: nn.Module) -> Callable[[nn.Module], Tensor]:
    """Written around the model itself, whatever it is given."""
    return lambda _: 1e-4 * torch.stack([p.square().sum() for p in model.parameters()]).sum()


def losses() -> list[Case]:
    """Losses, penalties and targets of all usual kinds."""
    digits, pair = Checking("lenet", "digits"), Checking("vgg", "cifar10", classes=[3, 8])
    table: dict[str, Checking] = {
        "CrossEntropyLoss": replace(digits, loss=lambda m: nn.CrossEntropyLoss()),
        "smoothed": replace(digits, loss=lambda m: nn.CrossEntropyLoss(label_smoothing=0.1)),
        "smoothed by a function": replace(
            digits, loss=lambda m: lambda s, t: F.cross_entropy(s, t, label_smoothing=0.15), network="vgg-bn"
        ),
        "weighted": replace(digits, loss=lambda m: nn.CrossEntropyLoss(torch.linspace(0.5, 1.5, 10))),
        "NLL of logs": replace(digits, loss=lambda m: nn.NLLLoss(), change=with_logs),
        "multi-margin": replace(digits, loss=lambda m: nn.MultiMarginLoss(), network="mlp"),
        "hinge by hand": replace(digits, loss=lambda m: hinge, network="tanh"),
        "focal": replace(digits, loss=lambda m: Focal(), network="resnet"),
        "Brier": replace(digits, loss=lambda m: brier, network="gelu"),
        "one output": replace(pair, network=one_output, loss=lambda m: yes_or_no),
        "two classes": pair,
        "two classes, ResNet": replace(pair, network="resnet", compared=True),
        "L2": replace(digits, penalty=l2_of, network="functional"),
        "L2 around the model": replace(digits, penalty=l2_of_this_one, network="plain"),
        "shares": replace(digits, then=lambda d: replace(d, train_labels=F.one_hot(d.train_labels, 10).float())),
    }
    return [healthy_check(f"loss/{title}", setting) for title, setting in table.items()]


# ---- nets that look odd and are sound ------------------------------------------------------------------


class Tuple(nn.Module):
    """Scores, and features beside them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(x), x.flatten(1).mean(1)


class Mapping(nn.Module):
    """Scores under a name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(x)}


def zero_head(model: nn.Module) -> None:
    nn.init.zeros_(last_linear(model).weight)
    nn.init.zeros_(last_linear(model).bias)


def body_frozen(model: nn.Module) -> None:
    model.requires_grad_(False)
    last_linear(model).requires_grad_(True)


def with_dropout(channels: int, size: int, classes: int) -> nn.Module:
    return he(vgg(channels, size, classes, norm=True, dropout=0.6))


def normalises_itself(channels: int, size: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), lenet(channels, size, classes))


def group_norm(channels: int, size: int, classes: int) -> nn.Module:
    net = plain(channels, size, classes, depth=6)
    for place, layer in enumerate(net):
        if isinstance(layer, nn.BatchNorm2d):
            net[place] = nn.GroupNorm(4, layer.num_features)
    return net


def as_ranges(low: float, high: float) -> Callable[[Images], Tensors]:
    def tensors(images: Images) -> Tensors:
        top = 16.0 if images.train.max() <= 16 else 255.0
        parts = (channels_first(x) / top * (high - low) + low for x in (images.train, images.validation))
        train, validation = parts
        labels = torch.from_numpy(images.train_labels), torch.from_numpy(images.validation_labels)
        return Tensors(train, labels[0], validation, labels[1], images.classes)

    return tensors


def kinds_of_net() -> list[Case]:
    """Heads at zero, frozen bodies, nets that normalise their input, tuples and mappings, other input ranges."""
    digits, cifar = Checking("lenet", "digits"), Checking("vgg-bn", "cifar10")
    table: dict[str, Checking] = {
        "head at zero": replace(cifar, change=zero_head),
        "body frozen": replace(digits, change=body_frozen, optimizer=adam(3e-3)),
        "tuple": replace(digits, change=Tuple),
        "mapping": replace(cifar, change=Mapping),
        "dropout 0.6": replace(cifar, network=with_dropout),
        "BatchNorm first, 0 to 255": replace(cifar, network=normalises_itself, tensors=as_ranges(0, 255)),
        "divides by 255 itself": replace(
            cifar, tensors=as_ranges(0, 255), change=lambda m: Around(m, before=lambda x: (x - 120) / 64)
        ),
        "0 to 1": replace(cifar, tensors=as_ranges(0, 1), network="resnet"),
        "-1 to 1": replace(digits, tensors=as_ranges(-1, 1), network="mlp"),
        "GroupNorm": replace(cifar, network=group_norm),
        "wide MLP": replace(digits, network=lambda c, s, k: mlp(c, s, k, hidden=(512, 512))),
        "flipped training": replace(cifar, then=flipped, compared=True, network="gelu", validation=300),
        "padded crops": replace(cifar, then=cropped, compared=True, network="vgg", validation=300),
        "few images": Checking("lenet", "ants-bees", train=60, validation=40, compared=True),
        "class shift": replace(cifar, images=shifted, compared=True, network="resnet", validation=300),
        "1 to 3": replace(digits, images=one_to_three, compared=True, network="vgg", train=900),
    }
    return [healthy_check(f"net/{title}", setting) for title, setting in table.items()]


def flipped(data: Tensors) -> Tensors:
    """Half of the training images mirrored."""
    mirror = torch.rand(len(data.train), generator=torch.Generator().manual_seed(0)) < 0.5
    return replace(data, train=torch.where(mirror[:, None, None, None], data.train.flip(3), data.train))


def cropped(data: Tensors) -> Tensors:
    """Training images shifted by up to four pixels, black beside them; colours drawn a little."""
    draws = torch.Generator().manual_seed(0)
    padded = F.pad(data.train, (4, 4, 4, 4))
    side = data.train.shape[-1]
    places = torch.randint(0, 9, (len(data.train), 2), generator=draws).tolist()
    train = torch.stack([x[:, a : a + side, b : b + side] for x, (a, b) in zip(padded, places, strict=True)])
    return replace(data, train=train * (0.8 + 0.4 * torch.rand(len(train), 1, 1, 1, generator=draws)))


def shifted(images: Images) -> Images:
    """Validation holds animals four times as often as vehicles."""
    vehicle = np.isin(images.validation_labels, (0, 1, 8, 9))
    keep = ~vehicle | (np.cumsum(vehicle) % 4 == 0)
    return replace(images, validation=images.validation[keep], validation_labels=images.validation_labels[keep])


def one_to_three(images: Images) -> Images:
    keep = (images.train_labels != 2) | (np.cumsum(images.train_labels == 2) % 3 == 0)
    return replace(images, train=images.train[keep], train_labels=images.train_labels[keep])


# ---- nets of others ------------------------------------------------------------------------------------


def torchvision_net(name: str, **options: Any) -> Callable[[int, int, int], nn.Module]:
    def make(channels: int, size: int, classes: int) -> nn.Module:
        from torchvision.models import get_model

        return get_model(name, weights=None, num_classes=classes, **options)

    return make


def timm_net(name: str, **options: Any) -> Callable[[int, int, int], nn.Module]:
    def make(channels: int, size: int, classes: int) -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=classes, in_chans=channels, **options)

    return make


def head_of_squeezenet(model: nn.Module) -> None:
    """Only the new last convolution is trained."""
    model.requires_grad_(False)
    model.classifier[1].requires_grad_(True)


def foreign() -> list[Case]:
    """Pretrained SqueezeNet and small nets of torchvision and timm at their own initialisation."""
    photos = Checking(squeezenet, "ants-bees", adamw(3e-4), train=100, validation=60)
    small = Checking("resnet", "cifar10", adamw(), train=200, validation=60, compared=True)
    table: dict[str, Checking] = {
        "SqueezeNet, pretrained": photos,
        "SqueezeNet, pretrained, head alone": replace(photos, change=head_of_squeezenet, optimizer=adam(3e-3)),
        "torchvision ResNet-18": replace(small, network=torchvision_net("resnet18")),
        "torchvision MobileNetV3": replace(small, network=torchvision_net("mobilenet_v3_small")),
        "torchvision ShuffleNetV2": replace(small, network=torchvision_net("shufflenet_v2_x0_5"), optimizer=sgd()),
        "torchvision EfficientNet-B0": replace(small, network=torchvision_net("efficientnet_b0"), train=120),
        "timm resnet10t": replace(small, network=timm_net("resnet10t")),
        "timm convnext_atto": replace(small, network=timm_net("convnext_atto", patch_size=2)),
        "timm lcnet_050": replace(small, network=timm_net("lcnet_050"), optimizer=sgd()),
        "timm vit": replace(
            small, network=timm_net("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=4), optimizer=adamw(5e-4)
        ),
        "timm mixer": replace(small, network=timm_net("mixer_s16_224", img_size=32)),
        "timm ghostnet on digits": Checking(
            timm_net("ghostnet_050"), "fashion-mnist", adamw(), train=200, validation=60
        ),
    }
    return [healthy_check(f"foreign/{title}", setting) for title, setting in table.items()]


# ---- folders -------------------------------------------------------------------------------------------


def audits() -> list[Case]:
    """Splits as they come, and shares of classes that differ between them; no class is rare."""
    table: dict[str, Folders] = {
        f"{data}/{held_out}/{seed}": Folders(
            data, 240 if data != "ants-bees" else 150, 80, held_out=held_out, seed=seed
        )
        for data, held_out, seed in (
            ("digits", "val", 0),
            ("digits", "test", 1),
            ("fashion-mnist", "val", 0),
            ("fashion-mnist", "test", 5),
            ("cifar10", "val", 2),
            ("cifar10", "test", 3),
            ("ants-bees", "val", 0),
            ("ants-bees", "test", 1),
        )
    }
    table["cifar10/apart"] = Folders(train=200, validation=100, separate=True, seed=4)
    table["cifar10/class shift"] = Folders(train=400, validation=200, images=shifted, seed=5)
    table["digits/small"] = Folders("digits", 200, 40, seed=6)
    table["fashion-mnist/1 to 3"] = Folders("fashion-mnist", 600, 100, images=one_to_three, seed=7)
    return [healthy_audit(title, setting) for title, setting in table.items()]
