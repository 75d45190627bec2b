"""Losses by name and penalties on the weights (SPEC rows R1, R2).

A penalty is a term of the loss, so its effect shows in the loss and passes through the optimizer. Decoupled decay
(`adamw`, `muon`) is no term of the loss: it shrinks the weights beside the step. For plain SGD both are the same
when the optimizer's `weight_decay` is 2λ for λΣw², or λ for ½λΣw²; for Adam and the others they are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import UserError, unknown_name
from wellfit.training.optimizers import decaying_names


@dataclass(frozen=True)
class Penalty:
    """λ·Σ(β·w² + α·|w|) over the weights that decay: those of two or more dimensions that are trained.

    strength: λ ≥ 0. square: β, 1 for Σw², ½ for the ½λΣw² convention. absolute: α.
    """

    strength: float
    square: float = 0.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strength", "square", "absolute"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"a penalty's {name} is a finite number of at least 0, got {value}; try 1e-4")

    def __call__(self, module: nn.Module) -> Tensor:
        """A scalar tensor with gradient, to be added to the loss."""
        names = decaying_names(module)
        weights = [p for n, p in module.named_parameters() if n in names]
        if not weights:
            raise UserError("a penalty needs weights that are trained, the model has none; unfreeze some layers")
        terms = []
        if self.square:
            terms.append(self.square * torch.stack([w.square().sum() for w in weights]).sum())
        if self.absolute:
            terms.append(self.absolute * torch.stack([w.abs().sum() for w in weights]).sum())
        return self.strength * torch.stack(terms).sum() if terms else weights[0].new_zeros(())

    def with_strength(self, strength: float) -> Penalty:
        return replace(self, strength=strength)


def l2(strength: float, *, half: bool = False) -> Penalty:
    """λΣw², gradient 2λw; with `half` ½λΣw², gradient λw, which is what torch's `weight_decay` adds."""
    return Penalty(strength, square=0.5 if half else 1.0)


def l1(strength: float) -> Penalty:
    """λΣ|w|."""
    return Penalty(strength, absolute=1.0)


def elastic_net(strength: float, beta: float = 1.0) -> Penalty:
    """λΣ(βw² + |w|)."""
    return Penalty(strength, square=beta, absolute=1.0)


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's softmax cross-entropy, computed in float32 at least; targets are class indices or N×C shares."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        logits = _wide(input)
        if not target.is_floating_point():
            return super().forward(logits, target)
        shares = target.to(logits.dtype)
        loss = super().forward(logits, shares)
        if self.weight is None:
            return loss
        # torch divides by the number of images here; as with class numbers, the mean is to be a weighted one.
        return loss * len(shares) / (shares @ self.weight.to(logits.dtype)).sum()

    def at_chance(self, classes: int) -> float:
        """The loss of equal scores for all classes: log C, with label smoothing and class weights too."""
        return math.log(classes)


class MulticlassHinge(nn.Module):
    """Multiclass SVM loss, mean over images of Σ_{j≠y} max(0, margin + s_j − s_y). SPEC row R1.

    torch's multi_margin_loss divides the sum by C; here it is the sum, as taught, C − 1 at equal scores.
    class_weights: C numbers; an image counts by its class's weight, in a weighted mean.
    """

    class_weights: Tensor | None

    def __init__(self, margin: float = 1.0, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """scores: N×C. targets: N class indices; UserError for soft targets, which a hinge has no meaning for."""
        if targets.is_floating_point():
            raise UserError("the hinge loss takes one class an image, got soft targets; use cross-entropy with mixup")
        losses = functional.multi_margin_loss(_wide(scores), targets, margin=self.margin, reduction="none")
        losses = losses * scores.shape[1]
        if self.class_weights is None:
            return losses.mean()
        weights = self.class_weights.to(losses.dtype)[targets]
        return (weights * losses).sum() / weights.sum()

    def at_chance(self, classes: int) -> float:
        """The loss of equal scores for all classes: (C − 1)·margin."""
        return (classes - 1) * self.margin


def _wide(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


def balanced_class_weights(counts: Sequence[int]) -> Tensor:
    """n / (C·n_c) for each class: every class weighs the same in sum, and the mean weight of an image is 1."""
    if not counts or min(counts) < 1:
        raise UserError(f"class weights need at least one training image of each class, got counts {list(counts)}")
    total = sum(counts)
    return torch.tensor([total / (len(counts) * count) for count in counts], dtype=torch.float32)


def build_criterion(
    name: str = "cross-entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | Tensor | None = None,
    **options: Any,
) -> nn.Module:
    """A loss of (scores N×C, targets) by its name in CRITERIA, or the user's own by `package.module:name`.

    label_smoothing: ε in [0, 1): targets become 1 − ε + ε/C and ε/C (cross-entropy only).
    class_weights: C numbers, mean weighted; see `balanced_class_weights`.
    options: `margin` for the hinge; a user's own loss is called with the options given. Raises UserError.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UserError(f"label smoothing lies between 0 and 1, got {label_smoothing}; 0.1 is usual")
    weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
    given = {"label_smoothing": label_smoothing, "class_weights": weights}
    if is_dotted(name):
        builder: Callable[..., nn.Module] = load_dotted(name, "loss")
        arguments = {**{key: value for key, value in given.items() if value is not None and value != 0.0}, **options}
    else:
        name = name.replace("_", "-")
        if name not in CRITERIA:
            raise unknown_name("loss", name, CRITERIA)
        builder, arguments = CRITERIA[name], {**given, **options}
    try:
        return builder(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"the loss '{name}' refuses its options: {error}") from error


def _cross_entropy(label_smoothing: float, class_weights: Tensor | None) -> nn.Module:
    return CrossEntropy(weight=class_weights, label_smoothing=label_smoothing)


def _hinge(label_smoothing: float, class_weights: Tensor | None, margin: float = 1.0) -> nn.Module:
    if label_smoothing:
        raise UserError(f"label smoothing is for cross-entropy, got {label_smoothing} with hinge; set it to 0")
    return MulticlassHinge(margin, class_weights)


CRITERIA: dict[str, Callable[..., nn.Module]] = {"cross-entropy": _cross_entropy, "hinge": _hinge}
