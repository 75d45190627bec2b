"""`activation` and [model.options] on their way from the configuration to the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wellfit
from tests.recipe.plans import longer, small_plan, write_plan
from wellfit.config import Config, config_from_dict, load_config
from wellfit.errors import UserError
from wellfit.models.layers.activations import Maxout
from wellfit.models.layers.pooling import FractionalMaxPool
from wellfit.models.saved import load_model
from wellfit.recipe import model_choice, steps
from wellfit.recipe.model_options import fits_published_weights, model_options
from wellfit.recipe.names import refuse_unknown_names
from wellfit.recipe.plan import ChecksPlan


def configured(name: str = "auto", activation: str = "auto", /, **options: object) -> Config:
    return Config().replace(activation=activation, **{"model.name": name, "model.options": options})


def test_an_activation_joins_the_options_and_auto_adds_nothing() -> None:
    assert model_options(configured("resnet20", "gelu", dropout=0.1)) == {"dropout": 0.1, "activation": "gelu"}
    assert model_options(configured("resnet20", dropout=0.1)) == {"dropout": 0.1}
    assert model_options(Config()) == {}


@pytest.mark.parametrize("side", [32, 224])
def test_every_net_that_wellfit_may_choose_is_given_the_activation(side: int) -> None:
    class Data:
        short_side = side

    for candidate in model_choice._candidates(configured("auto", "maxout"), Data()):
        assert candidate.options["activation"] == "maxout"
        net = model_choice.build(candidate.name, 3, image_size=candidate.image_size, **candidate.options).module
        assert any(isinstance(layer, Maxout) for layer in net.modules())
    assert all("activation" not in c.options for c in model_choice._candidates(Config(), Data()))


def test_published_weights_are_for_the_layers_that_they_were_trained_with() -> None:
    assert fits_published_weights(Config())
    assert fits_published_weights(configured("resnet18", "relu", dropout=0.5, normalization="batch"))
    assert not fits_published_weights(configured("resnet18", "gelu"))
    assert not fits_published_weights(configured("resnet18", normalization="group"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (configured("auto", "gleu"), r"unknown activation 'gleu' \(did you mean 'gelu'\?\)"),
        (configured("torchvision:resnet18", "gelu"), "wellfit's own nets .*and 'torchvision:resnet18' brings its own"),
        (configured("timm:resnet18", "relu"), "'timm:resnet18' brings its own"),
        (configured("resnet20", "gelu", activation="relu"), r"'gelu' at the top .* 'relu' in \[model.options\]"),
        (configured("resnet20", normalization="bacth"), "did you mean 'batch'"),
        (configured("lenet5", drop_out=0.1), r"unknown option of model 'lenet5' 'drop_out' \(did you mean 'dropout'"),
        (configured("resnet20", drop_connect=1.5), "drop_connect is the probability to drop, .* got 1.5"),
        (configured(dropout=0.5), "belong to a model, got dropout and model.name = 'auto'"),
    ],
)
def test_slips_are_said_before_any_image_is_read(config: Config, says: str) -> None:
    with pytest.raises(UserError, match=says):
        refuse_unknown_names(config)


@pytest.mark.parametrize("activation", ["maxout", "torch.nn:Softplus"])
def test_what_can_be_asked_for_is_let_through(activation: str) -> None:
    refuse_unknown_names(configured("resnet20", activation, dropout=0.5, stochastic_depth=0.2))
    refuse_unknown_names(configured("auto", activation))
    refuse_unknown_names(config_from_dict({"activation": "gelu"}))


def test_a_run_keeps_its_layers_and_is_read_back_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "write_report", lambda folder: None)
    options = {
        "activation": "maxout",
        "normalization": "batch",
        "dropout": 0.1,
        "dropout_form": "vanilla",
        "drop_connect": 0.1,
        "pooling": "fractional",
    }
    model = replace(small_plan().model, name="lenet5", image_size=16, options=options)
    plan = write_plan(
        tmp_path / "plan.toml",
        seed=3,
        model=model,
        search=replace(small_plan().search, coarse_trials=0, fine_trials=0),
        training=longer(60),
        checks=ChecksPlan(small_sample_steps=5, lr_iterations=10),
    )
    # The gates have steps enough to run and too few to pass.
    runs = [wellfit.fit("digits", plan=plan, out=tmp_path / out, force=True) for out in ("one", "two")]
    assert runs[0].test_accuracy is not None
    assert runs[0].test_accuracy > 0.3  # guessing gives 0.1
    one, two = ((run.path / "model.safetensors").read_bytes() for run in runs)
    assert one == two, "all draws have their keys"
    config = load_config(runs[0].path / "config.toml")
    assert config.activation == "maxout"
    refuse_unknown_names(config)
    module, _ = load_model(runs[0].folder)
    pool = next(layer for layer in module.modules() if isinstance(layer, FractionalMaxPool))
    assert torch.equal(pool.regions, FractionalMaxPool(seed=3).regions), "it pools as it did when it was judged"
