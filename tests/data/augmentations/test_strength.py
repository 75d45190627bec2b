"""One number scales what was asked for: 0 is nothing, 1 changes nothing, more is more."""

from __future__ import annotations

import pytest

from wellfit.data.augmentations.strength import NOT_SCALED, at_strength
from wellfit.data.augmentations.table import AUGMENTATIONS, parse
from wellfit.errors import UserError


@pytest.mark.parametrize("names", [(), ("flip", "crop"), ("rotate=30", "mixup"), ("autoaugment=cifar10",)])
def test_nothing_at_0_and_as_configured_at_1(names: tuple[str, ...]) -> None:
    assert at_strength(names, 0) == ()
    assert at_strength(names, 1) == names


@pytest.mark.parametrize(
    "name", [n for n, a in AUGMENTATIONS.items() if isinstance(a.strength, float) and n != NOT_SCALED]
)
@pytest.mark.parametrize("share", [0.1, 0.7, 1.3, 1000.0])
def test_every_strength_is_scaled_up_to_the_end_of_its_range(name: str, share: float) -> None:
    (text,) = at_strength([name], share)
    entry, chosen = AUGMENTATIONS[name], parse(text)  # what comes out can be configured
    assert isinstance(entry.strength, float)
    assert chosen.strength == pytest.approx(min(entry.strength * share, entry.high), rel=1e-5)


def test_what_has_no_number_stays_as_it_is() -> None:
    assert at_strength(["flip", "crop", "rotate=10"], 0.5) == ("flip", "crop", "rotate=5")
    assert at_strength(["autoaugment=svhn"], 0.2) == ("autoaugment=svhn",)


def test_beyond_what_was_planned_a_policy_is_added_where_nothing_has_a_strength() -> None:
    assert at_strength(["flip", "crop"], 0.5) == ("flip", "crop")
    assert at_strength(["flip", "crop=0.0625"], 2) == ("flip", "crop=0.0625", "randaugment=9")
    assert at_strength(["flip", "crop"], 1.5) == ("flip", "crop", "randaugment=4.5")
    assert at_strength(["flip"], 100) == ("flip", "randaugment=30")
    assert at_strength(["flip", "rotate=10"], 2) == ("flip", "rotate=20")


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_no_strength(strength: float) -> None:
    with pytest.raises(UserError, match="at least 0"):
        at_strength(["flip"], strength)
