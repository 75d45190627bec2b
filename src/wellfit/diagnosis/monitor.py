"""The monitor: watches any PyTorch training from the side and says in words what is wrong with it.

    monitor = Monitor(model, optimizer)
    for x, y in batches:
        loss = criterion(model(x), y); optimizer.zero_grad(); loss.backward(); optimizer.step()
        monitor.step(loss, targets=y)
    monitor.end_epoch(train_accuracy=a, val_accuracy=b)
    for finding in monitor.findings(): print(finding)

It knows nothing of the loop. The loss is kept for every step; everything else is measured at the first
steps and then at one of every ten. It only reads: a training with a monitor gives the same weights, bit for bit.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wellfit.diagnosis.activations import ActivationWatch
from wellfit.diagnosis.answers import AnswerWatch
from wellfit.diagnosis.arguments import as_number, check_loss, check_setup, epoch_figures
from wellfit.diagnosis.calls import CallWatch
from wellfit.diagnosis.entrance import EntranceWatch
from wellfit.diagnosis.history import Epoch, History, InputFigures, Sample, with_classes_of
from wellfit.diagnosis.inputs import find_input, measure, sum_up_inputs, to_host
from wellfit.diagnosis.losses import LossRow
from wellfit.diagnosis.modes import ModeWatch
from wellfit.diagnosis.outputs import as_targets
from wellfit.diagnosis.passes import PassWatch
from wellfit.diagnosis.rules import judge
from wellfit.diagnosis.standing import Watched, as_html, clean_name, in_words
from wellfit.diagnosis.state import resumed, to_state
from wellfit.diagnosis.turns import is_watched
from wellfit.diagnosis.updates import UpdateWatch, widened
from wellfit.errors import UserError
from wellfit.findings import Finding, Findings

# Watched steps kept: all of the first, all of the last, every other one in between as often as needed.
KEPT, KEPT_FIRST, KEPT_LAST = 600, 100, 200
# step() calls without an optimizer step that a gradient scaler may need to find its scale.
PATIENCE = 25


class Monitor:
    """Watches `model` while `optimizer` (one, or several) trains it.

    classes: number of classes; the width of the outputs when not given, once targets show that these are classes.
    every: of so many steps one is watched, drawn anew each time so as not to fall in step with the loop.
    entries: how many fixed entries of each tensor are read for gradients and updates.

    UserError for a model without parameters or an optimizer that holds none of them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer],
        classes: int | None = None,
        every: int = 10,
        entries: int = 4096,
    ) -> None:
        optimizers = check_setup(model, optimizer, classes, every, entries)
        self._losses, self._lrs = LossRow(), array("d")
        self.history = History(losses=self._losses.values, lrs=self._lrs, classes=classes)
        self._verdict: tuple[object, list[Finding], dict[str, str]] | None = None
        self._every = every
        self._updates = UpdateWatch(model, optimizers, entries)
        self._layers = ActivationWatch(model)
        self._modes = ModeWatch(model)
        self._entrance = EntranceWatch(model)
        self._passes = PassWatch()
        self._answers = AnswerWatch(classes)
        self._input: Tensor | None = None
        self._seen_forward = False
        self._given_classes = classes
        self._without_step = 0
        self._closed = False
        self._about = Watched(clean_name(model), [type(o).__name__ for o in optimizers])
        self._calls = CallWatch(model, self._before_forward, self._after_forward)
        self._watch_next()

    # ---- what a loop calls -------------------------------------------------------------------------

    def step(self, loss: float | Tensor, targets: Tensor | Sequence[Any] | np.ndarray | None = None) -> None:
        """Once after every optimizer step. `loss` is that step's; `targets` the labels of its batch (N,) or (N, C).

        A label that is no class counts as one that the loss ignores; of several, all targets are left unjudged.
        """
        if self._closed:
            raise UserError("this monitor is closed and has let go of the model; make a new one to go on watching")
        check_loss(loss)
        labels = None if targets is None else as_targets(targets)
        if labels is not None:
            self._answers.check(labels)
        if not self._updates.stepped and self._updates.steps.accumulating:
            return
        if self._updates.active:
            self._answers.settle(as_number(loss), labels)
        stepped, self._updates.stepped = self._updates.stepped > 0, 0
        if not stepped:
            self._check_skipped()
        sample = self._sample(labels) if self._updates.active and stepped else None
        if sample is None:
            self._answers.count(labels)
        self._losses.add(loss)
        self._lrs.append(self._updates.lr)
        if sample is not None:
            self._keep_sample(sample)
            self._losses.bring()
        self._watch_next()

    def end_epoch(
        self,
        train_loss: float | None = None,
        train_accuracy: float | None = None,
        val_loss: float | None = None,
        val_accuracy: float | None = None,
    ) -> None:
        """After an epoch, with the figures that are known. Accuracies are shares in [0, 1]."""
        self._losses.bring()
        figures = epoch_figures(
            train_loss=train_loss, train_accuracy=train_accuracy, val_loss=val_loss, val_accuracy=val_accuracy
        )
        if figures["train_loss"] is None:
            begun = self.history.epochs[-1].step if self.history.epochs else 0
            steps = self.history.loss[begun:]
            figures["train_loss"] = float(steps.mean()) if len(steps) else None
        passes = self._passes.end_epoch(self._updates.total)
        self.history.epochs.append(Epoch(step=len(self.history.losses), passes=passes, **figures))

    def findings(self) -> list[Finding]:
        """What is wrong so far, root cause first. UserError before the first step."""
        self._losses.bring()
        if not len(self.history.losses):
            raise UserError("there is nothing to judge before the first step; call monitor.step(loss) in the loop")
        return self._judged()[0]

    @property
    def unjudged(self) -> dict[str, str]:
        """By finding id, what was lacking to judge it; every id that was not judged is there."""
        return self._judged()[1]

    def report(self, path: str | os.PathLike[str] = "doctor.html") -> Path:
        """Write one self-contained HTML page: verdict, findings, curves, layers, and what could not be judged.

        Returns its path. UserError before the first step, or where the page cannot be written.
        """
        # matplotlib is for those who want the page.
        from wellfit.diagnosis.page import write

        return write(path, self.history, self._about, *self._judged())

    def __repr__(self) -> str:
        return in_words(self.history, self._about, *self._judged(), closed=self._closed)

    def _repr_html_(self) -> str:
        return as_html(self.history, self._about, *self._judged(), closed=self._closed)

    @property
    def steps(self) -> int:
        """How many steps it was told of."""
        return self._count

    @property
    def watched(self) -> bool:
        """Whether the last step was a watched one, so that `statistics` are its own."""
        return bool(self.history.samples) and self.history.samples[-1].step == self._count - 1

    @property
    def statistics(self) -> dict[str, Any]:
        """Figures of the last watched step, JSON-ready for the record; {} before there is one.

        step; gradient_norm; update_ratio {parameter: ‖Δw‖/‖w‖}, without parameters of zero norm;
        layers {name: {mean, std, dead, saturated}}, where dead and saturated may be None.
        """
        if not self.history.samples:
            return {}
        sample = self.history.samples[-1]
        named = zip(self.history.parameters, sample.update_ratio, strict=True)
        return {
            "step": sample.step,
            "gradient_norm": None if math.isnan(sample.total_gradient) else sample.total_gradient,
            "update_ratio": {p.name: float(r) for p, r in named if p.requires_grad and not np.isnan(r)},
            "layers": {
                layer.name: {"mean": layer.mean, "std": layer.std, "dead": layer.dead, "saturated": layer.saturated}
                for layer in sample.layers
            },
        }

    @property
    def answers(self) -> Tensor | None:
        """The N×C outputs of the last training pass since the last step(); None where there were none.

        Of several tables the one that is known to hold the answers; None as long as that is not known.
        """
        return self._answers.answers

    @property
    def tables(self) -> list[Tensor]:
        """Every N×C output of that pass."""
        return list(self._answers.tables)

    @property
    def no_targets(self) -> str:
        """Why the targets are left out, which do not fit the outputs; "" where they fit."""
        return self._answers.no_targets

    @property
    def stepped(self) -> bool:
        """Whether an optimizer has made a step since the last step()."""
        return self._updates.stepped > 0

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, for a checkpoint: numbers, text and tensors."""
        self._losses.bring()
        return to_state(self.history)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state. UserError where it is none, or of a network with other parameters."""
        history = resumed(state, [p.name for p in self._updates.parameters()])
        self.history = history
        self._losses.go_on(array("d", history.losses))
        self._lrs = array("d", history.lrs)
        history.losses, history.lrs = self._losses.values, self._lrs
        self._verdict = None
        if self._given_classes is not None:
            history.classes = self._given_classes
        self._answers.known = self._answers.known or history.classes is not None
        self._updates.go_on(history.begun, history.samples[-1].moved if history.samples else None)
        self._entrance.told = any(s.received is not None for s in history.samples)
        self._watch_next()

    def close(self) -> None:
        """Remove every hook. Findings and statistics stay."""
        self._losses.bring()
        self._calls.close()
        self._layers.close()
        self._modes.close()
        self._entrance.close()
        self._updates.close()
        self._answers.begin()
        self._input = None
        self._closed = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Monitor:
        # A copy of what holds a monitor, such as an average of the weights, is not what is watched.
        return self

    def __reduce__(self) -> Any:
        raise UserError(
            "a monitor is tied to the network and the optimizer that it watches and cannot be pickled; keep "
            "monitor.state_dict(), and give it to load_state_dict() of a new one"
        )

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what the hooks call -----------------------------------------------------------------------

    def _before_forward(self, module: nn.Module, args: Any, kwargs: dict[str, Any], fresh: bool) -> None:
        grad, x = torch.is_grad_enabled(), find_input(args, kwargs)
        self._passes.note(
            x,
            grad=grad,
            training=self._modes.training,
            by_batch=self._modes.by_batch() > 0,
            recomputing=self._modes.recomputing(),
            steps=self._updates.total,
        )
        # What follows is the training's business; a validation pass usually runs without gradients.
        if not grad:
            return
        self._seen_forward = True
        if fresh:
            self._answers.begin()
        if not self._updates.active:
            return
        if fresh:
            self._layers.begin()
            self._modes.begin()
            self._entrance.begin()
            self._input = x
        else:
            self._layers.active = self._modes.active = True
            self._entrance.active = not self._entrance.told
            self._input = x if self._input is None else self._input

    def _after_forward(self, output: Any) -> None:
        if torch.is_grad_enabled():
            self._answers.see(output, watched=self._updates.active)
        self._layers.active = self._modes.active = self._entrance.active = False

    # ---- bookkeeping -------------------------------------------------------------------------------

    def _judged(self) -> tuple[list[Finding], dict[str, str]]:
        """Findings and what was not judged; the rules are asked once for what has not changed since."""
        self._losses.bring()
        self._say_what_is_unseen()
        now = len(self.history.losses), len(self.history.samples), len(self.history.epochs), str(self.history.unseen)
        if self._verdict is None or self._verdict[0] != now:
            self._verdict = (now, *judge(self.history))
        _, findings, unjudged = self._verdict
        return Findings(findings), dict(unjudged)

    @property
    def _count(self) -> int:
        return len(self._losses)

    def _watch_next(self) -> None:
        self._answers.begin()
        self._input = None
        self._calls.reset()
        self._updates.active = is_watched(self._count, self._every)

    def _sample(self, targets: Tensor | None) -> Sample:
        sample = self._updates.collect(self._count)
        layers, modes = self._layers.collect(), self._modes.collect()
        output = self._answers.sum_up(targets)
        self._answers.count(targets)
        sample = replace(sample, output=output, tally=self._answers.counted())
        scale, inputs = self._input_scale(), self._input_figures()
        received = self._entrance.collect()
        return replace(sample, layers=layers, input=scale, inputs=inputs, modes=modes, received=received)

    def _input_scale(self) -> tuple[float, float] | None:
        # Data is the same all along: the first batch tells.
        x = self._input
        if x is None or not x.is_floating_point() or x.numel() < 2 or self.history.samples:
            return None
        std, mean = torch.std_mean(x.float(), correction=0)
        return float(mean), float(std)

    def _input_figures(self) -> InputFigures | None:
        measured = None if self._input is None else measure(self._input)
        if measured is None or self._input is None:
            return None
        return sum_up_inputs(to_host([measured]), tuple(self._input.shape[1:]))

    def _keep_sample(self, sample: Sample) -> None:
        history, output = self.history, sample.output
        history.parameters, history.begun = self._updates.parameters(), self._updates.begun
        history.batchnorms, history.dropped = self._modes.layers(), self._modes.dropped()
        history.groups = self._updates.steps.groups()
        history.notes = self._answers.notes or history.notes
        if history.samples and len(history.samples[-1].weight_norm) < len(sample.weight_norm):
            history.samples[:] = [widened(s, len(sample.weight_norm)) for s in history.samples]
        history.samples.append(sample)
        if len(history.samples) > KEPT:
            del history.samples[KEPT_FIRST:-KEPT_LAST:2]
        if output is not None and self._given_classes is None:
            history.classes = output.width
        history.class_counts = with_classes_of(sample, history.class_counts)

    def _check_skipped(self) -> None:
        """A gradient scaler skips steps whose gradients overflow; anything else is a call in the wrong place."""
        if not math.isnan(self._updates.lr):
            return
        self._without_step += 1
        finite = self._updates.gradients_are_finite()
        if not self._seen_forward or finite or self._without_step > PATIENCE:
            raise UserError(
                "monitor.step() was called before any optimizer step; call it once after each optimizer.step()"
            )

    def _say_what_is_unseen(self) -> None:
        unseen, samples = self.history.unseen, self.history.samples
        unseen.clear()
        if len(samples) >= 2 and not self._seen_forward:
            reason = "no call of the watched module was seen, or it is compiled or scripted; watch what the loop calls"
            unseen.update(layers=reason, outputs=reason, modes=reason)
        elif len(samples) >= 2 and not any(s.layers for s in samples):
            unseen["layers"] = "no activation or weight layer that torch.nn names was called, or they are compiled"
        if len(samples) >= 2 and self._entrance.layers and not any(s.received for s in samples):
            unseen["entrance"] = "no call of its layers was seen, as in a compiled network that may scale its own input"
        if reason := self._answers.why_unseen(seen=any(s.output is not None for s in samples)):
            unseen.setdefault("outputs", reason)
        if self._answers.no_targets:
            unseen["targets"] = self._answers.no_targets
