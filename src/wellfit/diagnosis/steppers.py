"""Finds the optimizers whose step() really moves the weights, behind wrappers and after a new one was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from wellfit.diagnosis.history import OptimizerGroup

# Where wrappers keep the optimizer that they wrap: accelerate, Lightning, SAM, Lookahead, sharded ones.
INNER = ("optimizer", "base_optimizer", "_base_optimizer", "_optimizer", "optim")

Before = Callable[[Optimizer, Any, Any], Any]
After = Callable[[Optimizer, Any, Any], None]


def family(optimizer: Any) -> list[Optimizer]:
    """The optimizer and those that it wraps, as far as their step can be hooked; [] for what is none."""
    found: list[Optimizer] = []
    waiting, seen = [optimizer], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        own = getattr(one, "__dict__", {})
        if isinstance(one, Optimizer) and "_optimizer_step_pre_hooks" in own:
            found.append(one)
        waiting += [own[name] for name in INNER if name in own]
    return found


class StepWatch:
    """Owns the step hooks of `optimizers`, of those inside them, and of later ones that take over their parameters.

    before, after: called as the step hooks of torch are. adopted: told when an unknown optimizer has made a step.
    lr: the largest rate of the first optimizer's last step. Optimizers are held weakly: one that the user has dropped
    takes its state with it.
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        parameters: Callable[[], Iterable[Tensor]],
        before: Before,
        after: After,
        adopted: Callable[[], None],
    ) -> None:
        self.lr = float("nan")
        self._parameters, self._before, self._after, self._adopted = parameters, before, after, adopted
        self._known: WeakSet[Optimizer] = WeakSet()
        self._strangers: WeakSet[Optimizer] = WeakSet()
        self._leading: WeakSet[Optimizer] = WeakSet(family(optimizers[0]))
        self._handles: list[Any] = []
        # accelerate turns step() into nothing while it accumulates, and says so here.
        states = [getattr(o, "__dict__", {}).get("gradient_state") for o in optimizers]
        self._gradient_states: list[Any] = [s for s in states if hasattr(s, "sync_gradients")]
        for optimizer in optimizers:
            for one in family(optimizer):
                self._follow(one)
        self._handles.append(register_optimizer_step_post_hook(self._noticed))

    @property
    def accumulating(self) -> bool:
        """Whether a wrapper says that the present step() only adds up gradients."""
        return any(not state.sync_gradients for state in self._gradient_states)

    def held(self) -> set[int]:
        """Ids of the parameters that the optimizers hold."""
        return _parameters_of(self._known)

    def decays(self) -> dict[int, float]:
        """By id of each parameter that the optimizers hold: the largest weight decay that it is given."""
        found: dict[int, float] = {}
        for group in (group for optimizer in self._known for group in optimizer.param_groups):
            share = _number(group.get("weight_decay")) or 0.0
            for p in group["params"]:
                found[id(p)] = max(found.get(id(p), 0.0), share)
        return found

    def groups(self) -> list[OptimizerGroup]:
        """How the optimizers that hold parameters of the model are set, equal ones once."""
        found = [_set_to(o, group) for o in self._known for group in o.param_groups]
        return sorted(dict.fromkeys(found), key=str)

    def note_rate(self, optimizer: Optimizer, *, may_wait: bool) -> None:
        """Keep the rate of a step; a rate on an accelerator is read only where the caller may wait for it."""
        if optimizer in self._leading:
            rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
            ready = [float(r) for r in rates if may_wait or not isinstance(r, Tensor) or r.device.type == "cpu"]
            self.lr = max(ready, default=self.lr)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _follow(self, optimizer: Optimizer) -> None:
        if optimizer not in self._known:
            self._known.add(optimizer)
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def _noticed(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer somewhere has stepped: one that holds parameters of this model is watched from now on."""
        if optimizer in self._known or optimizer in self._strangers:
            return
        own, theirs, leading = {id(p) for p in self._parameters()}, _parameters_of([optimizer]), self._leading
        if not own & theirs:
            self._strangers.add(optimizer)
            return
        if theirs & _parameters_of(leading) or not own & _parameters_of(leading):
            self._leading = WeakSet([optimizer])
        self._follow(optimizer)
        self._adopted()
        self.note_rate(optimizer, may_wait=False)


def _set_to(optimizer: Optimizer, group: dict[str, Any]) -> OptimizerGroup:
    betas = group.get("betas")
    pair = betas if isinstance(betas, list | tuple) and len(betas) == 2 else None
    # RMSprop's alpha, not ASGD's; the three betas of Adan are something else.
    second = pair[1] if pair is not None else group.get("alpha") if "centered" in group else None
    return OptimizerGroup(
        type(optimizer).__name__,
        momentum=_number(group.get("momentum") if pair is None else pair[0]),
        second=_number(second),
        eps=_number(group.get("eps")),
        maximize=group.get("maximize") is True,
    )


def _number(value: Any) -> float | None:
    """A tensor may lie on an accelerator, where to read it would mean to wait."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _parameters_of(optimizers: Iterable[Optimizer]) -> set[int]:
    return {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
