"""`wellfit ensemble`: finished runs joined to one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wellfit import cli
from wellfit.cli.endings import command_line
from wellfit.cli.exits import print_json
from wellfit.cli.options import json_option, out_option

if TYPE_CHECKING:
    from wellfit.recipe.run import Run


@click.command()
@click.argument("runs", nargs=-1, required=True)
@out_option
@click.option("--data", metavar="DATA", help="The runs' own images, where they have been moved.")
@click.option("--most", type=int, default=5, show_default=True, metavar="N", help="Members at most.")
@click.option("--equal", is_flag=True, help="All runs count alike and none is left out; default: chosen on validation.")
@click.option("--views", default="none", show_default=True, metavar="NAME", help="Test-time views, or auto.")
@json_option
def ensemble(
    runs: tuple[str, ...], out: str | None, data: str | None, most: int, equal: bool, views: str, as_json: bool
) -> None:
    """Join finished RUNS of the same data to one model, whose probabilities are averaged.

    Members are chosen one by one, by what their mean gains on validation images that none of the runs was trained on.
    Fit them with one --split-seed, so that they hold out the same images:

    \b
    wellfit fit photos/ --seed 1 --split-seed 0 --out runs/a
    wellfit fit photos/ --seed 2 --split-seed 0 --out runs/b
    wellfit ensemble runs/a runs/b --out runs/ab
    """
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe.joining import ensemble as join

    with ProgressDisplay() as display:
        made = join(
            runs,
            out=out,
            data=data,
            most=most,
            equal=equal,
            views=views,
            command=command_line(),
            started=cli.STARTED,
            listener=display,
        )
    if as_json:
        print_json(made.as_dict() | {"ensemble": made.ensemble})
    else:
        _say(made)


def _say(made: Run) -> None:
    from wellfit.report.words import plain

    line: dict[str, Any] = made.ensemble or {}
    width = max(len(plain(row["name"], 60)) for row in line["tried"])
    shares = {member["name"]: member["share"] for member in line["members"]}
    click.echo(f"each run alone, on {line['images']:,} validation images, and its share in the ensemble")
    for row in line["tried"]:
        share = shares.get(row["name"])
        told = f"{share:.0%}" if share is not None else "left out"
        click.echo(f"  {plain(row['name'], 60):<{width}}  {row['score']:.4f}  {told}")
    click.echo("members added one by one")
    for step in line["steps"]:
        gained = f"{100 * step['gain']:+.2f} points" if step is not line["steps"][0] else ""
        click.echo(f"  {plain(step['name'], 60):<{width}}  {step['score']:.4f}  {gained}".rstrip())
    if len(line["members"]) < 2:
        click.echo("the mean with any other run is no better on these images, so the best run alone is the model")
    one, together = line["milliseconds"]
    click.echo(f"cost: {together:.2f} ms an image, {one:.2f} for one network")
    if made.test_accuracy is not None:
        click.echo(f"test accuracy {made.test_accuracy:.4f} on {made.test_images:,} images that no run has learnt from")
    click.echo(f"model: {made.folder.model_weights}")
