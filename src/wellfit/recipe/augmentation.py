"""What a run varies its training images by, where that is left to it (SPEC D6, R5)."""

from __future__ import annotations

from wellfit.config import Config
from wellfit.data.symmetry import mirror_agreement, mirror_is_safe
from wellfit.errors import UserError
from wellfit.recipe.prepare import Prepared

FEW_EPOCHS, NEAR = 12, 1 / 16  # below so many, images are shifted by that share of the side: little is seen twice


def augmentations(config: Config, data: Prepared, epochs: float, framed: bool, reasons: list[str]) -> tuple[str, ...]:
    """What the training images are varied by. framed: whether they are cut at random out of larger ones.

    epochs: of a network that starts from random numbers; 0 for others. UserError for a shift that nothing would make.
    """
    if config.augment != ("auto",):
        shifts = [name for name in config.augment if name.startswith("crop=")]
        if framed and shifts:
            raise UserError(
                f"'{shifts[0]}' is how far whole images are shifted, and the images here are cut at random out of "
                "larger ones; write 'crop'"
            )
        return tuple(name for name in config.augment if name != "none")
    train = data.split.train
    plain, mirrored = mirror_agreement(data.store.thumbnails[data.rows(train)], data.targets(train), seed=config.seed)
    safe = mirror_is_safe(plain, mirrored, len(data.classes))
    reasons.append(
        f"mirror images {'keep' if safe else 'lose'} their class, so flip is {'on' if safe else 'off'}: nearest "
        f"neighbours agree for {plain:.0%} of plain and {mirrored:.0%} of mirrored thumbnails"
    )
    crop = "crop"
    if 0 < epochs < FEW_EPOCHS and not framed:
        crop = f"crop={NEAR:g}"
        reasons.append(
            f"images are shifted by a sixteenth of their side at most: {epochs:.1f} epochs repeat them little"
        )
    return ("flip", crop) if safe else (crop,)
