"""Settings that can be searched: the defaults, and where a range may be widened to."""

from __future__ import annotations

import math

import pytest

from wellfit.errors import UserError
from wellfit.search.knobs import KNOBS, check_knob, default_space, limits
from wellfit.search.space import Choice, Fixed, Integer, LogUniform, Uniform
from wellfit.search.space_file import space_from_dict, space_to_dict


def test_the_default_space_spans_three_decades_of_lr_and_four_of_weight_decay() -> None:
    space = default_space(1e-3, 1e-4, imbalanced=True)
    lr, decay = space["lr"], space["weight_decay"]
    assert isinstance(lr, LogUniform)
    assert isinstance(decay, LogUniform)
    assert (lr.low, lr.high) == pytest.approx((1e-5, 1e-2))
    assert (decay.low, decay.high) == pytest.approx((1e-6, 1e-2))
    assert space["balance"] == Choice(("none", "weights", "sampler"))
    assert default_space(0.1) == {"lr": LogUniform(0.001, 1.0), "weight_decay": Choice((0.0, 1e-5, 1e-4))}


def test_the_default_space_is_one_that_a_file_could_hold() -> None:
    for space in (default_space(1e-3, 1e-4, imbalanced=True), default_space(0.1)):
        for name, kind in space.items():
            check_knob(name, kind)
        assert space_from_dict(space_to_dict(space)) == space


def test_ranges_are_not_widened_beyond_what_a_setting_can_be() -> None:
    assert limits("lr") == (0.0, math.inf)
    assert limits("dropout")[0] == 0.0
    assert 0.99 < limits("dropout")[1] < 1.0
    assert limits("batch_size") == (1, math.inf)
    assert limits("anything else") == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lr", Fixed(0.1)),
        ("momentum", Uniform(0, 0.99)),
        ("batch_size", Choice((32, 64.0))),
        ("batch_size", Integer(16, 64)),
        ("label_smoothing", Choice((0, 0.1))),
        ("model", Choice(("resnet18", "my_package.nets:Net"))),
        ("schedule", Choice(("warmup+cosine", "constant"))),
        ("optimizer", Choice(("momentum", "adamw", "nesterov", "sgd", "muon"))),
    ],
)
def test_sensible_values_pass(name: str, kind: Uniform | Integer | Choice | Fixed) -> None:
    check_knob(name, kind)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"the space: unknown setting 'weightdecay' \(did you mean 'weight_decay'\?\)"):
        check_knob("weightdecay", Fixed(0.1))
    assert set(KNOBS) >= {"lr", "weight_decay", "l1", "optimizer", "momentum", "schedule", "batch_size", "augmentation"}
