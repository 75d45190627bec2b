"""Sees a network's activations by forward hooks, on watched steps only.

Where the network has activation modules, their outputs are measured. Where it has none (it calls
`F.relu` and the like), the inputs of its weight layers are measured instead, which is what the
activations before them put out. Recurrent layers hold activations of their own: what they put out is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.diagnosis.history import Layer
from wellfit.diagnosis.links import Link

RELU = (nn.ReLU, nn.ReLU6, nn.Threshold)
BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign)
OTHER = (
    nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish,
)  # fmt: skip
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

# Enough for a mean and for "never active", small beside the work of the layer itself.
ENTRIES = 1 << 16
# Watched steps over which a unit must be silent to count as dead.
WINDOW = 5
# Where tanh's slope is 0.06; a sigmoid is a tanh of half the height.
END = 0.97


@dataclass
class _Seen:
    name: str
    kind: str
    figures: Tensor  # mean, std, saturated share, spread
    silent: Tensor | None  # one truth value a unit


class ActivationWatch:
    """Owns the hooks on the layers of `model`; measures while `active`."""

    def __init__(self, model: nn.Module) -> None:
        self.active = False
        self._seen: list[_Seen] = []
        self._calls: dict[str, int] = {}
        self._silence: dict[str, list[Tensor]] = {}
        self._turn = 0
        self._channels: int | None = None
        modules = [(clean(name), m) for name, m in model.named_modules()]
        hooked = [(name, m) for name, m in modules if isinstance(m, RELU + BOUNDED + OTHER)]
        if hooked:
            self._handles = [m.register_forward_hook(Link(self._on_activation(name))) for name, m in hooked]
        else:
            weighted = [(name, m) for name, m in modules if isinstance(m, WEIGHTED)]
            self._handles = [m.register_forward_pre_hook(Link(self._on_input(name))) for name, m in weighted]
        recurrent = [(name, m) for name, m in modules if isinstance(m, nn.RNNBase)]
        self._handles += [m.register_forward_hook(Link(self._on_sequence(name))) for name, m in recurrent]

    def begin(self) -> None:
        """A training forward pass of a watched step starts: forget what an earlier one left."""
        self.active, self._seen, self._channels = True, [], None
        self._calls.clear()

    def collect(self) -> list[Layer]:
        """What the last forward pass showed, in the order of the calls; one transfer from the device."""
        self.active = False
        seen, self._seen = self._seen, []
        if not seen:
            return []
        self._turn += 1
        figures = torch.stack([s.figures for s in seen]).cpu().tolist()
        dead: dict[str, Tensor] = {}
        for s in seen:
            if s.silent is None:
                continue
            past = self._silence.setdefault(s.name, [])
            past[:] = [p for p in past[1 - WINDOW :] if p.shape == s.silent.shape] + [s.silent]
            if len(past) == WINDOW:
                dead[s.name] = torch.stack(past).all(0).float().mean()
        shares = dict(zip(dead, torch.stack(list(dead.values())).cpu().tolist(), strict=True)) if dead else {}
        return [
            Layer(s.name, s.kind, mean, std, spread, shares.get(s.name), saturated if s.kind == "bounded" else None)
            for s, (mean, std, saturated, spread) in zip(seen, figures, strict=True)
        ]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _on_activation(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # Inside torch.compile the hook must vanish, or every watched step would recompile the network.
            if torch.compiler.is_compiling() or not self.active:
                return
            kind = "relu" if isinstance(module, RELU) else "bounded" if isinstance(module, BOUNDED) else "other"
            if isinstance(output, Tensor):
                sigmoid = isinstance(module, nn.Sigmoid | nn.Hardsigmoid)
                self._measure(name, kind, output.detach(), output, 0.5 if sigmoid else 0.0, 0.5 if sigmoid else 1.0)

        return hook

    def _on_sequence(self, name: str) -> Callable[..., None]:
        def hook(module: nn.RNNBase, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or not self.active or not isinstance(output, tuple):
                return
            out = output[0].data if isinstance(output[0], nn.utils.rnn.PackedSequence) else output[0]
            # The gates of an LSTM or a GRU are not seen, and what they put out may well stand still.
            kind = {"RNN_RELU": "relu", "RNN_TANH": "bounded"}.get(module.mode, "other")
            x = out.detach() if out.ndim < 3 or module.batch_first else out.detach().transpose(0, 1)
            self._measure(name, kind, x, out, 0.0, 1.0, unit=x.ndim - 1)

        return hook

    def _on_input(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if torch.compiler.is_compiling() or not self.active:
                return
            first, before = not self._calls, self._channels
            self._channels = getattr(module, "out_channels", getattr(module, "out_features", None))
            if first:  # the images themselves are no activation
                self._calls[""] = 1
                return
            if not args or not isinstance(args[0], Tensor):
                return
            source = args[0]
            x = source.detach()
            if isinstance(module, nn.Linear) and x.ndim == 2 and before and x.shape[1] > before:
                # Flattened feature maps: the unit is the channel, not the pixel.
                x = x.unflatten(1, (before, -1)) if x.shape[1] % before == 0 else x
            low, high = x.min(), x.max()
            if bool((low >= 0) & (x == 0).any()):
                self._measure(f"input of {name}", "relu", x, source, 0.0, 1.0, unit=1)
            elif bool((low > 0) & (high < 1)):
                self._measure(f"input of {name}", "bounded", x, source, 0.5, 0.5, unit=1)
            elif bool((low >= -1) & (high <= 1) & (high - low > 1)):
                self._measure(f"input of {name}", "bounded", x, source, 0.0, 1.0, unit=1)
            else:
                self._measure(f"input of {name}", "other", x, source, 0.0, 1.0, unit=1)

        return hook

    def _measure(
        self, name: str, kind: str, x: Tensor, source: Tensor, centre: float, half: float, unit: int | None = None
    ) -> None:
        if not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
            return
        self._calls[name] = self._calls.get(name, 0) + 1
        if self._calls[name] > 1:  # one module called several times in a pass, as torchvision's blocks do
            name = f"{name}:{self._calls[name]}"
        # Tokens carry their features last, images their channels second.
        self._note(name, kind, x, source, centre, half, unit if unit is not None else (2 if x.ndim == 3 else 1))

    def _note(self, name: str, kind: str, x: Tensor, source: Tensor, centre: float, half: float, unit: int) -> None:
        """What is kept of one activation x, whose gradient passes through `source`.

        centre ± half: the ends of a bounded activation. unit: the axis of the features.
        """
        part = self._part(x).float()
        std, mean = torch.std_mean(part, correction=0)
        ends = ((part - centre).abs() > END * half).float().mean() if kind == "bounded" else torch.zeros_like(mean)
        silent = is_silent(part, unit) if kind == "relu" else None
        spread = part.std(0, correction=0).mean()
        self._seen.append(_Seen(name, kind, torch.stack([mean, std, ends, spread]), silent))

    def _part(self, x: Tensor) -> Tensor:
        """A view of at most about ENTRIES entries: every s-th pixel, another offset at each turn, and fewer images."""
        stride = 1
        if x.ndim == 4:
            while x[0].numel() // stride**2 * min(len(x), 32) > ENTRIES and stride < min(x.shape[2:]):
                stride += 1
            row, column = divmod(self._turn % stride**2, stride)
            x = x[:, :, row::stride, column::stride]
        return x[: max(1, ENTRIES // max(1, x[0].numel()))]


def is_silent(x: Tensor, unit: int) -> Tensor:
    """Which units, along the axis `unit`, are inactive on all that x holds: one truth value a unit (SPEC C7)."""
    return x.amax([d for d in range(x.ndim) if d != unit]) <= 0


def clean(name: str) -> str:
    """The name as the user wrote it, without the prefixes that torch.compile and DistributedDataParallel add."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
