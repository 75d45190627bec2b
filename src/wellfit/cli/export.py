"""`wellfit export`: a run's model as one file for other programs."""

from __future__ import annotations

import click

from wellfit.cli.exits import print_json
from wellfit.cli.options import json_option


@click.command()
@click.argument("run")
@click.option("--to", required=True, metavar="FORMAT", help="onnx, torchscript or safetensors (weights alone).")
@click.option("--out", metavar="FILE", help="The file; default: in RUN/export/.")
@click.option("--fixed", is_flag=True, help="Take images of the network's own size; no resize in the file.")
@json_option
def export(run: str, to: str, out: str | None, fixed: bool, as_json: bool) -> None:
    """Write RUN's model as one file that needs no wellfit.

    ONNX and TorchScript files hold the preprocessing: they take uint8 RGB images of any size, N×3×H×W, and give the
    probabilities of the classes, which the file names. Each file is tried before it is written. The
    test-time views that RUN uses are part of it; with --fixed only flip can be, and a note says where others are left
    out.
    """
    from wellfit.inference.export import export_model

    result = export_model(run, to, out, fixed=fixed)
    if as_json:
        print_json(result)
        return
    click.echo(f"{result['file']} ({result['bytes'] / 1e6:.1f} MB)")
    click.echo(f"  in   {result['input']}")
    click.echo(f"  out  {result['output']}")
    if result["checked"]:
        tried = result["checked"]
        click.echo(
            f"  tried with {tried['against']} on {tried['images']} images of several sizes: probabilities agree "
            f"with the network's within {max(tried['difference'], 1e-9):.0e}"
        )
    for note in result["notes"]:
        click.echo(f"note: {note}", err=True)
