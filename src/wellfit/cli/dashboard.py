"""`wellfit dashboard`: a live page over a folder of runs."""

from __future__ import annotations

from pathlib import Path

import click

from wellfit.errors import UserError

DEFAULT_FOLDER = "runs"


@click.command()
@click.argument("runs_dir", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=8732, show_default=True, metavar="N", help="Where to listen; 0: any that is free.")
@click.option(
    "--token",
    default="",
    envvar="WELLFIT_DASHBOARD_TOKEN",
    metavar="TEXT",
    help="What visitors must know; needed where others can reach --host. Also from WELLFIT_DASHBOARD_TOKEN.",
)
def dashboard(runs_dir: str | None, host: str, port: int, token: str) -> None:
    """A live page over all runs in RUNS_DIR (default: runs), also while they train, here or elsewhere.

    A chart for each run; sort, filter and overlay them; brush their settings; open one; stop it, or leave it a note.
    """
    from wellfit.dashboard.serve import serve

    if runs_dir is not None and not Path(runs_dir).is_dir():
        raise UserError(f"RUNS_DIR is a folder that holds run folders, but '{runs_dir}' is no folder; check the path")
    serve(runs_dir or DEFAULT_FOLDER, host=host, port=port, token=token, say=click.echo)
