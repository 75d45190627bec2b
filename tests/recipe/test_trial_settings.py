"""Every knob reaches the training, and what no trial could run with is refused before the first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.recipe.material import Material, Settings
from wellfit.recipe.trial_settings import refuse_unfit, with_settings
from wellfit.search.knobs import KNOBS
from wellfit.search.space import Choice, Fixed, Integer, Space, Uniform


def built(material: Material, settings: dict[str, Any]) -> tuple[Material, nn.Module, torch.optim.Optimizer]:
    changed = with_settings(material, settings)
    module = changed.network().module
    return changed, module, changed.optimizer(module, Settings.of(changed.plan))


def test_nothing_asked_changes_nothing(material: Material) -> None:
    assert with_settings(material, {}).plan.replace(training=material.plan.training) == material.plan


def test_each_knob_is_applied(material: Material) -> None:
    """One look at what the training is handed, for every knob that a space may have."""
    changed, module, optimizer = built(
        material,
        {
            "lr": 0.07,
            "weight_decay": 0.003,
            "l1": 1e-4,
            "optimizer": "nesterov",
            "momentum": 0.5,
            "schedule": "cosine",
            "batch_size": 48,
            "augmentation": 2.0,
            "dropout": 0.4,
            "label_smoothing": 0.3,
            "model": "resnet20",
            "freeze": 2,
            "balance": "weights",
        },
    )
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.SGD
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (0.07, 0.003, 0.5, True)
    assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.4}
    assert not module.get_submodule("conv1").weight.requires_grad
    assert not any(p.requires_grad for p in module.get_submodule("layer1").parameters())
    assert all(p.requires_grad for p in module.get_submodule("layer2").parameters())
    batches = changed.training(0, "none")
    assert batches.batch_size == 48
    assert changed.plan.training.steps_per_epoch == batches.steps_per_epoch == len(material.data.split.train) // 48
    assert changed.plan.augment == ("crop", "randaugment=9")
    assert changed.plan.schedule == "cosine"
    criterion = changed.criterion(Settings.of(changed.plan).balance)
    assert criterion.label_smoothing == 0.3
    assert criterion.weight is not None
    penalty = changed.penalty()
    assert penalty is not None
    decaying = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    assert float(penalty(module).detach()) == pytest.approx(
        1e-4 * sum(float(p.detach().abs().sum()) for p in decaying), rel=1e-4
    )


@pytest.mark.parametrize("name", sorted(KNOBS))
def test_a_knob_of_every_name_changes_the_plan(name: str, material: Material) -> None:
    """None of the names of a space is passed over in silence."""
    other = {"optimizer": "adam", "schedule": "cosine", "model": "lenet5", "balance": "sampler", "batch_size": 16}
    value = other.get(name, {"freeze": 1, "augmentation": 2.0}.get(name, 0.25))
    settings = {"model": "resnet20", name: value} if name == "dropout" else {name: value}
    base = {"model": "resnet20"} if name == "dropout" else {}
    assert with_settings(material, settings).plan != with_settings(material, base).plan


def test_an_optimizer_comes_with_its_usual_rates(material: Material) -> None:
    plan = with_settings(material, {"optimizer": "momentum"}).plan.optimizer
    assert (plan.lr, plan.weight_decay) == (0.2 * 32 / 128, 5e-4)
    given = with_settings(material, {"optimizer": "momentum", "lr": 0.5}).plan.optimizer
    assert (given.lr, given.weight_decay) == (0.5, 5e-4)
    assert with_settings(material, {"optimizer": "adamw"}).plan.optimizer == material.plan.optimizer


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"optimizer": Choice(("adamw", "lbfgs"))}, "takes the whole split at each step"),
        ({"dropout": Uniform(0.0, 0.5), "model": Choice(("resnet20", "torchvision:resnet18"))}, r"resnet18 takes none"),
        ({"freeze": Integer(0, 2)}, "whitened starts from random numbers here"),
        ({"model": Choice(("resnet20", "resnet21"))}, "unknown model 'resnet21'"),
        ({"momentum": Uniform(0.8, 0.99)}, r"momentum is for .*the space has adamw alone; leave \[momentum\] out"),
        ({"momentum": Fixed(0.9), "optimizer": Choice(("adam", "sgd"))}, "the space has adam, sgd alone"),
        (
            {
                "optimizer": Choice(("nesterov", "adam")),
                "momentum": Uniform(0.8, 0.99, only_with={"optimizer": ("adam",)}),
            },
            "the space has adam alone",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_first(space: Space, sentence: str, material: Material) -> None:
    with pytest.raises(UserError, match=sentence):
        refuse_unfit(material, space)


def test_hinge_has_no_label_smoothing(material: Material) -> None:
    hinge = replace(material, plan=material.plan.replace(loss="hinge"))
    with pytest.raises(UserError, match="label smoothing is for cross-entropy"):
        refuse_unfit(hinge, {"label_smoothing": Uniform(0.0, 0.2)})


def test_more_stages_than_the_network_has(material: Material) -> None:
    model = replace(material.plan.model, name="resnet20", options={}, transfer="continue")
    pretrained = replace(material, plan=material.plan.replace(model=model))
    refuse_unfit(pretrained, {"freeze": Integer(0, 4)})
    with pytest.raises(UserError, match="freeze goes up to 5 in the space, and resnet20 has 4 stages"):
        refuse_unfit(pretrained, {"freeze": Integer(0, 5)})


def test_a_strength_of_no_augmentation_is_refused(material: Material) -> None:
    bare = replace(material, plan=material.plan.replace(augment=()))
    with pytest.raises(UserError, match=r"which is nothing here, got 1 at the most; leave \[augmentation\] out"):
        refuse_unfit(bare, {"augmentation": Uniform(0.0, 1.0)})
    refuse_unfit(bare, {"augmentation": Uniform(0.0, 2.0)})
    refuse_unfit(material, {"augmentation": Uniform(0.0, 1.0)})


def test_momentum_beside_one_that_has_it_is_not_refused(material: Material) -> None:
    momentum: Space = {"momentum": Uniform(0.8, 0.99)}
    for names in (("adamw", "nesterov"), ("adamw", "timm:lamb"), ("adamw", "package.module:Mine")):
        refuse_unfit(material, {**momentum, "optimizer": Choice(names)})
    sgd = replace(material.plan, optimizer=replace(material.plan.optimizer, name="momentum"))
    refuse_unfit(replace(material, plan=sgd), momentum)


def test_what_can_be_run_is_not_refused(material: Material) -> None:
    refuse_unfit(
        material,
        {"dropout": Uniform(0.0, 0.5), "model": Choice(("resnet20", "lenet5")), "optimizer": Choice(("sgd", "adamw"))},
    )


def test_the_default_network_takes_dropout(material: Material) -> None:
    plain = material.network().module
    dropping = with_settings(material, {"dropout": 0.3}).network().module
    assert {m.p for m in dropping.modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    # The start is the same.
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), dropping.parameters(), strict=True))
