"""Optimizers by name, on torch.optim: the update rules of the recipe (SPEC rows O1-O6).

With g the gradient at x, the rules and what each option is called:

    sgd        x ← x − lr·g
    momentum   v ← ρv + g;  x ← x − lr·v                            ρ is `momentum`
    nesterov   v ← ρv + g;  x ← x − lr·(g + ρv)
    adagrad    s ← s + g²;  x ← x − lr·g/(√s + ε)                   its step decays to zero
    rmsprop    s ← αs + (1−α)g²;  x ← x − lr·g/(√s + ε)             alpha=0.99
    adam       m, s running means of g, g², both divided by 1 − βᵗ;  x ← x − lr·m̂/(√ŝ + ε)
    adamw      adam, and x ← x − lr·λ·x beside it (decoupled decay)
    muon       orthogonalised momentum for matrices and filters, adamw for the rest
    kron       gradients preconditioned by a Kronecker product of triangular factors, one for each dimension (O8)
    lbfgs      quasi-Newton steps with a line search, on the whole training split at once: see full_batch.py (O7)

"timm:NAME" is any optimizer of timm, with timm's defaults; `package.module:name` is the user's own.

**Which to take** (O13). Adam and AdamW are good defaults and often fine at a constant lr. SGD with momentum may beat
them, with more tuning of rate and schedule; cosine is the schedule with the fewest knobs. L-BFGS is worth a try where
the full batch is affordable and all noise can be switched off.

**Which momentum.** torch keeps the rate *outside* the velocity: v ← ρv + g, x ← x − lr·v. The other taught
form keeps it inside: v ← ρv − lr·g, x ← x + v. At a constant lr both visit the same points; under a schedule
they differ, because the second carries steps that were scaled by earlier rates. The default, `momentum`, is torch's
form, in which a lowered rate acts at once; `momentum_inside` is the other. The velocity is a decaying *sum*, g/(1 − ρ)
for a steady gradient, not a mean.

**Which Nesterov.** v ← ρv − lr·g, x ← x − ρ·v_old + (1 + ρ)·v, with g taken at the stored (shifted) point, is
what `nesterov` computes, again with the rate outside; `nesterov_inside` keeps it inside.

**Bias correction.** Without it Adam's first step would be (1 − 0.9)/√(1 − 0.999) = 3.16 times lr whatever the
gradient; with it the first step is lr. ε is torch's (1e-8; adagrad 1e-10); courses write `eps=1e-7`.

**Weight decay** λ enters as gradient λw, that of ½λ‖w‖² (sgd to adam), or decoupled, w ← w − lr·λ·w (adamw, muon,
kron). For plain sgd both are the same step, and both equal an L2 term κΣw² in the loss with λ = 2κ; for others not.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.dotted import is_dotted, load_dotted
from wellfit.errors import UserError, unknown_name
from wellfit.training.momentum import RateInside
from wellfit.training.muon import MuonWithAdamW
from wellfit.training.timm_optimizers import build_timm, check_timm_name, kron

Parameters = nn.Module | Iterable[Any]


def build_optimizer(
    name: str,
    module_or_params: Parameters,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    decoupled: bool | None = None,
    decay_all: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """An optimizer by its name in OPTIMIZERS, "lbfgs", "timm:NAME", or a user's own by `package.module:name`.

    module_or_params: a module; or parameters, (name, parameter) pairs, or groups `{"params": …, "lr": …}`.
        Parameters that require no gradient are left out.
    lr: learning rate, ≥ 0; each group keeps it as "initial_lr", which a schedule multiplies.
    weight_decay: λ ≥ 0, applied to weights of two or more dimensions and not to biases and normalisation
        scales, nor to names that `module.no_weight_decay()` lists; `decay_all=True` applies it to all.
    momentum: ρ in [0, 1), used by momentum, nesterov, muon, kron and timm's of that kind; the others have none.
    decoupled: None keeps the optimizer's own convention; True or False asks for it (adam ↔ adamw; sgd: the same).
    options: the torch optimizer's own arguments, e.g. `betas`, `eps`, `alpha`, `fused`.

    A user's own optimizer is called with (groups, lr=lr, **options).
    The fused implementation is used where torch has one for the device. Raises UserError.
    """
    if not (math.isfinite(lr) and lr >= 0):
        raise UserError(f"a learning rate is a finite number of at least 0, got {lr}; try 1e-3")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise UserError(f"weight decay is a finite number of at least 0, got {weight_decay}; try 1e-4")
    groups = parameter_groups(module_or_params, weight_decay=weight_decay, decay_all=decay_all)
    try:
        if name == "lbfgs":
            return _lbfgs(groups, lr=lr, weight_decay=weight_decay, **options)
        if name.startswith("timm:"):
            optimizer = build_timm(name, groups, lr=lr, momentum=momentum, **options)
        elif is_dotted(name):
            optimizer = load_dotted(name, "optimizer")(groups, lr=lr, **options)
        else:
            name = _with_decoupling(name, decoupled)
            check_optimizer_name(name)
            _check_options(name, options)
            if name == "muon":
                options.setdefault("adamw_for", _classifier_weights(module_or_params))
            optimizer = OPTIMIZERS[name].build(groups, lr=lr, momentum=momentum, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer '{name}' refuses its settings: {error}") from error
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


def check_optimizer_name(name: str) -> None:
    """UserError for a name that `build_optimizer` does not know, with the nearest one."""
    if name.startswith("timm:"):
        check_timm_name(name)
    elif is_dotted(name):
        load_dotted(name, "optimizer")
    elif name not in (*OPTIMIZERS, "lbfgs"):
        raise unknown_name("optimizer", name, [*OPTIMIZERS, "lbfgs", "timm:lion"])


def _lbfgs(groups: list[dict[str, Any]], *, lr: float, weight_decay: float, **options: Any) -> torch.optim.Optimizer:
    if weight_decay:
        raise UserError(
            f"L-BFGS takes the decay of weights as a term of the loss, got weight_decay {weight_decay:g} in the "
            "optimizer; set it to 0 and give training.l2"
        )
    known = set(inspect.signature(torch.optim.LBFGS).parameters) - {"params", "lr"}
    for option in options:
        if option not in known:
            raise unknown_name("option of optimizer 'lbfgs'", option, known)
    params = [p for group in groups for p in group["params"]]
    return torch.optim.LBFGS(params, lr=lr, **{"line_search_fn": "strong_wolfe", **options})


def decays(name: str, parameter: Tensor, excluded: Iterable[str] = ()) -> bool:
    """Whether weight decay is meant for this parameter: two or more dimensions, and not excluded by name."""
    return parameter.ndim >= 2 and name not in set(excluded)


def decaying_names(module: nn.Module) -> set[str]:
    """Names of the trainable parameters that weight decay and penalties act on."""
    excluded = _no_decay_names(module)
    return {n for n, p in module.named_parameters() if p.requires_grad and decays(n, p, excluded)}


def parameter_groups(
    module_or_params: Parameters, *, weight_decay: float, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: what decays, then what does not, for each group given. Raises UserError if empty.

    Each group holds "params", "weight_decay" and the keys of the group it came from, such as a lower "lr".
    """
    excluded = _no_decay_names(module_or_params) if isinstance(module_or_params, nn.Module) else set()
    groups = []
    for given in _given_groups(module_or_params):
        named = [(n, p) for n, p in _named(given["params"]) if p.requires_grad]
        rest = {key: value for key, value in given.items() if key != "params"}
        strength = rest.pop("weight_decay", weight_decay)
        yes = [p for n, p in named if decay_all or decays(n, p, excluded)]
        no = [p for n, p in named if not (decay_all or decays(n, p, excluded))]
        groups += [{**rest, "params": yes, "weight_decay": strength}] if yes else []
        groups += [{**rest, "params": no, "weight_decay": 0.0}] if no else []
    if not groups:
        raise UserError(
            "an optimizer needs parameters that require a gradient, got none; unfreeze some or pass the model"
        )
    return groups


def _given_groups(module_or_params: Parameters) -> list[dict[str, Any]]:
    if isinstance(module_or_params, nn.Module):
        return [{"params": module_or_params.named_parameters()}]
    items = list(module_or_params)
    return items if items and isinstance(items[0], dict) else [{"params": items}]


def _classifier_weights(module: Any) -> list[Tensor]:
    linear = [m for m in module.modules() if isinstance(m, nn.Linear)] if isinstance(module, nn.Module) else []
    return [linear[-1].weight] if linear else []


def _named(params: Any) -> Iterator[tuple[str, Tensor]]:
    for item in [params] if isinstance(params, Tensor) else params:
        yield ("", item) if isinstance(item, Tensor) else item


def _no_decay_names(module: Any) -> set[str]:
    # timm's models say by this method which embeddings must not decay.
    listed = getattr(module, "no_weight_decay", None)
    return set(listed()) if callable(listed) else set()


def _with_decoupling(name: str, decoupled: bool | None) -> str:
    if decoupled is None or name == "sgd" or name not in OPTIMIZERS:
        return name
    if name in ("adam", "adamw"):
        return "adamw" if decoupled else "adam"
    if name in ("muon", "kron") and decoupled:
        return name
    has = "only decoupled" if name in ("muon", "kron") else "no decoupled"
    raise UserError(f"optimizer '{name}' has {has} weight decay; leave `decoupled` out, or use adam or adamw")


def _check_options(name: str, options: dict[str, Any]) -> None:
    known = set(inspect.signature(OPTIMIZERS[name].optimizer).parameters)
    for option in options:
        if option not in known - {"params", "groups", "lr", "momentum", "weight_decay"}:
            raise unknown_name(f"option of optimizer '{name}'", option, known - {"params", "groups"})


@dataclass(frozen=True)
class Rule:
    """A row of OPTIMIZERS. fused_on: device types for which torch has a fused kernel of the rule."""

    optimizer: Callable[..., torch.optim.Optimizer]
    fused_on: tuple[str, ...] = ()
    takes_momentum: bool = False
    fixed: dict[str, Any] = field(default_factory=dict)

    def build(
        self, groups: list[dict[str, Any]], *, lr: float, momentum: float, **options: Any
    ) -> torch.optim.Optimizer:
        """The optimizer over `groups`; an option given wins over the row's own."""
        chosen = {**({"momentum": momentum} if self.takes_momentum else {}), **self.fixed, **options}
        if not chosen.keys() & {"fused", "foreach", "differentiable"} and self._fusable(groups):
            chosen["fused"] = True
        optimizer = self.optimizer(groups, lr=lr, **chosen)
        if chosen.get("fused"):
            optimizer.register_step_pre_hook(_match_layouts)
        return optimizer

    def _fusable(self, groups: list[dict[str, Any]]) -> bool:
        params = [p for group in groups for p in group["params"]]
        devices = {p.device.type for p in params}
        return len(devices) == 1 and devices <= set(self.fused_on) and all(p.is_floating_point() for p in params)


def _match_layouts(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    # torch's fused kernels walk parameter, gradient and state as raw memory and do not look at strides: a momentum
    # loaded from a contiguous checkpoint beside a channels_last weight would be applied to the wrong elements.
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and not _same_layout(p, p.grad):
                p.grad = torch.empty_like(p).copy_(p.grad)
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor) and value.shape == p.shape and not _same_layout(p, value):
                    optimizer.state[p][key] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def _same_layout(a: Tensor, b: Tensor) -> bool:
    # Strides along dimensions of size 1 say nothing about where elements lie.
    return a.stride() == b.stride() or all(
        size == 1 or x == y for size, x, y in zip(a.shape, a.stride(), b.stride(), strict=True)
    )


OPTIMIZERS: dict[str, Rule] = {
    "sgd": Rule(torch.optim.SGD, ("cpu", "cuda")),
    "momentum": Rule(torch.optim.SGD, ("cpu", "cuda"), takes_momentum=True),
    "nesterov": Rule(torch.optim.SGD, ("cpu", "cuda"), takes_momentum=True, fixed={"nesterov": True}),
    "momentum_inside": Rule(RateInside, takes_momentum=True),
    "nesterov_inside": Rule(RateInside, takes_momentum=True, fixed={"nesterov": True}),
    "adagrad": Rule(torch.optim.Adagrad, ("cpu",)),
    "rmsprop": Rule(torch.optim.RMSprop),
    "adam": Rule(torch.optim.Adam, ("cpu", "cuda")),
    "adamw": Rule(torch.optim.AdamW, ("cpu", "cuda")),
    "muon": Rule(MuonWithAdamW, ("cpu", "cuda"), takes_momentum=True),
    "kron": Rule(kron, takes_momentum=True),
}
