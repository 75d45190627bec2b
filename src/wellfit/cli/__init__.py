"""The command line: parse, one call, print. Neither torch nor matplotlib is imported until a command needs it."""

from __future__ import annotations

import time

STARTED = time.monotonic()  # the budget counts from here, before anything heavy is imported


def main() -> None:
    """Entry point of the `wellfit` command."""
    from wellfit.cli.commands import wellfit
    from wellfit.cli.exits import run

    run(wellfit)
