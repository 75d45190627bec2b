"""L-BFGS as a training mode: each step sees the whole training split (SPEC row O7).

The loss of the split is summed over chunks that fit into memory, so the network must treat each image by itself, and
the same way each time: the line search compares values of one function, and noise would make it compare two. Dropout
and its like, augmentation, mixing, resampling and normalisation by the batch are therefore refused, and the arithmetic
is float32. BatchNorm is refused in every case, also where one chunk would hold the split: its statistics in evaluation
mode would not be those of the loss that was minimised.
Source: Nocedal and Wright 2006, Numerical Optimization, chapters 3.5 and 7.2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.data.batches import Batch
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine
from wellfit.errors import UserError
from wellfit.record import Record
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.loop import CHECKPOINT_SECONDS, Best, Evaluation, Outcome
from wellfit.training.pace import Pace

SETTLED = 3  # steps in a row without a lower loss: float32 cannot tell the points apart any more
DROP_NAMES = ("p", "drop", "drop_prob")  # of torch and torchvision, ours, timm


def refuse_noise(module: nn.Module) -> None:
    """UserError for a network with a layer that is random in training or normalises by the batch, naming the layer."""
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(
                f"L-BFGS compares losses of chunks of the split, but the layer '{name}' ({kind}) makes each depend on "
                "the images beside it; take a network without BatchNorm, such as lenet5"
            )
        if "drop" in kind.lower() or "stochasticdepth" in kind.lower():
            chance = next(
                (getattr(layer, key) for key in DROP_NAMES if isinstance(getattr(layer, key, None), float)), 0.0
            )
            if chance > 0:
                raise UserError(
                    f"L-BFGS needs the same loss at the same weights, but the layer '{name}' ({kind}) drops at random "
                    f"with probability {chance:g}; set it to 0"
                )
        elif "fractional" in kind.lower():
            raise UserError(
                f"L-BFGS needs the same loss at the same weights, but the layer '{name}' ({kind}) draws its regions "
                "anew at each pass; take another pooling"
            )


class SplitLoss:
    """The mean loss over all images, with its gradient, as a closure for torch.optim.LBFGS.

    chunks: iterated in the same order each time. class_weights: C weights of the criterion's own mean, or None.
    The latest point is remembered: where L-BFGS asks for it again, at the start of its next step, nothing is computed.
    """

    def __init__(
        self,
        module: nn.Module,
        chunks: Iterable[Batch],
        criterion: Callable[[Tensor, Tensor], Tensor],
        *,
        engine: Engine,
        preprocessing: Preprocessing,
        penalty: Callable[[nn.Module], Tensor] | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        self.module, self.chunks, self.criterion = module, chunks, criterion
        self.engine, self.preprocessing, self.penalty = engine, preprocessing, penalty
        self.weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float64)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.passes, self.images, self.correct = 0, 0, 0
        self._total = sum(self._weight(batch.targets) for batch in chunks) if class_weights is not None else 0.0
        self._at: list[Tensor] = []
        self._loss = torch.tensor(math.nan)
        self._gradients: list[Tensor] = []

    def _weight(self, targets: Tensor) -> float:
        return float(len(targets) if self.weights is None else self.weights[targets.cpu()].sum())

    def __call__(self) -> Tensor:
        """Loss at the present weights; gradients are left in `.grad`."""
        if self._at and all(torch.equal(p, q) for p, q in zip(self.parameters, self._at, strict=True)):
            for p, gradient in zip(self.parameters, self._gradients, strict=True):
                p.grad = gradient.clone()
            return self._loss
        for p in self.parameters:
            # L-BFGS flattens gradients as they lie in memory, which channels_last ones do not allow.
            p.grad = torch.zeros_like(p, memory_format=torch.contiguous_format)
        total = self._total or float(
            sum(len(batch.targets) for batch in self.chunks) if not self.images else self.images
        )
        loss, images, correct = torch.zeros((), dtype=torch.float64), 0, 0
        for batch in self.chunks:
            targets = batch.targets.to(self.engine.device, non_blocking=True)
            outputs = self.module(self.engine.inputs(batch.images, self.preprocessing))
            part = self.criterion(outputs, targets) * (self._weight(batch.targets) / total)
            part.backward()
            loss += part.detach().double().cpu()
            images += len(targets)
            correct += int((outputs.detach().argmax(1) == targets).sum())
        if self.penalty is not None:
            term = self.penalty(self.module)
            term.backward()
            loss += term.detach().double().cpu()
        self.passes, self.images, self.correct = self.passes + 1, images, correct
        self._at = [p.detach().clone() for p in self.parameters]
        self._gradients = [p.grad.clone() for p in self.parameters if p.grad is not None]
        self._loss = loss
        return loss


def train_full_batch(
    module: nn.Module,
    chunks: Iterable[Batch],
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.LBFGS,
    *,
    engine: Engine,
    preprocessing: Preprocessing,
    pace: Pace,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    class_weights: Sequence[float] | None = None,
    evaluate: Evaluation | None = None,
    evaluate_every: int = 1,
    patience: int = 0,
    record: Record | None = None,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train `module` in place, one L-BFGS iteration a step, until `pace` is finished or nothing falls any more.

    chunks: the fixed views of the whole split, in one order. optimizer: over all trained parameters; it is run one
    iteration at a time, so that each can be evaluated, recorded and saved. The other arguments are those of `train`.
    Raises UserError for a network whose loss is not a function of its weights alone.
    """
    refuse_noise(module)
    for group in optimizer.param_groups:
        group["max_iter"], group["max_eval"] = 1, 25
    begun, earlier, saved = time.monotonic(), 0.0, time.monotonic()
    best, stale, unmoved, losses = Best(), 0, 0, []
    state = load_checkpoint(checkpoint) if checkpoint is not None else None
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        best, stale, unmoved, losses = Best(**state["best"]), state["stale"], state["unmoved"], state["losses"]
        earlier = state["seconds"]
        pace.resume(state["step"], state["progress"])

    def save() -> None:
        if checkpoint is not None:
            save_checkpoint(
                checkpoint,
                {
                    "module": dict(module.state_dict()),
                    "optimizer": optimizer.state_dict(),
                    "best": vars(best),
                    "stale": stale,
                    "unmoved": unmoved,
                    "losses": losses,
                    "step": pace.step,
                    "progress": pace.progress,
                    "seconds": earlier + time.monotonic() - begun,
                },
            )

    engine.activate()
    module.train()
    closure = SplitLoss(
        module,
        chunks,
        criterion,
        engine=engine,
        preprocessing=preprocessing,
        penalty=penalty,
        class_weights=class_weights,
    )
    inner = optimizer.state[optimizer.param_groups[0]["params"][0]]
    reason = "patience" if patience and stale >= patience else "finished"
    while not pace.finished and unmoved < SETTLED and reason == "finished":
        step_begun, passes = time.perf_counter(), closure.passes
        iterations = inner.get("n_iter", 0)
        before = float(optimizer.step(closure))
        after = float(closure())
        seconds = max(time.perf_counter() - step_begun, 1e-9)
        pace.advance()
        losses.append(after)
        # Where the gradient vanishes or the line search finds nothing lower, the memory of earlier slopes is dropped
        # once and the steepest descent tried; after that the training has come to its end.
        unmoved = unmoved + 1 if not after < before else 0
        if unmoved == 1 and inner.get("n_iter", 0) > iterations:
            inner["n_iter"] = 0
        asked = stop()
        settled = unmoved >= SETTLED or inner.get("n_iter", 0) == iterations != 0
        if settled:
            unmoved = SETTLED
        if record is not None:
            record.write(
                "step",
                step=pace.step,
                epoch=float(pace.step),
                lr=float(inner.get("t", 0.0) or 0.0),
                loss=after,
                images_per_second=closure.images * (closure.passes - passes) / seconds,
                wait=0.0,
                of=pace.expected_steps,
            )
        if not math.isfinite(after):
            reason = "diverged"
            break
        if evaluate is not None and (pace.step % evaluate_every == 0 or pace.finished or settled or asked):
            figures = {"train_loss": after, "train_accuracy": closure.correct / max(1, closure.images)}
            score, validation = evaluate(module)
            module.train()
            figures |= {f"validation_{name}": value for name, value in validation.items()}
            loss_now = validation.get("loss", math.inf)
            stale = 0 if score > best.score else stale + 1
            if best.is_beaten_by(score, loss_now):
                weights = {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
                best = Best(score, loss_now, pace.step, False, weights)
            if record is not None:
                spent = earlier + time.monotonic() - begun
                record.write("epoch", epoch=float(pace.step), step=pace.step, seconds=spent, **figures)
            if patience and stale >= patience:
                reason = "patience"
        if asked:
            reason = "stopped"
        if reason != "finished" or time.monotonic() - saved > CHECKPOINT_SECONDS:
            save()
            saved = time.monotonic()
    return Outcome(
        reason=reason,
        steps=pace.step,
        epochs=float(pace.step),
        best=best,
        losses=losses,
        seconds=earlier + time.monotonic() - begun,
        images=closure.passes * closure.images,
    )


def check_settings(**settings: Any) -> None:
    """UserError for what cannot go with a full-batch step; each setting by its name, as the configuration has it.

    augment: names. mixing: names. balance, schedule: names. batch_size: 0 where none is asked for; images: in the
    split, 0 where not yet known. dtype: of the engine. options: the model's.
    """
    augment = [name for name in settings.get("augment", ()) if name not in ("auto", "none")]
    if augment:
        raise UserError(
            f"L-BFGS needs the same images at each step, got augment = {augment}; set augment to 'none' or take adamw"
        )
    if settings.get("balance") == "sampler":
        raise UserError(
            "L-BFGS sees each image once a step, got training.balance = 'sampler', which draws them at random; "
            "take 'weights'"
        )
    if settings.get("schedule", "auto") not in ("auto", "constant"):
        raise UserError(
            f"L-BFGS finds the length of each step by a line search, got schedule = '{settings['schedule']}'; "
            "leave it at 'auto'"
        )
    batch, images = settings.get("batch_size", 0), settings.get("images", 0)
    if batch and (not images or batch < images):
        known = f" of {images:,} images" if images else ""
        if images or batch <= 1024:
            raise UserError(
                f"L-BFGS takes the whole training split{known} at each step, got training.batch_size = {batch}; "
                "leave batch_size at 0, or take adamw for mini-batches"
            )
    if settings.get("dtype", "auto") not in ("auto", "float32"):
        raise UserError(
            f"L-BFGS compares losses that differ in their last digits, got engine.dtype = '{settings['dtype']}'; "
            "take float32"
        )
    for key, value in settings.get("options", {}).items():
        if ("drop" in key or key == "stochastic_depth") and isinstance(value, int | float) and value > 0:
            raise UserError(
                f"L-BFGS needs the same loss at the same weights, got model.options.{key} = {value}; set it to 0"
            )
