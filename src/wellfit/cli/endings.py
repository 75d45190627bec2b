"""What a command that made a run says at its end."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from wellfit.cli.exits import print_json

if TYPE_CHECKING:
    from wellfit.recipe.run import Run
    from wellfit.recipe.search_run import SearchRun


def say_run(run: Run, as_json: bool) -> None:
    """The verdict and where everything is; with --json one object."""
    if as_json:
        print_json(run.as_dict())
        return
    from wellfit.report.terminal import closing

    click.echo(closing(run.folder))


def say_search(run: SearchRun, as_json: bool) -> None:
    """The best settings and what to do with them; with --json one object."""
    if as_json:
        print_json(run.as_dict())
        return
    from wellfit.report.terminal_search import closing

    click.echo(closing(run.folder))


def command_line() -> str:
    """The command as it was given."""
    return shlex.join(["wellfit", *sys.argv[1:]])
