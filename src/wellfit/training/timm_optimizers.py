"""timm's optimizers as "timm:NAME", and its Kronecker-factored one as "kron" (SPEC row O8).

timm takes a second to import, so it is imported when one of them is asked for.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from wellfit.errors import UserError, unknown_name

PREFIX = "timm:"
NEEDS_OTHER_PACKAGES = ("bnb", "fused")  # bitsandbytes, apex
NEEDS_SECOND_GRADIENTS = ("adahessian",)


def kron(params: Any, lr: float = 1e-3, decoupled_decay: bool = True, **options: Any) -> torch.optim.Optimizer:
    """`wellfit.training.kron.Kron`."""
    from wellfit.training.kron import Kron

    return Kron(params, lr, decoupled_decay, **options)


def timm_names() -> list[str]:
    """What can follow "timm:"."""
    from timm.optim import list_optimizers

    return [
        name
        for name in map(str, list_optimizers())
        if not name.startswith(NEEDS_OTHER_PACKAGES) and name not in NEEDS_SECOND_GRADIENTS
    ]


def check_timm_name(name: str) -> None:
    """UserError for a "timm:NAME" that cannot be had, naming the nearest."""
    from timm.optim import list_optimizers

    short = name.removeprefix(PREFIX)
    if short.startswith(NEEDS_OTHER_PACKAGES) and short in list_optimizers():
        raise UserError(f"optimizer '{name}' needs apex or bitsandbytes, which wellfit does not use; try timm:adamw")
    if short in NEEDS_SECOND_GRADIENTS:
        raise UserError(f"optimizer '{name}' needs second gradients, which the loop does not compute; try kron")
    if short not in timm_names():
        raise unknown_name("optimizer of timm", short, timm_names())


def build_timm(name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float, **options: Any) -> Any:
    """timm's optimizer with timm's own defaults for the name; `momentum` where it is a plain one (sgd and its like)."""
    from timm.optim import get_optimizer_class, get_optimizer_info
    from timm.optim.kron import Kron as TimmKron

    check_timm_name(name)
    short = name.removeprefix(PREFIX)
    info = get_optimizer_info(short)
    build: Any = get_optimizer_class(short)
    kind = build.func if hasattr(build, "func") else build
    known = set(inspect.signature(kind).parameters) - {"params", "lr"}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of optimizer '{name}'", option, known)
    if info.has_momentum and "momentum" in known:
        options.setdefault("momentum", momentum)
    if kind is TimmKron:
        return kron(groups, lr=lr, **{"decoupled_decay": False, **(info.defaults or {}), **options})
    return build(groups, lr=lr, **options)
