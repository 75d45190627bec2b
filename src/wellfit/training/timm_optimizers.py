"""timm's optimizers as "timm:NAME", and its Kronecker-factored one as "kron" (SPEC row O8)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers
from timm.optim.kron import Kron as TimmKron

from wellfit.errors import UserError, unknown_name

PREFIX = "timm:"
NEEDS_OTHER_PACKAGES = ("bnb", "fused")  # bitsandbytes, apex
NEEDS_SECOND_GRADIENTS = ("adahessian",)


class Kron(TimmKron):
    """PSGD with one triangular preconditioner for each dimension of a weight, their Kronecker product for the whole.

    timm's, with its kernels run as they are: compiling them takes a C++ compiler and minutes, for steps of the same
    values. The preconditioners' probes come from torch's generator, which the loop seeds at every step; the weights
    move by at most 1.1·lr (root mean square), so that rates like AdamW's or a little lower serve.
    Source: X.-L. Li 2018, "Preconditioned stochastic gradient descent"; timm.
    """

    def __init__(self, params: Any, lr: float = 1e-3, decoupled_decay: bool = True, **options: Any) -> None:
        if not torch.backends.opt_einsum.is_available():
            # Without it torch multiplies from left to right, and two factors of 1,000 make an array of 10¹² numbers.
            raise UserError("optimizer 'kron' needs the package opt_einsum; install it with `pip install opt_einsum`")
        super().__init__(params, lr=lr, decoupled_decay=decoupled_decay, **options)

    def step(self, closure: Any = None) -> Any:
        """One step, not compiled."""
        with torch.compiler.set_stance("force_eager"):
            return super().step(closure)


def timm_names() -> list[str]:
    """What can follow "timm:"."""
    return [
        name
        for name in map(str, list_optimizers())
        if not name.startswith(NEEDS_OTHER_PACKAGES) and name not in NEEDS_SECOND_GRADIENTS
    ]


def check_timm_name(name: str) -> None:
    """UserError for a "timm:NAME" that cannot be had, naming the nearest."""
    short = name.removeprefix(PREFIX)
    if short.startswith(NEEDS_OTHER_PACKAGES) and short in list_optimizers():
        raise UserError(f"optimizer '{name}' needs apex or bitsandbytes, which wellfit does not use; try timm:adamw")
    if short in NEEDS_SECOND_GRADIENTS:
        raise UserError(f"optimizer '{name}' needs second gradients, which the loop does not compute; try kron")
    if short not in timm_names():
        raise unknown_name("optimizer of timm", short, timm_names())


def build_timm(name: str, groups: list[dict[str, Any]], *, lr: float, momentum: float, **options: Any) -> Any:
    """timm's optimizer with timm's own defaults for the name; `momentum` where it is a plain one (sgd and its like)."""
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
        return Kron(groups, lr=lr, **{"decoupled_decay": False, **(info.defaults or {}), **options})
    return build(groups, lr=lr, **options)
