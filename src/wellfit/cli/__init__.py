"""The command line: parse, one call, print. Neither torch nor matplotlib is imported until a command needs it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

STARTED = time.monotonic()  # the budget counts from here, before anything heavy is imported


def main() -> None:
    """Entry point of the `wellfit` command."""
    from wellfit.cli.commands import wellfit
    from wellfit.cli.exits import run

    with contextlib.ExitStack() as stack:
        # Of torchrun's processes the first one speaks; mistakes are said by any.
        if os.environ.get("RANK", "0") != "0" and "MASTER_ADDR" in os.environ:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        run(wellfit)
