"""The options that several commands share, and the configuration that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from wellfit.config import Config


def _options(*decorators: Any) -> Any:
    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


data_options = _options(
    click.option("--image-column", default="image", metavar="NAME", help="Manifest column with the file names."),
    click.option("--label-column", default="label", metavar="NAME", help="Manifest column with the labels."),
    click.option("--group-column", metavar="NAME", help="Images of one group stay on one side of the split."),
    click.option("--test", metavar="DIR", help="Another folder or archive that holds the test images."),
)
model_options = _options(
    click.option(
        "--model", metavar="NAME", help="A model by name, or package.module:Name; default: chosen by the plan."
    ),
    click.option("--weights", metavar="W", help="imagenet, none, or a weight file; default: imagenet where at hand."),
    click.option("--image-size", type=int, metavar="PX", help="Side of the network's input in pixels."),
    click.option("--metric", metavar="NAME", help="What is maximised: accuracy, balanced_accuracy or macro_f1."),
    click.option("--optimizer", metavar="NAME", help="sgd, momentum, nesterov, adamw, …, or package.module:name."),
    click.option("--lr", type=float, metavar="RATE", help="Learning rate; default: found by the search."),
    click.option("--weight-decay", type=float, metavar="D", help="Weight decay; default: found by the search."),
    click.option("--device", metavar="NAME", help="cpu, cuda or mps; default: probed."),
    click.option("--dtype", metavar="NAME", help="float32 or bfloat16; default: probed."),
    click.option("--threads", type=int, metavar="N", help="CPU threads; default: probed."),
)
seed_option = click.option("--seed", type=int, metavar="N", help="Seed of every random draw; default 0.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line of stdout.")
budget_option = click.option("--budget", default="10m", show_default=True, metavar="TIME", help="Such as 90s, 10m, 2h.")
out_option = click.option("--out", metavar="DIR", help="The run folder; default: a new one under runs/.")
force_option = click.option("--force", is_flag=True, help="Go on where a check fails.")
views_option = click.option(
    "--views",
    metavar="NAME",
    help="Views of each image, answers averaged: none, flip, shift, five, ten or all (50); default: the run's own.",
)
ending_options = _options(
    click.option(
        "--views",
        metavar="NAME",
        help="Test-time views: auto (kept where validation gains), none, flip, shift, five, shift-flip, ten or all.",
    ),
    click.option(
        "--ensemble",
        metavar="N",
        help="auto (kept where validation gains), none, or how many networks are trained from seeds of their own; "
        "after a probe of pretrained weights, how many stages are averaged.",
    ),
    click.option(
        "--split-seed",
        type=int,
        metavar="N",
        help="Seed of the splits alone, the same for runs to be joined; default: --seed.",
    ),
)
log_option = click.option(
    "--log", multiple=True, metavar="TOOL", help="Show it in tensorboard, wandb or mlflow too; may be repeated."
)
config_option = click.option("--config", "config_file", metavar="FILE", help="A TOML configuration to start from.")


def config_of(settings: dict[str, Any]) -> Config:
    """The configuration that the options describe, on top of --config where given."""
    from wellfit.config import Config, load_config

    keys = {
        "seed": "seed",
        "metric": "metric",
        "image_column": "data.image_column",
        "label_column": "data.label_column",
        "group_column": "data.group_column",
        "test": "data.test",
        "model": "model.name",
        "weights": "model.weights",
        "image_size": "model.image_size",
        "optimizer": "optimizer.name",
        "lr": "optimizer.lr",
        "weight_decay": "optimizer.weight_decay",
        "device": "engine.device",
        "dtype": "engine.dtype",
        "threads": "engine.threads",
        "views": "views",
        "ensemble": "ensemble",
        "split_seed": "data.split_seed",
    }
    file = settings.pop("config_file", None)
    config = load_config(file) if file else Config()
    given = {keys[name]: value for name, value in settings.items() if value is not None}
    return config.replace(**given)
