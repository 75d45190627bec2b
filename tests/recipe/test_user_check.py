"""wellfit.check on a user's own module, loss, optimizer and batches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import wellfit
from tests.checks.conftest import fingerprint, patterned, small_convnet
from wellfit.errors import UserError

IMAGES, TARGETS = patterned(160)
OTHERS, OTHER_TARGETS = patterned(80, seed=9)
GATES = {
    "input-ignored",
    "batch-leak",
    "initial-loss",
    "regularisation-inert",
    "gradient-wrong",
    "cannot-overfit-small-sample",
    "no-good-lr",
}


def net(**options: Any) -> nn.Sequential:
    return small_convnet(classes=4, **options)


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)


def make_sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-4)


def ids(result: dict[str, Any], least: str = "warning") -> list[str]:
    return [f["id"] for f in result["findings"] if f["severity"] != "info" or least == "info"]


class Yielding(IterableDataset):
    def __iter__(self) -> Any:
        return zip(IMAGES, TARGETS, strict=True)


class Labelled(Dataset):
    """(tensor, whole number), as torchvision's with ToTensor."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return IMAGES[index], int(TARGETS[index])


FORMS = {
    "batch": lambda: (IMAGES, TARGETS),
    "list of two": lambda: [IMAGES, TARGETS],
    "loader": lambda: DataLoader(TensorDataset(IMAGES, TARGETS), batch_size=20, shuffle=True),
    "dataset": lambda: TensorDataset(IMAGES, TARGETS),
    "labelled dataset": Labelled,
    "iterable dataset": Yielding,
    "list of pairs": lambda: list(zip(IMAGES, TARGETS.tolist(), strict=True)),
    "list of batches": lambda: list(zip(IMAGES.split(32), TARGETS.split(32), strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_setting_passes_in_every_form(form: str) -> None:
    model = net()
    seen = []
    result = wellfit.check(FORMS[form](), model, optimizer=sgd(model), listener=lambda kind, fields: seen.append(kind))
    assert result["passed"]
    assert {check["check"] for check in result["checks"]} == GATES
    assert all(check["finished"] for check in result["checks"])
    assert result["findings"] == []
    assert seen.count("check") == len(GATES)
    json.dumps(result)


def test_nothing_that_is_given_changes_by_a_bit() -> None:
    model = net(dropout=0.3)
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES[:16]), TARGETS[:16]).backward()
        optimizer.step()
        scheduler.step()
    model[1].eval()
    criterion = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    draws = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(IMAGES, TARGETS), batch_size=20, shuffle=True, generator=draws)
    state, images = draws.get_state(), IMAGES.clone()
    before = fingerprint(model, optimizer)
    torch.rand(3)
    np.random.random(3)
    drawn = fingerprint(model, optimizer)
    assert drawn != before, "the witness sees the generators"
    wellfit.check(loader, model, loss=criterion, optimizer=optimizer, validation=loader, penalty=_penalty)
    assert fingerprint(model, optimizer) == drawn
    assert torch.equal(draws.get_state(), state)
    assert torch.equal(images, IMAGES)
    assert criterion.weight.tolist() == [1.0, 2.0, 1.0, 1.0]
    assert scheduler.last_epoch == 2


def _penalty(model: nn.Module) -> Tensor:
    return 1e-3 * torch.stack([p.square().sum() for p in model.parameters()]).sum()


def test_the_same_call_says_the_same() -> None:
    def once() -> Any:
        model = net()
        loader = DataLoader(TensorDataset(IMAGES, TARGETS), batch_size=20, shuffle=True)
        result = wellfit.check(loader, model, optimizer=sgd(model))
        return [{k: v for k, v in check.items() if k != "seconds"} for check in result["checks"]]

    first = once()
    torch.rand(7)
    assert once() == first


class OneOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small_convnet(classes=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(1)


def test_one_yes_or_no_output() -> None:
    wanted = (TARGETS > 1).float()
    result = wellfit.check((IMAGES, wanted), OneOutput(), loss=nn.BCEWithLogitsLoss(), optimizer="adam")
    assert result["passed"], result["findings"]
    (start,) = [c for c in result["checks"] if c["check"] == "initial-loss"]
    assert start["expected"] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (None, np.log(4)),
        ("hinge", 3.0),
        (nn.CrossEntropyLoss(label_smoothing=0.1), np.log(4)),
        (lambda s, t: F.cross_entropy(s, t), np.log(4)),
        (lambda s, t: (s.softmax(1) - F.one_hot(t, 4)).square().sum(1).mean(), None),
    ],
)
def test_what_guessing_costs(loss: Any, expected: float | None) -> None:
    result = wellfit.check((IMAGES, TARGETS), net(), loss=loss, optimizer=make_sgd)
    (start,) = [c for c in result["checks"] if c["check"] == "initial-loss"]
    assert start["expected"] == (expected if expected is None else pytest.approx(expected))
    assert ("not known" in start["message"]) is (expected is None)
    assert result["passed"], result["findings"]


class Logits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x, "logits": self.net(x)}


class Auxiliary(Logits):
    def forward(self, x: Tensor) -> Any:
        return self.net(x), x.mean((2, 3))


@pytest.mark.parametrize("make", [Logits, Auxiliary])
def test_tuples_and_mappings_are_understood(make: type[nn.Module]) -> None:
    result = wellfit.check((IMAGES, TARGETS), make(), optimizer=make_sgd)
    assert result["passed"], result["findings"]


def test_images_that_wellfit_reads_are_prepared_for_the_module() -> None:
    digits = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    digits.input_channels = 1  # type: ignore[assignment]
    result = wellfit.check("digits", digits, optimizer=torch.optim.Adam(digits.parameters(), 1e-2))
    assert result["passed"], result["findings"]
    pixels = np.random.default_rng(0).integers(0, 120, (60, 16, 16, 3)) + 60 * (np.arange(60) % 2)[:, None, None, None]
    labels = np.arange(60) % 2
    model = small_convnet(classes=2)
    result = wellfit.check(
        (pixels[:40].astype(np.uint8), labels[:40]),
        model,
        optimizer=sgd(model),
        validation=(pixels[30:].astype(np.uint8), labels[30:]),
    )
    assert "train-val-leak" in ids(result)


# ---- what is found -------------------------------------------------------------------------------------


def test_leaks_mismatches_and_scales_are_found_together() -> None:
    raw, raw_others = 60 * IMAGES + 120, OTHERS
    result = wellfit.check(
        (raw, TARGETS),
        net(),
        optimizer=make_sgd,
        validation=(torch.cat([raw_others, raw[:3]]), torch.cat([OTHER_TARGETS, TARGETS[:3]])),
    )
    found = ids(result)
    assert found[:3] == ["train-val-leak", "train-val-mismatch", "unnormalised-input"]
    (leak,) = [f for f in result["findings"] if f["id"] == "train-val-leak"]
    assert leak["evidence"]["copies"] == 3


def test_a_rare_class() -> None:
    keep = (TARGETS != 2) | (torch.cumsum(TARGETS == 2, 0) <= 1)
    common = torch.cat([torch.arange(len(IMAGES))[keep]] * 3)
    rows = torch.cat([common[TARGETS[common] != 2], common[TARGETS[common] == 2][:1]])
    result = wellfit.check((IMAGES[rows], TARGETS[rows]), net(), optimizer=make_sgd)
    assert "imbalanced-classes" in ids(result)
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, 30.0, 1.0]))
    assert "imbalanced-classes" not in ids(wellfit.check((IMAGES[rows], TARGETS[rows]), net(), loss=weighted))


class Softmaxed(Logits):
    def forward(self, x: Tensor) -> Any:
        return self.net(x).softmax(1)


def test_softmax_before_cross_entropy() -> None:
    assert "double-softmax" in ids(wellfit.check((IMAGES, TARGETS), Softmaxed(), optimizer=make_sgd))
    result = wellfit.check((IMAGES, TARGETS), Softmaxed(), loss=lambda s, t: F.nll_loss(s.log(), t), optimizer=make_sgd)
    assert "double-softmax" not in ids(result)


def test_an_optimizer_made_before_the_last_layer_was_replaced() -> None:
    model = net()
    optimizer = sgd(model)
    model[-1] = nn.Linear(64, 4)
    result = wellfit.check((IMAGES, TARGETS), model, optimizer=optimizer)
    (found,) = [f for f in result["findings"] if f["id"] == "frozen-parameters"]
    assert found["evidence"]["missing"] == ["8.weight", "8.bias"]


def test_images_with_nan_are_counted() -> None:
    images = IMAGES.clone()
    images[:5, 0, 0, 0] = torch.nan
    result = wellfit.check((images, TARGETS), net(), optimizer=make_sgd)
    assert not result["passed"]
    (found,) = [f for f in result["findings"] if f["id"] == "nan"]
    assert found["evidence"]["images"] == 5


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_a_sound_regression_passes(shift: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    y = x[:, :1] * 3 + shift
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    result = wellfit.check((x, y), model, loss=nn.MSELoss())
    assert result["passed"]
    assert ids(result) == []


# ---- what is refused, in one sentence ------------------------------------------------------------------


def frozen() -> nn.Module:
    return net().requires_grad_(False)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.net(x * mask)


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def other_models(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return sgd(net())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no parameters": ({"model": nn.Flatten()}, "has no parameters"),
    "a class": ({"model": small_convnet}, "got a function"),
    "a module class": ({"model": nn.Linear}, "the class Linear"),
    "all frozen": ({"model": frozen()}, "are frozen"),
    "lazy layers": ({"model": nn.Sequential(nn.Flatten(), nn.LazyLinear(4))}, "lazy layers"),
    "several inputs": ({"model": TwoInputs()}, "could not be run"),
    "three parts": ({"data": (IMAGES, IMAGES, TARGETS)}, "a tuple of 3"),
    "maps": ({"model": Maps()}, "images × classes"),
    "other size": ({"data": (IMAGES.repeat(1, 2, 1, 1), TARGETS)}, "could not be run on images"),
    "whole numbers": ({"data": DataLoader(TensorDataset(IMAGES.to(torch.uint8), TARGETS))}, "floating-point"),
    "an iterator": ({"data": iter([(IMAGES, TARGETS)])}, "an iterator"),
    "an empty loader": ({"data": DataLoader(TensorDataset(IMAGES[:0], TARGETS[:0]))}, "at least two images"),
    "an empty batch": ({"data": (IMAGES[:0], TARGETS[:0])}, "at least two images"),
    "an array of targets": ({"data": (IMAGES, TARGETS.numpy())}, "got a tensor and an ndarray"),
    "a list of targets": ({"data": (IMAGES, TARGETS.tolist())}, "got a tensor and a list"),
    "dictionaries": ({"data": DataLoader([{"x": IMAGES[0], "y": 1}] * 4)}, "a dictionary with 'x', 'y'"),
    "one class": ({"data": (IMAGES, torch.zeros_like(TARGETS))}, "all of class 0"),
    "targets too high": ({"data": (IMAGES, TARGETS + 1)}, "class numbers from 0 to 3"),
    "targets below 0": ({"data": (IMAGES, TARGETS - 1)}, "class numbers from 0 to 3"),
    "targets of columns": ({"data": (IMAGES, TARGETS[:, None])}, "squeeze"),
    "targets too few": ({"data": (IMAGES, TARGETS[:50])}, "one for each image"),
    "targets of 32 bits": ({"data": (IMAGES, TARGETS.to(torch.int16))}, "int64"),
    "shares too narrow": ({"data": (IMAGES, F.one_hot(TARGETS, 4).float()[:, :3])}, "3 columns for 4 outputs"),
    "more classes": ({"classes": 7}, "4 outputs for 7 classes"),
    "one class asked": ({"classes": 1}, "at least 2 classes"),
    "one output": ({"model": small_convnet(classes=1), "data": (IMAGES, TARGETS % 2)}, "BCEWithLogitsLoss"),
    "other model's optimizer": ({"optimizer": sgd(net())}, "holds none of the"),
    "a maker of another model's": ({"optimizer": other_models}, "holds none of the"),
    "a maker of nothing": ({"optimizer": lambda params: None}, "got NoneType"),
    "a maker that fails": ({"optimizer": lambda params: 1 / 0}, "ZeroDivisionError"),
    "no optimizer": ({"optimizer": 3}, "got int"),
    "unknown optimizer": ({"optimizer": "sdg"}, "did you mean 'sgd'"),
    "unknown loss": ({"loss": "hing"}, "did you mean 'hinge'"),
    "a loss class": ({"loss": nn.CrossEntropyLoss}, "the class CrossEntropyLoss"),
    "a vector loss": ({"loss": nn.CrossEntropyLoss(reduction="none")}, "one number"),
    "a number": ({"loss": lambda s, t: 3.0}, "a float"),
    "a detached loss": ({"loss": lambda s, t: F.cross_entropy(s.detach(), t)}, "no gradient"),
    "a failing loss": ({"loss": lambda s, t: s @ t}, "could not be computed"),
    "validation as a path": ({"validation": "digits"}, "tensors beside tensors"),
    "unshuffled": (
        {"data": DataLoader(TensorDataset(IMAGES[:20].repeat(100, 1, 1, 1), torch.arange(2000) // 1999))},
        "shuffle",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence(name: str) -> None:
    given, says = REFUSED[name]
    arguments = {"data": (IMAGES, TARGETS), "model": net(), **given}
    with pytest.raises(UserError) as caught:
        wellfit.check(**arguments)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert len(message) < 420


@pytest.mark.parametrize("part", ["loss", "optimizer", "validation", "penalty", "classes"])
def test_parts_of_a_loop_belong_to_a_module(part: str) -> None:
    value = {
        "loss": F.cross_entropy,
        "optimizer": make_sgd,
        "validation": "digits",
        "penalty": _penalty,
        "classes": 10,
    }[part]
    with pytest.raises(UserError, match=f"{part}="):
        wellfit.check("digits", "lenet", **{part: value})


def test_a_compiled_or_wrapped_model_is_looked_into() -> None:
    model = net()
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert wellfit.check((IMAGES, TARGETS), wrapped, optimizer=sgd(model))["passed"]


def test_an_optimizer_that_evaluates_the_loss_itself_has_no_range_of_rates() -> None:
    model = net()
    result = wellfit.check((IMAGES, TARGETS), model, optimizer=torch.optim.LBFGS(model.parameters()))
    assert {check["check"] for check in result["checks"]} == GATES - {"no-good-lr"}
