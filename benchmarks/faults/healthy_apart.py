"""Healthy trainings that a product of settings does not reach: what else users do on purpose, and rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from faults.case import Case
from faults.data import Images, Tensors, channels_first, load, standardise
from faults.lengths import CIFAR, DIGITS, FASHION, PHOTOS
from faults.loop import Loop
from faults.networks import build, lenet, mlp, seeded, vgg
from faults.schedules import with_schedule
from faults.sick.plant import Around, Setting, rows_of
from wellfit.randomness import generator


def case(title: str, setting: Setting, at_least: float) -> Case:
    network = setting.network if isinstance(setting.network, str) else setting.network.__name__.replace("_", "-")
    optimizer = setting.optimizer if isinstance(setting.optimizer, str) else setting.optimizer.__name__
    name = f"healthy: {title}; {network} on {setting.data}, {optimizer} {setting.lr:g}, seed {setting.seed}"
    return Case(name, "", "training", setting.run, at_least=at_least)


# ---- losses and labels ---------------------------------------------------------------------------------------

smoothed = partial(F.cross_entropy, label_smoothing=0.1)


def mixup(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018 with a = 0.4: images and labels of two, in shares."""
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    order = torch.randperm(len(x))
    labels = F.one_hot(y, 10).float()
    return share * x + (1 - share) * x[order], share * labels + (1 - share) * labels[order]


def log_of_probabilities(answers: Tensor, y: Tensor) -> Tensor:
    """For a network that ends with a softmax."""
    return F.nll_loss(torch.log(answers + 1e-8), y)


def end_with(layer: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    return lambda model: Around(model, after=layer())


def of_one_logit(answers: Tensor, y: Tensor) -> Tensor:
    """Two classes, one answer, a sigmoid in the loss."""
    return F.binary_cross_entropy_with_logits(answers.squeeze(1), y.float())


class OneLogit(Loop):
    """An answer above 0 means the second class."""

    def hits(self, answers: Tensor, y: Tensor) -> int:
        return int(((answers.squeeze(1) > 0) == y.bool()).sum())


def one_lenet(channels: int, size: int, classes: int) -> nn.Module:
    return lenet(channels, size, 1)


def one_mlp(channels: int, size: int, classes: int) -> nn.Module:
    return mlp(channels, size, 1)


def kept_third(images: Images) -> Images:
    """One image in three of every other class: 3 to 1."""
    rare = images.train_labels % 2 == 1
    kept = ~rare | (generator(0, "faults/imbalance").random(len(rare)) < 1 / 3)
    return replace(images, train=images.train[kept], train_labels=images.train_labels[kept])


def labels() -> Iterator[Case]:
    settings = (
        (Setting("lenet", "fashion-mnist", "Adam", 0.003, **FASHION), 0.72),
        (with_schedule(Setting("vgg-bn", "cifar10", "momentum", 0.02, seed=1, **CIFAR), "warm-up"), 0.33),
        (Setting("mlp", "digits", "AdamW", 0.003, seed=2, **DIGITS), 0.92),
        (Setting("resnet", "digits", "Nesterov", 0.02, seed=3, **DIGITS), 0.92),
    )
    for seed, (setting, floor) in enumerate(settings):
        yield case("label smoothing", replace(setting, loss=smoothed), floor)
        yield case("mixup", replace(setting, augment=mixup, seed=seed + 10), floor - 0.02)
        softmax = end_with(partial(nn.Softmax, dim=1))
        yield case("softmax, NLL of its log", replace(setting, change=softmax, loss=log_of_probabilities), floor)
        logs = end_with(partial(nn.LogSoftmax, dim=1))
        yield case("log-softmax, NLL", replace(setting, change=logs, loss=F.nll_loss, seed=seed + 20), floor)
    two = {"classes": [3, 5], "train": 240, "validation": 100, "epochs": 12, "batch_size": 16}
    clothes = {**FASHION, "classes": [0, 1], "train": 1000, "validation": 300}
    animals = {**CIFAR, "classes": [1, 6], "train": 1100, "validation": 300, "epochs": 4, "batch_size": 32}
    single: dict[str, Any] = {"loop": OneLogit, "loss": of_one_logit}
    yield case("two classes", Setting("vgg-bn", "digits", "Adam", 0.002, **two), 0.95)
    yield case("two classes", Setting("lenet", "fashion-mnist", "momentum", 0.03, **clothes), 0.92)
    yield case("two classes", Setting("resnet", "cifar10", "AdamW", 0.002, **animals), 0.8)
    yield case("two classes, one logit", Setting(one_mlp, "digits", "Adam", 0.003, **single, **two), 0.95)
    yield case("two classes, one logit", Setting(one_lenet, "fashion-mnist", "Adam", 0.002, **single, **clothes), 0.92)
    yield case("three to one", Setting("vgg-bn", "digits", "momentum", 0.02, images=kept_third, **DIGITS), 0.9)
    yield case("three to one", Setting("mlp", "digits", "Adam", 0.003, images=kept_third, **DIGITS), 0.88)
    yield case("three to one", Setting("resnet", "fashion-mnist", "AdamW", 0.002, images=kept_third, **FASHION), 0.68)
    yield case("three to one", Setting("lenet", "fashion-mnist", "Adam", 0.004, images=kept_third, **FASHION), 0.68)


# ---- regularisation and the loop -----------------------------------------------------------------------------


class Bfloat16(Loop):
    """Autocast of the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x)


class Untold(Loop):
    """The monitor is told no labels."""

    def told(self, targets: Tensor) -> None:
        return None


def shifted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Crops of the padded image, the same for a batch."""
    top, left = (int(n) for n in torch.randint(0, 3, (2,)))
    return F.pad(x, (1, 1, 1, 1))[:, :, top : top + x.shape[2], left : left + x.shape[3]], y


def flipped(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Each image mirrored or not, then `shifted`."""
    mirrored = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    return shifted(mirrored, y)


def dropout_mlp(channels: int, size: int, classes: int) -> nn.Module:
    layers = list(mlp(channels, size, classes))
    return nn.Sequential(*(part for a in layers for part in ((a, nn.Dropout(0.3)) if isinstance(a, nn.ReLU) else (a,))))


def dropout_vgg(channels: int, size: int, classes: int) -> nn.Module:
    return vgg(channels, size, classes, norm=True, dropout=0.4)


def on_plateau(optimizer: Optimizer) -> lr_scheduler.ReduceLROnPlateau:
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)


def restarts(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    """Cycles of 60 steps (Loshchilov & Hutter 2017)."""
    return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 60)


def ways() -> Iterator[Case]:
    digits, fashion, cifar = "digits", "fashion-mnist", "cifar10"
    yield case("dropout 0.3", Setting(dropout_mlp, digits, "Adam", 0.003, **DIGITS), 0.92)
    yield case("dropout 0.3", Setting(dropout_mlp, fashion, "momentum", 0.03, **FASHION), 0.72)
    yield case("dropout 0.4", Setting(dropout_vgg, cifar, "AdamW", 0.002, **CIFAR), 0.33)
    yield case("dropout 0.4", Setting(dropout_vgg, digits, "Nesterov", 0.02, **DIGITS), 0.92)
    yield case(
        "decay 5e-4", with_schedule(Setting("resnet", cifar, "momentum", 0.03, decay=5e-4, **CIFAR), "cosine"), 0.33
    )
    yield case("decay 5e-4", Setting("vgg", fashion, "Nesterov", 0.01, decay=5e-4, **FASHION), 0.72)
    yield case("decay 0.05", Setting("gelu", digits, "AdamW", 0.003, decay=0.05, **DIGITS), 0.92)
    yield case("decay 0.1", Setting("resnet", fashion, "AdamW", 0.002, decay=0.1, **FASHION), 0.72)
    yield case("decay 1e-4", Setting("mlp", digits, "Adam", 0.003, decay=1e-4, **DIGITS), 0.92)
    quarter = {**DIGITS, "batch_size": 16, "accumulate": 4}
    yield case("4 batches a step", Setting("vgg-bn", digits, "momentum", 0.02, **quarter), 0.92)
    yield case("4 batches a step", Setting("mlp", digits, "Adam", 0.003, **quarter), 0.92)
    halved = {**FASHION, "batch_size": 32, "accumulate": 2}
    yield case("2 batches a step", Setting("lenet", fashion, "AdamW", 0.003, **halved), 0.72)
    yield case("clipped at 1", Setting("lenet", digits, "momentum", 0.05, clip=1.0, **DIGITS), 0.92)
    yield case("clipped at 1", Setting("vgg", cifar, "Adam", 0.002, clip=1.0, **CIFAR), 0.33)
    yield case("clipped at 0.5", Setting("tanh", fashion, "Nesterov", 0.03, clip=0.5, **FASHION), 0.72)
    yield case("shifts", Setting("vgg-bn", digits, "Adam", 0.002, augment=shifted, **DIGITS), 0.9)
    yield case("shifts", Setting("plain", digits, "AdamW", 0.001, augment=shifted, **DIGITS), 0.9)
    yield case("flips and shifts", Setting("resnet", cifar, "Nesterov", 0.02, augment=flipped, **CIFAR), 0.33)
    yield case("flips and shifts", Setting("lenet", fashion, "Adam", 0.004, augment=flipped, **FASHION), 0.7)
    yield case("bfloat16", Setting("vgg-bn", digits, "Adam", 0.002, loop=Bfloat16, **DIGITS), 0.92)
    yield case("bfloat16", Setting("mlp", fashion, "momentum", 0.03, loop=Bfloat16, **FASHION), 0.72)
    yield case("bfloat16", Setting("lenet", digits, "AdamW", 0.004, loop=Bfloat16, **DIGITS), 0.92)
    yield case("no labels told", Setting("resnet", digits, "Adam", 0.002, loop=Untold, **DIGITS), 0.92)
    yield case("no labels told", Setting("functional", fashion, "momentum", 0.03, loop=Untold, **FASHION), 0.72)
    yield case("reduced on a plateau", Setting("mlp", digits, "momentum", 0.05, scheduler=on_plateau, **DIGITS), 0.92)
    yield case("reduced on a plateau", Setting("vgg", digits, "Adam", 0.003, scheduler=on_plateau, **DIGITS), 0.92)
    again: dict[str, Any] = {"scheduler": restarts, "scheduler_step": "step"}
    yield case("warm restarts", Setting("vgg-bn", digits, "Nesterov", 0.03, **again, **DIGITS), 0.92)
    yield case("warm restarts", Setting("lenet", fashion, "AdamW", 0.005, **again, **FASHION), 0.72)
    yield case("warm restarts", Setting("mlp", digits, "SGD", 0.2, **again, **DIGITS), 0.92)
    yield case("NAdam", Setting("gelu", digits, "NAdam", 0.002, **DIGITS), 0.92)
    yield case("NAdam", with_schedule(Setting("resnet", cifar, "NAdam", 0.002, **CIFAR), "cosine"), 0.33)
    yield case("Adagrad", Setting("mlp", digits, "Adagrad", 0.02, **DIGITS), 0.92)
    yield case("Adagrad", Setting("tanh", fashion, "Adagrad", 0.01, **FASHION), 0.7)


# ---- data and lengths ----------------------------------------------------------------------------------------


def unit_range(images: Images) -> Tensors:
    """ToTensor() alone: pixels in [0, 1]."""
    top = float(images.train.max())
    return Tensors(
        channels_first(images.train) / top,
        torch.from_numpy(images.train_labels),
        channels_first(images.validation) / top,
        torch.from_numpy(images.validation_labels),
        images.classes,
    )


def halves(images: Images) -> Tensors:
    """ToTensor() and Normalize(0.5, 0.5): pixels in [-1, 1]."""
    whole = unit_range(images)
    return replace(whole, train=2 * whole.train - 1, validation=2 * whole.validation - 1)


def amounts() -> Iterator[Case]:
    digits, fashion, cifar = "digits", "fashion-mnist", "cifar10"
    yield case("pixels in [0, 1]", Setting("lenet", fashion, "Adam", 0.003, tensors=unit_range, **FASHION), 0.7)
    yield case("pixels in [0, 1]", Setting("mlp", digits, "Adam", 0.003, tensors=unit_range, **DIGITS), 0.92)
    yield case(
        "pixels in [0, 1]",
        with_schedule(Setting("vgg-bn", cifar, "momentum", 0.02, tensors=unit_range, **CIFAR), "cosine"),
        0.33,
    )
    yield case("pixels in [0, 1]", Setting("resnet", digits, "SGD", 0.1, tensors=unit_range, **DIGITS), 0.92)
    yield case("pixels in [-1, 1]", Setting("vgg", fashion, "AdamW", 0.002, tensors=halves, **FASHION), 0.72)
    yield case(
        "pixels in [-1, 1]",
        with_schedule(Setting("resnet", cifar, "Adam", 0.002, tensors=halves, **CIFAR), "cosine"),
        0.33,
    )
    yield case("pixels in [-1, 1]", Setting("tanh", digits, "momentum", 0.03, tensors=halves, **DIGITS), 0.92)
    tiny = {**DIGITS, "train": 800, "batch_size": 8, "epochs": 4}
    yield case("batches of 8", Setting("vgg-bn", digits, "momentum", 0.005, **tiny), 0.9)
    yield case("batches of 8", Setting("mlp", digits, "Adam", 0.001, **tiny), 0.9)
    yield case("batches of 8", Setting("lenet", digits, "AdamW", 0.002, **tiny), 0.88)
    yield case("batches of 8", Setting("tanh", fashion, "SGD", 0.02, **{**FASHION, "batch_size": 8, "epochs": 1}), 0.68)
    large = {**FASHION, "batch_size": 250, "epochs": 8}
    yield case("batches of 250", Setting("lenet", fashion, "Adam", 0.006, **large), 0.72)
    yield case("batches of 240", Setting("mlp", digits, "momentum", 0.1, **{**DIGITS, "batch_size": 240}), 0.9)
    few = {**DIGITS, "train": 300, "validation": 400, "batch_size": 32, "epochs": 12}
    yield case("300 images", Setting("vgg-bn", digits, "Adam", 0.002, **few), 0.88)
    yield case("300 images", Setting("mlp", digits, "momentum", 0.03, **few), 0.85)
    yield case("300 images", Setting("resnet", digits, "AdamW", 0.002, **few), 0.88)
    short = {**DIGITS, "epochs": 2, "batch_size": 16}
    yield case("2 epochs", Setting("resnet", digits, "Adam", 0.002, **short), 0.9)
    yield case("2 epochs", Setting("vgg-bn", digits, "Nesterov", 0.01, **short), 0.9)
    yield case("1 epoch", Setting("mlp", fashion, "Adam", 0.002, **{**FASHION, "epochs": 1, "batch_size": 16}), 0.68)
    long = {**DIGITS, "epochs": 40}
    yield case("40 epochs", Setting("tanh-mlp", digits, "momentum", 0.01, decay=1e-3, **long), 0.92)
    yield case("40 epochs", Setting("mlp", digits, "SGD", 0.1, decay=1e-3, **long), 0.92)
    yield case("30 epochs", Setting("vgg", digits, "AdamW", 0.001, **{**DIGITS, "epochs": 30}), 0.92)
    whole = {**CIFAR, "train": 2500, "epochs": 4, "batch_size": 32, "side": None}
    yield case("32 pixels", Setting("resnet", cifar, "Adam", 0.002, **whole), 0.33)
    yield case("32 pixels", Setting("lenet", cifar, "momentum", 0.02, **whole), 0.28)
    yield case("32 pixels", Setting("vgg-bn", cifar, "AdamW", 0.002, **{**whole, "train": 1600}), 0.28)


# ---- frozen on purpose, and fine-tuning ------------------------------------------------------------------------


def freeze(*names: str) -> Callable[[nn.Module], None]:
    """Parameters whose names begin so are not to learn, and the user says so."""

    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if name.startswith(names):
                parameter.requires_grad_(False)

    return change


def learning_adam(model: nn.Module) -> Optimizer:
    """Only of the parameters that are to learn."""
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.002)


def slower_features(model: nn.Module) -> Optimizer:
    """A tenth of the rate below the head."""
    head = list(model.classifier.parameters())
    return torch.optim.SGD([{"params": model.features.parameters(), "lr": 3e-4}, {"params": head}], 3e-3, momentum=0.9)


class FrozenNorm(Loop):
    """BatchNorm stays in evaluation mode, with the statistics and the scales that it was pretrained with."""

    def begin_training(self) -> None:
        self.model.train()
        for layer in rows_of(self.model, nn.BatchNorm2d):
            layer.eval()


class Pretrained:
    """The network trained on five classes of a set, with a new head, for the other five."""

    def __init__(self, network: str, data: str, lr: float, **settings: Any) -> None:
        self.network, self.data, self.lr, self.settings = network, data, lr, settings

    def __call__(self) -> Any:
        before = standardise(load(self.data, classes=[0, 1, 2, 3, 4], **self.settings))
        after = standardise(load(self.data, classes=[5, 6, 7, 8, 9], **self.settings))
        model = build(self.network, before)
        optimizer = torch.optim.Adam(model.parameters(), 0.002)
        with seeded(0):
            for rows in torch.randperm(len(before.train)).repeat(4).split(32):
                optimizer.zero_grad()
                F.cross_entropy(model(before.train[rows]), before.train_labels[rows]).backward()
                optimizer.step()
            head = rows_of(model, nn.Linear)[-1]
            head.reset_parameters()
        for layer in rows_of(model, nn.BatchNorm2d):
            layer.requires_grad_(False)
        learning = [p for p in model.parameters() if p.requires_grad]
        return FrozenNorm(model, torch.optim.Adam(learning, self.lr), after, epochs=6, batch_size=32).run()


def kept() -> Iterator[Case]:
    digits, fashion = "digits", "fashion-mnist"
    yield case("first layer frozen", Setting("lenet", digits, "Adam", 0.003, change=freeze("0."), **DIGITS), 0.92)
    yield case(
        "first two frozen", Setting("vgg-bn", digits, learning_adam, 0.002, change=freeze("0.", "4."), **DIGITS), 0.9
    )
    yield case("stem frozen", Setting("resnet", fashion, "momentum", 0.02, change=freeze("stem"), **FASHION), 0.7)
    yield case(
        "biases frozen", Setting("mlp", digits, "momentum", 0.03, change=freeze("1.bias", "3.bias"), **DIGITS), 0.92
    )
    photos = {"network": "squeezenet", "data": "ants-bees", "augment": flipped, **PHOTOS}
    head_only = freeze("features")
    few: dict[str, Setting] = {
        "head alone": Setting(optimizer="momentum", lr=0.003, change=head_only, **photos),
        "head alone, the rest not in the optimizer": Setting(
            optimizer=learning_adam, lr=0.002, change=head_only, **photos
        ),
        "fine-tuned": Setting(optimizer="Adam", lr=1e-4, **photos),
        "fine-tuned with momentum": Setting(optimizer="momentum", lr=0.002, **photos),
        "fine-tuned, features slower": Setting(optimizer=slower_features, lr=0.003, **photos),
    }
    yield case("head alone", Setting(optimizer="Adam", lr=0.002, change=head_only, **photos), 0.7)
    for title, setting in few.items():
        yield case(title, with_schedule(setting, "constant" if "head" in title else "cosine"), 0.7)
    for network, data, lr, floor in (
        ("vgg-bn", digits, 0.002, 0.92),
        ("resnet", fashion, 0.001, 0.75),
        ("plain", digits, 0.001, 0.92),
    ):
        settings = {"train": 600, "validation": 180} if data == digits else {"train": 1200, "validation": 400}
        name = f"healthy: BatchNorm kept as pretrained; {network} on {data}, Adam {lr:g}"
        yield Case(name, "", "training", Pretrained(network, data, lr, **settings), at_least=floor)


def cases() -> list[Case]:
    """All of them."""
    return [*labels(), *ways(), *amounts(), *kept()]
