"""One training shared by several processes: each takes its share of every batch, gradients are averaged by torch's DDP.

The order of images, their views and their blending are those of one process, whatever the number of processes. With
GroupNorm (or no normalisation) the weights are therefore those of one process, to float tolerance. With BatchNorm
each share is normalised by its own statistics, and the running ones are the mean over the shares.

`ALONE` stands for one process: the loop asks the same of it and nothing happens.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wellfit.data.batches import Batch, TrainingBatches
from wellfit.errors import UserError
from wellfit.inference.evaluate import ValidationScore, logits_of
from wellfit.training.pace import Pace

PATIENCE = timedelta(days=7)  # the others wait as long as the first one checks and searches
FEWEST_IMAGES = 2  # of a share: BatchNorm cannot normalise a single one
KNOWN = ("wellfit", "torch", "torchvision", "timm")  # their networks use all of their parameters at each step
# Newer torch has another name for the same.
_SYNC = "forward_sync_buffers"
if _SYNC not in inspect.signature(DistributedDataParallel).parameters:
    _SYNC = "broadcast_buffers"

Value = TypeVar("Value")
Penalty = Callable[[nn.Module], Tensor]
Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]


class Together(Protocol):
    """What the loop asks of the processes that share a training."""

    def same(self, value: Value) -> Value:
        """The first process's value."""
        ...

    def forward(self, module: nn.Module, penalty: Penalty | None) -> Forward:
        """The module's outputs, and the penalty on its weights; the backward pass of both averages gradients."""
        ...

    def batches(self, batches: TrainingBatches, criterion: Any) -> Callable[[int], Batch]:
        """This process's share of each batch, with the weight of its loss."""
        ...

    def draws(self, batch_size: int) -> tuple[int, ...]:
        """What is added to the key of dropout's draws, so that shares of a batch draw apart."""
        ...

    def mean_buffers(self, module: nn.Module) -> None:
        """Running statistics: their mean over the processes. Called after each step."""
        ...

    def agree(self, pace: Pace, asked: Callable[[], bool]) -> bool:
        """Whether the first process is asked to stop; `pace` is set to its progress. Called once a step."""
        ...

    def read(self, losses: Sequence[Tensor], hits: Sequence[Tensor]) -> list[tuple[float, int]]:
        """Loss and correct answers of some steps, over the whole batch of each."""
        ...


class _Alone:
    """One process."""

    def same(self, value: Value) -> Value:
        return value

    def forward(self, module: nn.Module, penalty: Penalty | None) -> Forward:
        return lambda inputs: (module(inputs), penalty(module) if penalty is not None else None)

    def batches(self, batches: TrainingBatches, criterion: Any) -> Callable[[int], Batch]:
        return batches.batch

    def draws(self, batch_size: int) -> tuple[int, ...]:
        return ()

    def mean_buffers(self, module: nn.Module) -> None:
        pass

    def agree(self, pace: Pace, asked: Callable[[], bool]) -> bool:
        return asked()

    def read(self, losses: Sequence[Tensor], hits: Sequence[Tensor]) -> list[tuple[float, int]]:
        values = torch.stack([loss.reshape(()) for loss in losses])  # one wait for the device, not one a step
        return list(zip(values.tolist(), torch.stack(list(hits)).tolist(), strict=True))


ALONE: Together = _Alone()


class Group:
    """The processes that torchrun started. The first one decides and writes; all train.

    rank: which of the `size` processes this is, from 0. local_rank: which on its machine. Words between them go
    through the processors; tensors stay on the device that the module is on.
    """

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        device = None
        if torch.cuda.is_available():
            if self.local_rank >= torch.cuda.device_count():
                raise UserError(
                    f"each process has a GPU of its own, but this machine has {torch.cuda.device_count()} for "
                    f"{os.environ.get('LOCAL_WORLD_SIZE', self.local_rank + 1)} processes; start as many as there are "
                    "GPUs, or hide them with CUDA_VISIBLE_DEVICES= and train on the processors"
                )
            torch.cuda.set_device(self.local_rank)
            device = torch.device("cuda", self.local_rank)
        both = device is not None and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=PATIENCE)
        words = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(words, dist.ProcessGroup)
        self._words = words
        self.busy = False  # with a training, of which every process does its part

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        dist.destroy_process_group()

    # Words.

    def same(self, value: Value) -> Value:
        held: list[Any] = [value if self.leads else None]
        dist.broadcast_object_list(held, src=0, group=self._words)
        return cast(Value, held[0])

    def all(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in every process."""
        held: list[Any] = [None] * self.size
        dist.all_gather_object(held, value, group=self._words)
        return held

    def agree(self, pace: Pace, asked: Callable[[], bool]) -> bool:
        word = torch.tensor([pace.progress, asked()] if self.leads else [0.0, 0.0], dtype=torch.float64)
        dist.broadcast(word, src=0, group=self._words)
        pace.progress = float(word[0])
        return bool(word[1])

    # Tensors.

    def same_state(self, module: nn.Module) -> None:
        """The first process's parameters and buffers, in place."""
        for value in module.state_dict().values():
            held = value.detach().contiguous()
            dist.broadcast(held, src=0)
            if held.data_ptr() != value.data_ptr():
                value.copy_(held)

    def forward(self, module: nn.Module, penalty: Penalty | None) -> Forward:
        # Looking for parameters that a step leaves out costs a pass over the graph: for networks that nobody knows.
        strange = any(type(part).__module__.partition(".")[0] not in KNOWN for part in module.modules())
        options: dict[str, Any] = {_SYNC: False}  # they are averaged after each step
        return DistributedDataParallel(_WithPenalty(module, penalty), find_unused_parameters=strange, **options)

    @torch.no_grad()
    def mean_buffers(self, module: nn.Module) -> None:
        buffers = [value for value in module.buffers() if value.is_floating_point() and value.numel()]
        if not buffers:
            return
        flat = torch.cat([value.reshape(-1).to(torch.float32) for value in buffers])
        dist.all_reduce(flat)
        flat /= self.size
        for value, mean in zip(buffers, flat.split([value.numel() for value in buffers]), strict=True):
            value.copy_(mean.view(value.shape))

    def read(self, losses: Sequence[Tensor], hits: Sequence[Tensor]) -> list[tuple[float, int]]:
        both = torch.stack([torch.stack([value.reshape(()) for value in values]).double() for values in (losses, hits)])
        dist.all_reduce(both)
        figures, counts = both.tolist()
        return [(loss / self.size, round(count)) for loss, count in zip(figures, counts, strict=True)]

    # Shares.

    def part(self, whole: int) -> slice:
        """This process's part of so many things; parts differ by one at most."""
        return slice(self.rank * whole // self.size, (self.rank + 1) * whole // self.size)

    def draws(self, batch_size: int) -> tuple[int, ...]:
        first = self.part(batch_size).start
        return (first,) if first else ()

    def batches(self, batches: TrainingBatches, criterion: Any) -> Callable[[int], Batch]:
        """Each share's loss is its own mean; weighted, their mean is that of the whole batch."""
        if batches.batch_size < FEWEST_IMAGES * self.size:
            raise UserError(
                f"each process takes {FEWEST_IMAGES} images or more of a batch, but a batch of {batches.batch_size} is "
                f"shared by {self.size}; start fewer processes, or raise training.batch_size"
            )
        part, weights = self.part(batches.batch_size), weights_of(criterion)

        def share(step: int) -> Batch:
            batch = batches.batch(step, part)
            if weights is None:
                own, whole = float(len(batch.positions)), float(batches.batch_size)
            else:
                targets = batch.targets.numpy()
                shares = weights[targets] if targets.ndim == 1 else targets @ weights
                own, whole = float(shares.sum()), float(weights[batches.targets[batches.positions(step)]].sum())
            return replace(batch, weight=self.size * own / whole)

        return share


class _WithPenalty(nn.Module):
    """A forward pass that also penalises the weights: DDP is to see every use of a parameter in one pass."""

    def __init__(self, module: nn.Module, penalty: Penalty | None) -> None:
        super().__init__()
        self.module, self.penalty = module, penalty

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.module(inputs), self.penalty(self.module) if self.penalty is not None else None


def weights_of(criterion: Any) -> np.ndarray | None:
    """The C class weights of a loss whose mean is a weighted one."""
    for name in ("weight", "class_weights"):
        weights = getattr(criterion, name, None)
        if isinstance(weights, Tensor):
            return weights.detach().cpu().double().numpy()
    return None


class SharedScore:
    """A validation score whose images are judged by all processes, and which all of them are told."""

    def __init__(self, score: ValidationScore, group: Group) -> None:
        self.score, self.group = score, group
        self.part = score.batches.part(group.part(score.batches.images))

    def __call__(self, module: nn.Module) -> tuple[float, dict[str, float]]:
        score, group = self.score, self.group
        own = np.zeros((0, len(score.classes)), np.float32)
        if self.part.images:
            own = logits_of(module, self.part, score.engine, score.preprocessing)
        parts = group.all(own)
        return group.same(score.judge(np.concatenate(parts)) if group.leads else (0.0, {}))
