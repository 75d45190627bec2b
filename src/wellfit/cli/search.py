"""`wellfit search`: its options in words, one call, what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from wellfit import cli
from wellfit.cli.endings import command_line, say_search
from wellfit.cli.exits import print_json
from wellfit.cli.options import (
    config_of,
    config_option,
    data_options,
    force_option,
    json_option,
    log_option,
    model_options,
    out_option,
    seed_option,
)

if TYPE_CHECKING:
    from wellfit.cli.progress import ProgressDisplay


@click.command()
@click.argument("data")
@click.argument("space", metavar="[SPACE.toml]", required=False)
@click.option("--budget", metavar="TIME", help="Such as 90s, 10m, 2h; default 10m, or none with --trials.")
@click.option("--trials", type=int, metavar="N", help="Trials of the whole study, whoever runs them.")
@click.option(
    "--workers", default="auto", show_default=True, metavar="N", help="Processes here; auto measures what is fastest."
)
@click.option(
    "--storage", metavar="URL", help="postgresql://USER@HOST/DATABASE for many machines; default: the run folder."
)
@click.option("--study", metavar="NAME", help="Name of the study, the same on all machines that take part.")
@click.option("--sampler", metavar="NAME", help="random (default), qmc, tpe or grid.")
@click.option(
    "--folds",
    type=int,
    default=0,
    metavar="K",
    help="Cross-validate each trial; default: 5 below 500 images; 1: never.",
)
@out_option
@seed_option
@config_option
@click.option("--dry-run", is_flag=True, help="Print the plan of the search; train nothing.")
@force_option
@log_option
@json_option
@data_options
@model_options
def search(data: str, space: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Search for settings on DATA: short random trials first, then longer ones around the best.

    SPACE.toml says what varies, such as [lr] with log_uniform = [1e-4, 1e-1]; without it learning rate and weight decay
    are searched around the usual ones. Test images stay closed. The best settings stand in best.toml of the run:

    \b
    wellfit search photos/ --budget 30m --out runs/s
    wellfit train photos/ runs/s/best.toml
    """
    from wellfit.cli.progress import ProgressDisplay
    from wellfit.recipe.budget import parse_budget

    names = ("budget", "trials", "workers", "storage", "study", "sampler", "folds")
    asked = {name: options.pop(name) for name in names}
    out, force, log = options.pop("out"), options.pop("force"), options.pop("log")
    config = config_of(options)
    budget = asked["budget"] if asked["budget"] or asked["trials"] is not None else "10m"
    deadline = None if budget is None else cli.STARTED + parse_budget(budget)
    with ProgressDisplay(deadline=deadline) as display:
        if dry_run:
            _dry_run(data, space, config, {**asked, "budget": budget}, as_json, display)
            return
        from wellfit.recipe.searching import search as run_search

        found = run_search(
            data,
            space,
            **asked,
            out=out,
            config=config,
            force=force,
            log=log,
            command=command_line(),
            started=cli.STARTED,
            listener=display,
        )
    say_search(found, as_json)


def _dry_run(
    data: str, space: str | None, config: Any, asked: dict[str, Any], as_json: bool, display: ProgressDisplay
) -> None:
    from wellfit.recipe.search_preview import preview

    planned = preview(data, space, config=config, started=cli.STARTED, listener=display, **asked)
    if as_json:
        print_json(planned.as_dict())
    else:
        click.echo("\n".join(planned.sentences))
