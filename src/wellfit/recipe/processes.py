"""The processes that torchrun started for this command, if any."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from wellfit.errors import Interrupted, UserError

LOST = re.compile(r"gloo|nccl|peer|connection", re.IGNORECASE)  # what torch says when another process has gone


def processes() -> int:
    """How many processes torchrun started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else 1


def follows() -> bool:
    """Whether this process is one that takes part and is not the first."""
    return processes() > 1 and os.environ["RANK"] != "0"


def refuse_several(what: str) -> None:
    """UserError where torchrun started several processes for something that one does."""
    if processes() > 1:
        raise UserError(
            f"torchrun's processes share a training (fit, train and resume), but {processes()} were started for "
            f"{what}; start it without torchrun"
        )


@contextlib.contextmanager
def lost_others(advice: str) -> Iterator[None]:
    """What torch says of a connection that broke, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise Interrupted(
            f"another of the {processes()} processes ended, so this one cannot go on; {advice}"
        ) from error
