"""Nearest vectors by L2 distance, in blocks: memory stays level however many there are (SPEC T5).

L2, as the course draws its neighbours: the classifier behind these features is linear in them, so how large a feature
is tells as much as in which direction it lies; the cosine would throw the one away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from wellfit.errors import UserError

QUERY_BLOCK, BANK_BLOCK = 1024, 16_384  # 64 MB of distances at a time


class Vectors(Protocol):
    """An array of rows, or what can be read like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


@torch.inference_mode()
def nearest(
    queries: Vectors, bank: np.ndarray, k: int, *, own: np.ndarray | None = None, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """(positions int64 Q×k, distances float32 Q×k) in the bank, nearest first.

    queries: Q×F; bank: N×F, both of any float type; the bank may be memory-mapped. own: int64 Q, the position in the
    bank that is the query itself, and no neighbour. UserError where the bank holds fewer than k others.
    """
    others = len(bank) - (own is not None)
    if not 1 <= k <= others:
        raise UserError(f"there are {others:,} images to choose neighbours from, so k is from 1 to {others:,}, got {k}")
    positions = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.float32)
    for begin in range(0, len(queries), QUERY_BLOCK):
        part = slice(begin, begin + QUERY_BLOCK)
        asked = torch.from_numpy(np.asarray(queries[part], dtype=np.float32)).to(device)
        itself = None if own is None else torch.from_numpy(own[part]).to(device)
        found = _nearest(asked, bank, k, itself)
        positions[part] = found.cpu().numpy()
        # From the vectors' difference: the squared form above loses the small distances to rounding.
        chosen = np.asarray(bank[positions[part].reshape(-1)], dtype=np.float32).reshape(*positions[part].shape, -1)
        exact = np.linalg.norm(chosen - np.asarray(queries[part], dtype=np.float32)[:, None], axis=2)
        order = np.argsort(exact, axis=1, kind="stable")
        positions[part] = np.take_along_axis(positions[part], order, axis=1)
        distances[part] = np.take_along_axis(exact, order, axis=1)
    return positions, distances


def _nearest(asked: torch.Tensor, bank: np.ndarray, k: int, own: torch.Tensor | None) -> torch.Tensor:
    """Positions Q×k by |b|² − 2ab, which orders as the distance does."""
    best = torch.full((len(asked), 0), torch.inf, device=asked.device)
    where = torch.zeros((len(asked), 0), dtype=torch.int64, device=asked.device)
    for begin in range(0, len(bank), BANK_BLOCK):
        block = torch.from_numpy(np.asarray(bank[begin : begin + BANK_BLOCK], dtype=np.float32)).to(asked.device)
        scores = torch.addmm(block.square().sum(1)[None], asked, block.T, alpha=-2)
        if own is not None:
            inside = ((own >= begin) & (own < begin + len(block))).nonzero()[:, 0]
            scores[inside, own[inside] - begin] = torch.inf
        near, place = scores.topk(min(k, len(block)), dim=1, largest=False)
        best, where = torch.cat([best, near], 1), torch.cat([where, place + begin], 1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1, largest=False)
        where = where.gather(1, kept)
    return where


@dataclass
class Strangers:
    """Images whose k neighbours all carry one other label. positions: M; labels: that label, M; neighbours: M×k."""

    positions: np.ndarray
    labels: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray


def strangers(
    bank: np.ndarray, labels: np.ndarray, k: int, *, candidates: np.ndarray | None = None, device: str = "cpu"
) -> Strangers:
    """Those of the bank's images whose k nearest others all carry one and the same label, and not their own.

    bank: N×F; labels: int64 N; candidates: positions to look at, all by default. Costs candidates × N × F.
    """
    asked = np.arange(len(bank)) if candidates is None else np.asarray(candidates, dtype=np.int64)
    positions, distances = nearest(_Rows(bank, asked), bank, k, own=asked, device=device)
    theirs = labels[positions]
    alone = (theirs == theirs[:, :1]).all(1) & (theirs[:, 0] != labels[asked])
    return Strangers(asked[alone], theirs[alone, 0], positions[alone], distances[alone])


class _Rows:
    """Chosen rows of a memory-mapped array, read a block at a time."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        return np.asarray(self.array[self.rows[part]])
