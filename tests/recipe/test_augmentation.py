"""What a plan decides by what it has measured."""

from __future__ import annotations

import pytest

from wellfit.config import Config
from wellfit.errors import UserError
from wellfit.recipe.augmentation import augmentations
from wellfit.recipe.prepare import Prepared


@pytest.mark.parametrize(
    ("epochs", "framed", "crop"),
    [(5.0, False, "crop=0.0625"), (12.0, False, "crop"), (5.0, True, "crop"), (0.0, False, "crop")],
)
def test_few_epochs_shift_images_less(digits: Prepared, epochs: float, framed: bool, crop: str) -> None:
    """Digits are not mirrored: a mirrored digit is another one, or none."""
    reasons: list[str] = []
    assert augmentations(Config(), digits, epochs, framed, reasons) == (crop,)
    assert any("sixteenth" in reason for reason in reasons) == (crop != "crop")


def test_what_was_asked_for_is_taken_as_it_is(digits: Prepared) -> None:
    assert augmentations(Config(augment=("flip", "crop")), digits, 1.0, False, []) == ("flip", "crop")
    assert augmentations(Config(augment=("none",)), digits, 1.0, False, []) == ()
    asked = Config(augment=("flip", "crop=0.25"))
    assert augmentations(asked, digits, 1.0, False, []) == ("flip", "crop=0.25")
    with pytest.raises(UserError, match=r"'crop=0\.25' is how far whole images are shifted"):
        augmentations(asked, digits, 1.0, True, [])
