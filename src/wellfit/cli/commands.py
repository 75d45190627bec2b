"""Every command: its options in words, one call, what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wellfit import __version__, cli
from wellfit.cli.compare import compare
from wellfit.cli.dashboard import dashboard
from wellfit.cli.endings import command_line, say_run, say_search
from wellfit.cli.ensemble import ensemble
from wellfit.cli.exits import print_json
from wellfit.cli.export import export
from wellfit.cli.models import models
from wellfit.cli.neighbours import neighbours
from wellfit.cli.options import (
    budget_option,
    config_of,
    config_option,
    data_options,
    ending_options,
    force_option,
    json_option,
    log_option,
    model_options,
    out_option,
    seed_option,
    views_option,
)
from wellfit.cli.runs import runs
from wellfit.cli.search import search
from wellfit.errors import UserError

if TYPE_CHECKING:
    from wellfit.config import Config

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=HELP)
@click.version_option(__version__, message="wellfit %(version)s")
def wellfit() -> None:
    """Labelled images and a time budget in; a model, a report and the evidence out.

    \b
    wellfit fit photos/                 a folder with one sub-folder a class
    wellfit fit digits --budget 40s     the built-in digits, to see it work
    wellfit explain lr-too-high         any finding, in a paragraph
    """


@wellfit.command()
@click.argument("data")
@budget_option
@out_option
@seed_option
@config_option
@click.option("--plan", "plan_file", metavar="FILE", help="Repeat this plan.toml, with no deadline.")
@click.option("--from", "start_from", metavar="RUN", help="Go on from an earlier run's model.")
@click.option("--dry-run", is_flag=True, help="Print the plan and what it would cost; train nothing.")
@force_option
@log_option
@json_option
@data_options
@model_options
@ending_options
def fit(
    data: str,
    budget: str,
    out: str | None,
    plan_file: str | None,
    start_from: str | None,
    dry_run: bool,
    force: bool,
    log: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Run the whole recipe on DATA: check, search, train, average, evaluate, report.

    DATA is a folder of class folders (with or without train/ val/ test/), a .zip or .tar of one, a CSV or Parquet
    manifest, MNIST or CIFAR files, an .npz, or the word digits.
    """
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe import api
    from wellfit.recipe.budget import parse_budget

    seconds = parse_budget(budget)
    if plan_file:
        _refuse_beside_plan(plan_file, {"from": start_from, **settings})
    config = config_of(settings)
    deadline = None if plan_file else cli.STARTED + seconds
    with ProgressDisplay(deadline=deadline) as display:
        if dry_run:
            _dry_run(data, budget, config, plan_file, start_from, as_json, display)
            return
        run = api.fit(
            data,
            budget=budget,
            out=out,
            config=config,
            plan=plan_file,
            start_from=start_from,
            force=force,
            log=log,
            command=command_line(),
            started=cli.STARTED,
            listener=display,
        )
    say_run(run, as_json)


@wellfit.command()
@click.argument("run")
@click.option("--storage", metavar="URL", help="Of a search: its study's address, where that holds a password.")
@json_option
def resume(run: str, storage: str | None, as_json: bool) -> None:
    """Take up a killed or stopped RUN, or search, where it stood."""
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe import api
    from wellfit.recipe.run import Run

    with ProgressDisplay() as display:
        resumed = api.resume(run, storage=storage, started=cli.STARTED, listener=display)
    if isinstance(resumed, Run):
        say_run(resumed, as_json)
    else:
        say_search(resumed, as_json)


@wellfit.command()
@click.argument("data")
@click.argument("config_file", metavar="CONFIG")
@budget_option
@out_option
@force_option
@log_option
@json_option
def train(
    data: str, config_file: str, budget: str, out: str | None, force: bool, log: tuple[str, ...], as_json: bool
) -> None:
    """Train on DATA as CONFIG (a run's config.toml, or your own) says, without a search."""
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.config import load_config
    from wellfit.recipe import api
    from wellfit.recipe.budget import parse_budget

    config = load_config(config_file)
    with ProgressDisplay(deadline=cli.STARTED + parse_budget(budget)) as display:
        run = api.train(
            data,
            config,
            out=out,
            budget=budget,
            force=force,
            log=log,
            command=command_line(),
            started=cli.STARTED,
            listener=display,
        )
    say_run(run, as_json)


@wellfit.command()
@click.argument("data")
@json_option
@data_options
def audit(data: str, as_json: bool, **settings: Any) -> None:
    """Look at DATA before anything trains: bad files, duplicates, classes, labels."""
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe import api

    with ProgressDisplay() as display:
        result = api.audit(data, config=config_of(settings), listener=display)
        if not as_json:
            click.echo(f"{result['images']:,} usable images in {len(result['classes'])} classes")
            width = max(len(name) for name in result["classes"])
            for name, count in result["classes"].items():
                click.echo(f"  {name:<{width}}  {count:,}")
            for item in result["left_out"]:
                click.echo(f"left out: {item['file']}: {item['reason']}")
            for finding in result["findings"]:
                display("finding", finding)
    if as_json:
        print_json(result)


@wellfit.command()
@click.argument("data")
@seed_option
@config_option
@click.option("--budget", default="2m", show_default=True, metavar="TIME", help="Time for the checks.")
@json_option
@data_options
@model_options
def check(data: str, budget: str, as_json: bool, **settings: Any) -> int:
    """Check DATA and a model before training; exit code 1 when a check fails."""
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe import api

    with ProgressDisplay() as display:
        result = api.check(data, config=config_of(settings), budget=budget, listener=display)
    if as_json:
        print_json({key: result[key] for key in ("passed", "checks", "findings")})
    else:
        failed = [check["check"] for check in result["checks"] if not check["passed"]]
        click.echo("every check passed" if not failed else f"failed: {', '.join(failed)}")
    return 0 if result["passed"] else 1


@wellfit.command()
@click.argument("run")
@click.argument("data")
@views_option
@json_option
@data_options
def evaluate(run: str, data: str, views: str | None, as_json: bool, **settings: Any) -> None:
    """Judge RUN's model on labelled images it has not seen."""
    from wellfit.recipe.evaluation import evaluate_run

    figures = evaluate_run(run, data, config_of(settings).data, views=views)
    if as_json:
        print_json(figures)
        return
    low, high = figures["interval"]
    click.echo(
        f"accuracy {figures['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}) on {figures['images']:,} images"
    )
    click.echo(f"balanced accuracy {figures['balanced_accuracy']:.4f}, macro F1 {figures['macro_f1']:.4f}")
    for row in figures["per_class"]:
        recall, precision = _share(row["recall"]), _share(row["precision"])
        click.echo(f"  {row['class']}: {row['images']:,} images, recall {recall}, precision {precision}")
    for item in figures["left_out"]:
        click.echo(f"left out: {item['file']}: {item['reason']}", err=True)


@wellfit.command()
@click.argument("run")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--abstain", type=float, metavar="RATE", help="Give no label where more than RATE of answers would be wrong."
)
@views_option
@click.option("--csv/--json", "as_csv", default=False, help="Lines of CSV or of JSON; default: JSON.")
def predict(run: str, files: tuple[str, ...], abstain: float | None, views: str | None, as_csv: bool) -> int:
    """Name the class of each image: one line of JSON (or CSV) a file; a bad file is named and passed over."""
    from wellfit.cli.predictions import write_csv, write_json_lines
    from wellfit.inference.predict import predict as predictions
    from wellfit.record import RunFolder

    folder = RunFolder.open(run)
    names = _expand(files)
    write = write_csv if as_csv else write_json_lines
    return write(folder, predictions(folder, names, abstain=abstain, views=views))


@wellfit.command()
@click.argument("run")
@json_option
def report(run: str, as_json: bool) -> None:
    """Write RUN's report.html anew from its record."""
    from wellfit.record import RunFolder
    from wellfit.report.page import write_report

    path = write_report(RunFolder.open(run))
    if as_json:
        print_json({"run": run, "report": str(path)})
    else:
        click.echo(str(path))


@wellfit.command()
@click.argument("run")
@json_option
def show(run: str, as_json: bool) -> None:
    """RUN, or search, in the terminal: verdict, curves as sparklines, trials and stages, findings."""
    from wellfit.record import RunFolder

    if as_json:
        from wellfit.recipe.run import Run
        from wellfit.recipe.search_run import SearchRun, is_search

        folder = RunFolder.open(run)
        print_json((SearchRun(folder) if is_search(folder) else Run(folder)).as_dict())
        return
    import shutil
    import sys

    from wellfit.report.terminal import WIDTH
    from wellfit.report.terminal import show as show_run

    width = min(WIDTH, max(40, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else WIDTH
    click.echo(show_run(RunFolder.open(run), width))


@wellfit.command()
@click.argument("finding")
@json_option
def explain(finding: str, as_json: bool) -> None:
    """Any finding, in a paragraph: what it means, the usual causes, what to do."""
    from wellfit.findings import explain as paragraph
    from wellfit.findings import explanations

    text = paragraph(finding)
    if as_json:
        print_json({"id": finding, **explanations()[finding]})
    else:
        click.echo(text)


wellfit.add_command(models)
wellfit.add_command(compare)
wellfit.add_command(dashboard)
wellfit.add_command(ensemble)
wellfit.add_command(export)
wellfit.add_command(neighbours)
wellfit.add_command(search)
wellfit.add_command(runs)

# Options that a plan decides.
PINNED = (
    "from",
    "model",
    "weights",
    "image_size",
    "metric",
    "optimizer",
    "lr",
    "weight_decay",
    "device",
    "dtype",
    "threads",
    "views",
    "ensemble",
)


def _refuse_beside_plan(plan_file: str, settings: dict[str, Any]) -> None:
    """UserError for an option that a plan decides: it would have no effect, and nobody would be told."""
    from wellfit.recipe.plan import load_plan

    plan = load_plan(plan_file)
    given = [name for name in PINNED if settings.get(name) is not None]
    if settings.get("seed") not in (None, plan.seed):
        given.append("seed")
    if given:
        raise UserError(
            f"--plan repeats '{plan_file}' as it stands, so --{given[0].replace('_', '-')} cannot be given beside it; "
            "leave one of the two out"
        )


def _dry_run(
    data: str, budget: str, config: Config, plan_file: str | None, start_from: str | None, as_json: bool, display: Any
) -> None:
    from dataclasses import asdict

    from wellfit.recipe import api
    from wellfit.recipe.budget import in_words
    from wellfit.recipe.plan import load_plan, plan_in_words

    costs: dict[str, float] = {}
    if plan_file:
        plan = load_plan(plan_file)
    else:
        plan, costs = api.plan_only(
            data, budget=budget, config=config, started=cli.STARTED, listener=display, start_from=start_from
        )
    if as_json:
        print_json({"plan": asdict(plan), "expected_seconds": {name: round(s, 1) for name, s in costs.items()}})
        return
    click.echo("\n".join(plan_in_words(plan)))
    parts = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in costs.items() if seconds)
    known = f"{parts}; at most {budget} in all" if parts else "as long as these steps take"
    click.echo(f"cost       {known}; nothing was trained")


def _expand(files: tuple[str, ...]) -> list[str]:
    """A folder stands for the files in it, so that shells without wildcards work too."""
    names: list[str] = []
    for file in files:
        path = Path(file)
        inside = (
            sorted(str(p) for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if path.is_dir()
            else None
        )
        if inside == []:
            raise UserError(f"'{file}' holds no files to predict; give image files or a folder of them")
        names.extend(inside if inside is not None else [file])
    return names


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
