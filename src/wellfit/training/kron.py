"""timm's Kronecker-factored optimizer, as "kron" (SPEC row O8); imported when it is asked for."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim.kron import Kron as TimmKron

from wellfit.errors import UserError


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
