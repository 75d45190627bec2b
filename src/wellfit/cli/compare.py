"""`wellfit compare`: two runs on the same images, and whether the difference is more than chance."""

from __future__ import annotations

from typing import Any

import click

from wellfit.cli.exits import print_json
from wellfit.cli.options import config_of, data_options, json_option


@click.command()
@click.argument("a")
@click.argument("b")
@click.argument("data", required=False)
@json_option
@data_options
def compare(a: str, b: str, data: str | None, as_json: bool, **settings: Any) -> None:
    """Compare runs A and B on the same images: is the difference more than chance?

    Without DATA, on the test images that both runs have; their answers were kept when each run opened its test split,
    so nothing is opened again. With DATA, on its images that neither run has learnt from.
    """
    from wellfit.recipe.comparison import compare_runs

    result = compare_runs(a, b, data, config_of(settings).data)
    if as_json:
        print_json(result)
        return
    for letter, run in (("A", a), ("B", b)):
        low, high = result["interval"][letter.lower()]
        accuracy = result["accuracy"][letter.lower()]
        click.echo(f"{letter}  accuracy {accuracy:.4f} (95% interval {low:.4f} to {high:.4f})  {run}")
    low, high = result["difference_interval"]
    click.echo(
        f"B − A {100 * result['difference']:+.2f} points (95% interval {100 * low:+.2f} to {100 * high:+.2f}) on "
        f"{result['images']:,} images"
    )
    _table(result)
    sentence = result["sentence"]
    click.echo(f"{sentence[:1].upper()}{sentence[1:]}.")
    for note in result["notes"]:
        click.echo(f"note: {note}", err=True)
    for item in result["left_out"]:
        click.echo(f"left out: {item['file']}: {item['reason']}", err=True)


def _table(result: dict[str, Any]) -> None:
    cells = [["", "B right", "B wrong"]]
    cells.append(["A right", f"{result['both_right']:,}", f"{result['only_a']:,}"])
    cells.append(["A wrong", f"{result['only_b']:,}", f"{result['both_wrong']:,}"])
    width = max(len(cell) for row in cells for cell in row)
    for row in cells:
        click.echo("  " + "  ".join(cell.rjust(width) for cell in row))
