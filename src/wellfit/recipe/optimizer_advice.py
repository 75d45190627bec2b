"""What the plan says of its optimizer (SPEC O13)."""

from __future__ import annotations

from wellfit.recipe.full_batch import REASONS, is_full_batch

ADAPTIVE = ("adam", "adamw")
SGD = ("sgd", "momentum", "nesterov", "momentum_inside", "nesterov_inside")


def advice(name: str) -> tuple[str, ...]:
    """Sentences on the choice, for the plan's reasons; none for an optimizer that the courses do not speak of."""
    if is_full_batch(name):
        return REASONS
    if name == "auto":
        return (
            "AdamW is the optimizer: a good default and often fine at a constant rate; SGD with momentum may beat it "
            "with more tuning of rate and schedule, L-BFGS where the full batch is affordable",
        )
    if name in ADAPTIVE:
        return (f"{name} was asked for: a good default, and often fine at a constant rate",)
    if name in SGD:
        return (
            f"{name} was asked for: it may beat Adam with more tuning; cosine is the schedule with the fewest knobs",
        )
    return ()
