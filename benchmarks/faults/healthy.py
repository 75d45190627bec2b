"""Trainings in which nothing is wrong: networks × data × optimizers × schedules × rates, thinned by a fixed rule.

`healthy_apart.py` adds what a product does not reach. A rate is one that trained well in a sweep in which no finding
was looked at; `at_least` was set with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from faults.case import Case
from faults.lengths import CIFAR, DIGITS, FASHION
from faults.schedules import SCHEDULES, with_schedule
from faults.sick.plant import Setting

# The good decade of each network for momentum (and Nesterov) and for Adam (and AdamW): low, best, high.
RATES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "lenet": ((0.02, 0.03, 0.06), (0.002, 0.004, 0.01)),
    "vgg": ((0.005, 0.01, 0.03), (0.0015, 0.003, 0.006)),
    "vgg-dropout": ((0.01, 0.02, 0.03), (0.002, 0.003, 0.006)),
    "vgg-bn": ((0.005, 0.02, 0.05), (0.0008, 0.002, 0.004)),
    "resnet": ((0.01, 0.03, 0.06), (0.001, 0.002, 0.004)),
    "plain": ((0.005, 0.01, 0.03), (0.0005, 0.001, 0.002)),
    "mlp": ((0.015, 0.03, 0.08), (0.001, 0.003, 0.006)),
    "gelu": ((0.005, 0.01, 0.03), (0.001, 0.003, 0.006)),
    "gelu-mlp": ((0.02, 0.04, 0.08), (0.001, 0.003, 0.006)),
    "tanh": ((0.01, 0.03, 0.06), (0.001, 0.003, 0.006)),
    "tanh-mlp": ((0.01, 0.02, 0.04), (0.0005, 0.0015, 0.004)),
    "functional": ((0.015, 0.03, 0.06), (0.0015, 0.003, 0.006)),
}
# Plain SGD takes larger steps than momentum adds up to in short runs; RMSprop smaller ones than Adam.
OPTIMIZERS: dict[str, tuple[int, float]] = {
    "momentum": (0, 1.0),
    "Adam": (1, 1.0),
    "SGD": (0, 6.0),
    "AdamW": (1, 1.0),
    "Nesterov": (0, 1.0),
    "RMSprop": (1, 0.4),
}
DATA = {"digits": DIGITS, "fashion-mnist": FASHION, "cifar10": CIFAR}
# Validation accuracy after these epochs that only a training that works reaches; of linear layers alone on CIFAR-10.
AT_LEAST = {"digits": 0.9, "fashion-mnist": 0.72, "cifar10": 0.32}
FLAT_AT_LEAST = {"digits": 0.9, "fashion-mnist": 0.74, "cifar10": 0.3}
# Epochs of the slow ones: half of the units dropped before the head, or layers that PyTorch draws small.
EPOCHS = {
    ("lenet", "digits"): 20,
    ("lenet", "cifar10"): 6,
    ("vgg-dropout", "cifar10"): 6,
    ("tanh", "cifar10"): 4,
    ("functional", "cifar10"): 6,
}
EACH = {"digits": 6, "fashion-mnist": 4, "cifar10": 4}


def product() -> Iterator[Case]:
    """Every network on every data set; optimizers, schedules and rates take turns at different paces."""
    optimizers, schedules = list(OPTIMIZERS), list(SCHEDULES)
    for row, network in enumerate(RATES):
        for column, data in enumerate(DATA):
            for turn in range(EACH[data]):
                optimizer = optimizers[(turn + row + 4 * column) % len(optimizers)]
                schedule = schedules[(turn + 2 * row + column) % len(schedules)]
                level = (2 * turn + row // 2 + column) % 3
                family, factor = OPTIMIZERS[optimizer]
                lr = RATES[network][family][level] * factor
                setting = Setting(network, data, optimizer, lr, seed=turn, **DATA[data])
                setting = replace(setting, epochs=EPOCHS.get((network, data), setting.epochs))
                setting = with_schedule(setting, schedule)
                floors = FLAT_AT_LEAST if network.endswith("mlp") else AT_LEAST
                name = f"healthy: {network} on {data}, {optimizer} {lr:.2g}, {schedule}, seed {turn}"
                yield Case(name, "", "training", setting.run, at_least=floors[data])


def cases() -> list[Case]:
    """The product's cases."""
    return list(product())
