"""A user's optimizer, built again on copies of the model: same class, same groups, same settings, none of its state."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.checks.sandbox import copy_of
from wellfit.errors import UserError
from wellfit.training.optimizers import build_optimizer, check_optimizer_name

Maker = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Build = Callable[[nn.Module, float], torch.optim.Optimizer]

# Where a user names an optimizer and no rate.
USUAL_LR = {"sgd": 0.03, "momentum": 0.01, "nesterov": 0.01, "momentum_inside": 0.01, "nesterov_inside": 0.01}
OTHER_LR = 1e-3
_GREEDY = ("sgd", "rate", "lars", "asgd")  # classes whose usual rates are ten times Adam's


class UsersOptimizer:
    """What is known of the optimizer. `build(module, lr)` makes it anew for a copy of the model.

    lr: its largest learning rate, its start where a warm-up has it at zero. typical: rates usual for its kind.
    missing: names of trained parameters that it does not hold; strange: how many tensors it holds that are not the
    model's. needs_closure: its step evaluates the loss by itself (L-BFGS).
    """

    def __init__(
        self,
        model: nn.Module,
        build: Build,
        example: torch.optim.Optimizer,
        *,
        known: Iterable[Tensor] = (),
        lr: float | None = None,
    ) -> None:
        self.build = build
        held = {id(p) for group in example.param_groups for p in group["params"]}
        own = {id(p): name for name, p in model.named_parameters()}
        self.missing = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
        self.strange = len(held - own.keys() - {id(p) for p in known})
        self.held = len(held & own.keys())
        self.lr = lr if lr is not None else _rate(example)
        self.name = type(example).__name__
        self.typical = _typical(self.name)
        self.needs_closure = _needs_closure(example)

    def candidates(self) -> list[float]:
        """Its rate, ten times as much and a tenth, and what is usual for its kind; none twice within a factor of 2."""
        rates: list[float] = []
        for rate in (self.lr, 10 * self.lr, self.lr / 10, *self.typical):
            if all(not 0.5 < rate / seen < 2.0 for seen in rates):
                rates.append(rate)
        return sorted(rates, reverse=True)


def users_optimizer(
    optimizer: torch.optim.Optimizer | Maker | str | None, model: nn.Module, loss_parameters: Iterable[Tensor] = ()
) -> UsersOptimizer:
    """Read an optimizer made on `model`, a function from parameters to an optimizer, or a name of wellfit's.

    loss_parameters: those of a criterion, which an optimizer may hold too. UserError for an optimizer of another model,
    and for what is none.
    """
    if optimizer is None:
        optimizer = "adamw"
    if isinstance(optimizer, str):
        check_optimizer_name(optimizer)
        name, lr = optimizer, USUAL_LR.get(optimizer, OTHER_LR)
        example = build_optimizer(name, model, lr=lr)
        return UsersOptimizer(model, lambda module, rate: build_optimizer(name, module, lr=rate), example, lr=lr)
    if isinstance(optimizer, torch.optim.Optimizer):
        return _of_instance(optimizer, model, loss_parameters)
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):  # a wrapper, such as accelerate's
        return _of_instance(inner, model, loss_parameters)
    if callable(optimizer):
        return _of_maker(optimizer, model)
    raise UserError(
        f"an optimizer is one of torch.optim made on the model, a function from parameters to one, or a name, got "
        f"{type(optimizer).__name__}; pass the one whose step() trains the model"
    )


def _of_instance(given: torch.optim.Optimizer, model: nn.Module, loss_parameters: Iterable[Tensor]) -> UsersOptimizer:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = []
    for group in given.param_groups:
        settings = {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        groups.append((settings, [names[id(p)] for p in group["params"] if id(p) in names]))
    if not any(held for _, held in groups):
        raise UserError(
            f"the optimizer ({type(given).__name__}) holds none of the {len(names)} parameters of "
            f"{type(model).__name__}; make it with model.parameters() of this very model, after its layers are in place"
        )
    base = _rate(given)

    def build(module: nn.Module, lr: float) -> torch.optim.Optimizer:
        parameters = dict(module.named_parameters())
        made = []
        for settings, held in groups:
            scaled = {**settings, "params": [parameters[name] for name in held]}
            scaled["lr"] = _scaled(settings, lr, base)
            scaled.pop("initial_lr", None)
            made.append(scaled)  # a group of no parameters too: what it asks for reaches nothing, and that is to show
        return _made(given, made, lr)

    seen = UsersOptimizer(model, build, given, known=loss_parameters, lr=base)
    build(copy_of(model), base)  # a class that cannot be made again is refused now
    return seen


def _made(given: torch.optim.Optimizer, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """One of the same class with these groups; its constructor's own arguments are taken from its defaults."""
    make = type(given)
    try:
        takes = inspect.signature(make).parameters
        known = {k: copy.deepcopy(v) for k, v in given.defaults.items() if k in takes and k != "params"}
        if "lr" in takes:
            known["lr"] = lr
        return make(groups, **known)
    except Exception as error:  # a class of the user's own may want anything
        raise UserError(
            f"the checks make the optimizer anew on copies of the model, but {make.__name__} cannot be made from its "
            f"groups and defaults ({error}); give a function from parameters to the optimizer instead"
        ) from error


def _of_maker(make: Maker, model: nn.Module) -> UsersOptimizer:
    def made(module: nn.Module) -> torch.optim.Optimizer:
        try:
            optimizer = make(module.parameters())
        except Exception as error:  # the user's code
            raise UserError(
                f"the optimizer's function is called with the model's parameters, but it failed "
                f"({type(error).__name__}: {error}); correct it"
            ) from error
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(
                f"the optimizer's function returns an optimizer of torch.optim, got {type(optimizer).__name__}; "
                "correct it"
            )
        return optimizer

    trial = copy_of(model)
    example = made(trial)
    base = _rate(example)

    def build(module: nn.Module, lr: float) -> torch.optim.Optimizer:
        optimizer = made(module)
        for group in optimizer.param_groups:
            group["lr"] = _scaled(group, lr, base)
        return optimizer

    seen = UsersOptimizer(trial, build, example, lr=base)
    if not seen.held:
        raise UserError(
            "the optimizer's function holds none of the parameters that it is called with; make the optimizer of "
            "these, not of a model from outside"
        )
    return seen


def _scaled(settings: dict[str, Any], lr: float, base: float) -> float:
    own = float(settings.get("initial_lr", settings["lr"]))
    return own * lr / base if own > 0 else lr


def _rate(optimizer: torch.optim.Optimizer) -> float:
    """The largest learning rate of its groups: that of the start, where a schedule has changed it."""
    rates = [float(group.get("initial_lr", group.get("lr", 0.0))) for group in optimizer.param_groups]
    return max(rates, default=0.0) or OTHER_LR


def _typical(name: str) -> tuple[float, ...]:
    greedy = any(word in name.lower() for word in _GREEDY)
    return (1e-1, 1e-2, 1e-3) if greedy else (1e-2, 1e-3, 1e-4)


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
