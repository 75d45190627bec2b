"""`wellfit models`: the nets by name with their costs and published accuracy, and the layer table of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wellfit.cli.exits import print_json
from wellfit.cli.options import json_option
from wellfit.errors import UserError
from wellfit.models.units import FLOAT32, in_bytes, in_units

if TYPE_CHECKING:
    from rich.table import Table

    from wellfit.models.catalogue import Entry
    from wellfit.models.complexity import Complexity

NONE = "–"


@click.command()
@click.argument("name", required=False)
@click.option("--input", "input_size", type=click.IntRange(min=1), metavar="PX", help="Side of NAME's input images.")
@click.option("--classes", type=click.IntRange(min=2), metavar="N", help="Number of NAME's classes.")
@click.option("--sort", metavar="KEY", help="name, parameters, flops, activations, input or accuracy.")
@click.option("--filter", "wanted", metavar="TEXT", help="Names that hold TEXT, or fit a pattern such as 'vgg1?_bn'.")
@click.option("--all", "with_timm", is_flag=True, help="timm's names too.")
@click.option("--pretrained", is_flag=True, help="Published weights, of models whose name holds NAME; fetches none.")
@click.option("--chart", metavar="FILE", help="Draw accuracy against operations into an .svg or .png file.")
@click.option("--history", is_flag=True, help="The winners of the ImageNet challenge by year.")
@json_option
def models(
    name: str | None,
    input_size: int | None,
    classes: int | None,
    sort: str | None,
    wanted: str | None,
    with_timm: bool,
    pretrained: bool,
    chart: str | None,
    history: bool,
    as_json: bool,
) -> None:
    """The networks by name: parameters, operations, input size, published accuracy, licence.

    With NAME, its layer table: output shape, activations, parameters, operations and receptive field of each layer.
    Operations are 2 × multiply-adds of one image. With --pretrained, the published weights of the models whose name
    holds NAME.
    """
    about_list = {"--sort": sort, "--filter": wanted, "--all": with_timm, "--chart": chart, "--history": history}
    about_one = {"--input": input_size, "--classes": classes}
    if pretrained:
        about_nets = {**about_one, "--sort": sort, "--chart": chart, "--history": history}
        if others := [option for option, given in about_nets.items() if given]:
            raise UserError(f"--pretrained lists weights, which {others[0]} does not belong to; leave one of them out")
        if name and wanted:
            raise UserError(
                f"--pretrained takes one pattern, got '{name}' and --filter '{wanted}'; leave one of them out"
            )
        _pretrained(name or wanted, with_timm, as_json)
        return
    if unfit := [option for option, given in (about_list if name else about_one).items() if given]:
        if name:
            raise UserError(
                f"{unfit[0]} belongs to the list of models, but '{name}' asks for one; leave one of them out"
            )
        raise UserError(f"{unfit[0]} belongs to the layer table of one model, but none is named; add its name")
    if name:
        _one(name, input_size, classes, as_json)
    elif history:
        if others := [option for option, given in about_list.items() if given and option != "--history"]:
            raise UserError(f"--history is a table of its own, so {others[0]} cannot be given beside it; leave one out")
        _history(as_json)
    else:
        _list(wanted, sort, with_timm, chart, as_json)


def _list(wanted: str | None, sort: str | None, with_timm: bool, chart: str | None, as_json: bool) -> None:
    from wellfit.models.listing import listing

    _refuse_chart(chart)
    found = listing(
        wanted=wanted, sort=sort, with_timm=with_timm, progress=lambda name: click.echo(f"measuring {name}", err=True)
    )
    drawn = _draw(found.entries, Path(chart)) if chart else None
    if as_json:
        print_json(
            {
                "models": [{**entry.as_dict(), "input_size": entry.input_size or None} for entry in found.entries],
                "not_computed": found.not_computed,
                "notes": found.notes,
                "chart": chart,
            }
        )
        return
    _print(_list_table(found.entries))
    click.echo(
        "operations: 2 × multiply-adds of one image; memory: its activations in float32, about twice that with "
        "the backward pass; accuracy: top-1"
    )
    for note in found.notes:
        click.echo(note)
    if drawn is not None:
        click.echo(f"{chart}: {drawn} nets with a published ImageNet accuracy")


def _pretrained(wanted: str | None, with_timm: bool, as_json: bool) -> None:
    from wellfit.models.pretrained_list import pretrained_listing

    found = pretrained_listing(
        wanted, with_timm=with_timm, progress=lambda name: click.echo(f"measuring {name}", err=True)
    )
    if as_json:
        print_json({"pretrained": [entry.as_dict() for entry in found.entries], "notes": found.notes})
        return
    table = _table("model", "weights", "classes*", "input*", "parameters*", "licence", "here", "from")
    for entry in found.entries:
        table.add_row(
            entry.name,
            entry.weights.rpartition(".")[2],
            f"{entry.classes:,}",
            f"{entry.input_size} px",
            _short(entry.parameters),
            _short_licence(entry.licence),
            "yes" if entry.file else NONE,
            entry.source.removeprefix("https://").partition("/")[0],
        )
    _print(table)
    click.echo(
        "here: the file is on this machine; others are fetched where --weights pretrained asks for them; --json has "
        "the whole addresses"
    )
    for note in found.notes:
        click.echo(note)


def _list_table(entries: list[Entry]) -> Table:
    table = _table("model", "input*", "parameters*", "operations*", "memory*", "accuracy*", "on", "licence of weights")
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.input_size} px" if entry.input_size else NONE,
            _short(entry.parameters),
            _short(entry.flops),
            NONE if entry.activations is None else in_bytes(entry.activations * FLOAT32),
            NONE if entry.accuracy is None else f"{entry.accuracy:.1%}",
            entry.dataset or NONE,
            _short_licence(entry.licence),
        )
    return table


def _one(name: str, input_size: int | None, classes: int | None, as_json: bool) -> None:
    from wellfit.models.alexnet import HISTORICAL_CHOICES
    from wellfit.models.catalogue import measure

    entry, result = measure(name, image_size=input_size, classes=classes)
    choices = HISTORICAL_CHOICES if name == "alexnet2012" else ()
    if as_json:
        values = {**entry.as_dict(), **result.as_dict()}
        if choices:
            values["historical_choices"] = [vars(choice) for choice in choices]
        print_json({"model": values.pop("name"), **values})
        return
    _print(_layer_table(result))
    hidden = [layer for layer in result.layers if not (layer.parameters or layer.activations)]
    if hidden:
        kinds = ", ".join(dict.fromkeys(layer.type for layer in hidden))
        click.echo(f"not shown: {len(hidden)} calls that hold nothing of their own ({kinds}); --json has them")
    for sentence in result.sentences:
        click.echo(sentence)
    if entry.accuracy is not None:
        changed = " The published net has another input or other classes." if input_size or classes else ""
        click.echo(
            f"Published top-1 accuracy: {entry.accuracy:.1%} on {entry.dataset} ({entry.accuracy_from}).{changed}"
        )
    if entry.licence:
        click.echo(f"Licence of the published weights: {entry.licence}.")
    if choices:
        table = _table("choice of 2012", "as it was", "still advised", "today")
        for choice in choices:
            table.add_row(choice.part, choice.then, "yes" if choice.advised else "no", choice.now)
        _print(table)


def _layer_table(result: Complexity) -> Table:
    table = _table(
        "layer", "type", "output*", "activations*", "weights*", "biases*", "operations*", "sees*", footer=True
    )
    for layer in result.layers:
        if layer.parameters or layer.activations:
            table.add_row(
                layer.name,
                layer.type,
                "not run" if layer.output_shape is None else "×".join(map(str, layer.output_shape)),
                _count(layer.activations),
                _count(layer.weights),
                _count(layer.biases),
                in_units(layer.flops) if layer.flops else NONE,
                f"{layer.receptive_field} px" if layer.receptive_field else NONE,
            )
    totals = (result.activations, result.weights, result.biases)
    cells = [
        f"{result.parameters:,} parameters",
        "",
        "",
        *(f"{total:,}" for total in totals),
        in_units(result.flops),
        "",
    ]
    for column, cell in zip(table.columns, cells, strict=True):
        column.footer = cell
    return table


def _history(as_json: bool) -> None:
    from wellfit.models.catalogue import HUMAN_TOP5_ERROR, WINNERS

    if as_json:
        print_json({"winners": [vars(winner) for winner in WINNERS], "human_top5_error": HUMAN_TOP5_ERROR})
        return
    table = _table("year*", "ILSVRC classification", "top-5 error*", "layers*", "here as", "what was new")
    for winner in WINNERS:
        layers = "shallow" if winner.layers is None else str(winner.layers)
        error = f"{winner.top5_error:g}%"
        table.add_row(str(winner.year), winner.name, error, layers, winner.here or NONE, winner.what)
    _print(table)
    click.echo(
        f"A trained person: {HUMAN_TOP5_ERROR:g}%. Ensembles of several nets; the first of their year but for VGG."
    )


def _refuse_chart(chart: str | None) -> None:
    if chart is None:
        return
    path = Path(chart)
    if path.suffix.lower() not in (".svg", ".png"):
        raise UserError(f"--chart writes an .svg or a .png file, got '{chart}'; give the file one of these endings")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--chart writes '{chart}', but there is no folder '{path.parent}'; make it first")


def _draw(entries: list[Entry], path: Path) -> int:
    from wellfit.report.static_models import Point, draw_models, draw_models_png

    points = [
        Point(entry.name, entry.flops, entry.accuracy, entry.parameters)
        for entry in entries
        if entry.flops and entry.accuracy and entry.parameters and entry.dataset == "ImageNet-1K"
    ]
    if not points:
        raise UserError(
            "the chart needs a model with a published ImageNet accuracy, and none of these has one; widen --filter"
        )
    if path.suffix.lower() == ".png":
        path.write_bytes(draw_models_png(points))
    else:
        path.write_text(draw_models(points) + "\n", encoding="utf-8")
    return len(points)


def _short(count: int | None) -> str:
    return NONE if count is None else in_units(count)


def _count(count: int) -> str:
    return f"{count:,}" if count else NONE


def _short_licence(licence: str | None) -> str:
    if licence is None:
        return NONE
    return "SWAG's own" if "SWAG" in licence else licence.partition(" (")[0]


def _table(*headings: str, footer: bool = False) -> Table:
    """A table with a heavy line under the headings; those that end in * are numbers, on the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=footer, pad_edge=False, header_style="bold", footer_style="bold")
    for heading in headings:
        numbers = heading.endswith("*")
        table.add_column(heading.rstrip("*"), justify="right" if numbers else "left", no_wrap=numbers)
    return table


def _print(table: Any) -> None:
    import shutil
    import sys

    from rich.console import Console

    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 140
    Console(width=max(width, 60), highlight=False).print(table)
