"""Augmentations and losses that do not go together are refused before an image is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.recipe.plans import small_plan
from wellfit.config import Config, load_config
from wellfit.errors import UserError
from wellfit.models.zoo import build
from wellfit.recipe.api import fit
from wellfit.recipe.names import refuse_unfit_weights, refuse_unknown_names
from wellfit.recipe.plan import SearchPlan, load_plan, save_plan

BOTH = r"mixing \(mixup\) blends the labels .* and the hinge loss takes one an image; use"


def test_mixing_with_the_hinge_loss_names_both_sides() -> None:
    with pytest.raises(UserError, match=BOTH):
        refuse_unknown_names(Config(loss="hinge", augment=("flip", "mixup=0.4")))
    with pytest.raises(UserError, match=r"mixing \(mixup, cutmix\) blends"):
        refuse_unknown_names(Config(loss="hinge", augment=("mixup", "cutmix")))
    refuse_unknown_names(Config(loss="cross-entropy", augment=("flip", "mixup")))
    refuse_unknown_names(Config(loss="hinge", augment=("flip", "cutout=0.25")))


def test_a_plan_with_both_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    plan = replace(small_plan(), loss="hinge", augment=("mixup",))
    save_plan(tmp_path / "plan.toml", plan)
    broken = tmp_path / "broken"
    broken.mkdir()  # a folder without an image: reading it would be another mistake
    with pytest.raises(UserError, match=BOTH):
        fit(broken, plan=tmp_path / "plan.toml", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_augmentations_slip_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown augmentation 'cutot' \(did you mean 'cutout'\?\)"):
        refuse_unknown_names(Config(augment=("cutot=0.2",)))


def test_a_run_takes_several_with_their_strengths(tmp_path: Path) -> None:
    augment = ("rotate=10", "lens", "randaugment=5", "cutout=0.25", "mixup=0.2", "cutmix")
    save_plan(tmp_path / "plan.toml", small_plan(augment=augment, search=SearchPlan()))
    run = fit("digits", plan=tmp_path / "plan.toml", out=tmp_path / "run")
    assert run.test_accuracy is not None
    assert run.test_accuracy > 0.3  # 60 steps on heavily changed digits; one in ten by chance
    assert load_plan(run.folder.plan).augment == augment
    assert load_config(run.folder.config).augment == augment


@pytest.mark.parametrize("word", ["auto", "none"])
def test_the_words_for_all_and_nothing_stand_alone(word: str) -> None:
    refuse_unknown_names(Config(augment=(word,)))
    with pytest.raises(UserError, match=f"augment = '{word}' stands alone"):
        refuse_unknown_names(Config(augment=(word, "flip")))


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("lenet5", {"pooling": "fractional", "pooling_ratio": 0.9}, "a ratio above 1, and a ratio of 0.9 would not"),
        ("alexnet2012", {"towers": 3}, "1 or 2 towers, got 3"),
        ("plain20", {"stochastic_depth": 0.2}, "for a plain net"),
        ("mlp", {"initialisation": "xavierr"}, "did you mean 'xavier'"),
    ],
)
def test_what_a_constructor_refuses_is_said_before_an_image_is_read(
    model: str, options: dict[str, object], sentence: str
) -> None:
    asked = Config().replace(**{"model.name": model, "model.options": options})
    with pytest.raises(UserError, match=sentence):
        refuse_unknown_names(asked)
    refuse_unknown_names(asked.replace(**{"model.options": {}}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training.batch_scale": 4}, "whole split as one batch, got training.batch_scale 4"),
        ({"training.average": 0.99}, "training.average 0.99"),
    ],
)
def test_lbfgs_overrides_nothing_in_silence(changes: dict[str, object], sentence: str) -> None:
    from wellfit.recipe.full_batch import settle

    asked = Config().replace(**{"optimizer.name": "lbfgs"})
    assert settle(asked).training.average == 0.0
    with pytest.raises(UserError, match=sentence):
        settle(asked.replace(**changes))


def test_a_long_table_lists_what_begins_alike() -> None:
    with pytest.raises(UserError, match=r"unknown model 'vgg61' .* such as vgg11, "):
        refuse_unknown_names(Config().replace(**{"model.name": "vgg61"}))


def asked(weights: Path | str, model: str = "resnet20") -> Config:
    return Config().replace(**{"model.name": model, "model.weights": str(weights), "model.image_size": 32})


def test_weights_that_do_not_fit_are_refused_before_the_data_are_read(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    torch.save(
        {f"module.{name}": value for name, value in build("resnet20", 7, image_size=32).module.state_dict().items()},
        weights,
    )
    refuse_unfit_weights(asked(weights))  # seven classes are no fault
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    wrong = [
        (asked(weights, "resnet32"), "does not fit"),
        (asked(text), "cannot be read"),
        (asked(tmp_path / "no.pth"), "no.pth"),
    ]
    broken = tmp_path / "broken"
    broken.mkdir()  # a folder without an image: reading it would be another mistake
    for config, said in wrong:
        with pytest.raises(UserError, match=said):
            fit(broken, config=config, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"no --model was given, so 'resnet18' was tried"):
        refuse_unfit_weights(asked(weights, "auto"))
