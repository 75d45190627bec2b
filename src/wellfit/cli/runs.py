"""`wellfit runs`: the runs below a folder, how each is doing, newest first."""

from __future__ import annotations

import shutil
import sys

import click

from wellfit.cli.exits import print_json
from wellfit.cli.options import json_option
from wellfit.errors import UserError

_COLOURS = {"running": "cyan", "finished": "green", "stopped": "yellow", "silent": "yellow"}


@click.command()
@click.argument("folder", metavar="[DIR]", default="runs")
@click.option(
    "--sort",
    default="started",
    show_default=True,
    metavar="KEY",
    help="started, name, state, model, data, accuracy, seconds or loss; the best or newest first.",
)
@json_option
def runs(folder: str, sort: str, as_json: bool) -> None:
    """The runs below DIR (default: runs), a line each: state, accuracy, curves, model, time.

    The curves are the validation accuracy of each epoch (of a search: of each trial) and the loss. States: running,
    finished, stopped (Ctrl-C; `wellfit resume` goes on), failed, silent (no end, nothing written for three minutes) and
    unreadable.
    """
    from pathlib import Path

    from wellfit.report.listing import list_runs
    from wellfit.report.terminal_runs import table

    root = Path(folder)
    if folder == "runs" and not root.exists():
        raise UserError("there is no folder 'runs' here; give the folder that holds your runs: `wellfit runs DIR`")
    found = list_runs(root, sort)
    if as_json:
        print_json({"folder": folder, "runs": [row.as_dict() for row in found]})
        return
    if not found:
        click.echo(f"no run in '{folder}'; `wellfit fit DATA` makes one")
        return
    live = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if live else None
    click.echo(table(found, root, width, _styled if live else lambda text, state: text))


def _styled(text: str, state: str) -> str:
    return click.style(text, fg=_COLOURS.get(state, "red"))
