"""`wellfit neighbours`: the training images that a run's network holds for most alike to an image."""

from __future__ import annotations

from typing import Any

import click

from wellfit.cli.exits import print_json
from wellfit.cli.options import json_option

LISTED = 20


@click.command()
@click.argument("run")
@click.argument("files", nargs=-1)
@click.option("-k", default=8, show_default=True, type=click.IntRange(min=1), metavar="N", help="Neighbours an image.")
@click.option("--data", metavar="DATA", help="The run's own images, where they have been moved.")
@json_option
def neighbours(run: str, files: tuple[str, ...], k: int, data: str | None, as_json: bool) -> int:
    """The training images nearest to each of FILES in the feature space of RUN's network.

    Distances are L2, of what enters the network's last layer. Without FILES, and below their answers, the training
    images whose neighbours all carry one other label: perhaps their own label is wrong.
    """
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe.neighbours import neighbours_of

    with ProgressDisplay() as display:
        result = neighbours_of(run, list(files), k, data=data, listener=display)
    failed = [answer for answer in result["images"] if "error" in answer]
    if as_json:
        print_json(result)
    else:
        for answer in result["images"]:
            if "error" not in answer:
                _say(answer, result)
        if not files:
            _say_suspects(result)
    for answer in failed:
        click.echo(f"left out: {_shown(answer['file'])}: {answer['error']}", err=True)
    return 2 if files and len(failed) == len(files) else 0


def _say(answer: dict[str, Any], result: dict[str, Any]) -> None:
    said = f"{_shown(answer['predicted'])} ({answer['probability']:.0%})"
    click.echo(
        f"{_shown(answer['file'])}: the model says {said}; nearest of "
        f"{result['training_images']:,} training images, L2 distance in {result['features']:,} features:"
    )
    width = max(len(_shown(row["label"])) for row in answer["neighbours"])
    for row in answer["neighbours"]:
        click.echo(f"  {row['distance']:>9.4g}  {_shown(row['label']):<{width}}  {_shown(row['file'])}")


def _say_suspects(result: dict[str, Any]) -> None:
    n, suspects = result["perhaps_mislabelled_in_all"], result["perhaps_mislabelled"]
    if not n:
        click.echo(
            f"none of the {result['training_images']:,} training images stands among images of one other class; "
            "name an image file to see its neighbours"
        )
        return
    click.echo(f"perhaps mislabelled: the nearest training images of these {n:,} all carry one other label")
    for row in suspects[:LISTED]:
        file, label, theirs = (_shown(row[key]) for key in ("file", "label", "neighbours_label"))
        click.echo(f"  {file}: labelled {label}, its neighbours {theirs}")
    if n > LISTED:
        click.echo(
            f"  and {n - LISTED:,} more; --json lists {len(suspects):,}, the report shows the first with pictures"
        )


def _shown(text: object) -> str:
    """A foreign name without what a terminal would take for an order."""
    from wellfit.report.words import plain

    return plain(text, 500)
