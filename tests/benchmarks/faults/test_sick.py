"""The sick trainings: enough of each kind, each a sound setting with a mistake that is what its name says."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from faults.all_cases import all_cases, half
from faults.data import Images, standardise
from faults.networks import build
from faults.sick import deep, epochs, inputs, labels, loops, modes, outputs, overflow, settings
from faults.sick.plant import Planted, Setting, plant
from faults.sickness import SYMPTOMS, Seen
from torch import nn

BY_THE_MONITOR = [
    *("nan", "exploding", "lr-too-high", "lr-too-low", "not-learning", "vanishing-gradient", "dead-relu", "saturated"),
    *("bad-initialisation", "unnormalised-input", "constant-output", "frozen-parameters", "updates-too-small"),
    *("updates-too-large", "gradients-accumulate", "double-softmax", "wrong-batchnorm-mode", "oscillating"),
    *("loss-spike", "decayed-too-early", "class-collapsed", "imbalance-ignored", "labels-shuffled", "overfitting"),
    *("underfitting", "plateau", "still-improving", "train-val-mismatch"),
]


def planted(fault):
    return [c for c in all_cases().values() if c.fault == fault and isinstance(c.run, Planted)]


@pytest.mark.parametrize("fault", BY_THE_MONITOR)
def test_each_fault_is_planted_in_many_settings(fault):
    cases = planted(fault)
    counts = Counter(half(case) for case in cases)
    assert min(counts["calibrate"], counts["report"]) >= 4
    whole = [case.run.setting for case in cases]
    assert len({str(s.network) for s in whole}) >= 3
    assert len({s.data for s in whole}) >= 2
    assert len({str(s.optimizer) for s in whole}) >= 3
    assert fault in SYMPTOMS


def test_a_mistake_changes_named_fields_and_something():
    known = {field.name for field in fields(Setting)}
    for fault in BY_THE_MONITOR:
        for case in planted(fault):
            assert case.run.mistake.keys() <= known, case.name
            assert replace(case.run.setting, **case.run.mistake) != case.run.setting, case.name


def test_a_planted_fault_shows_beside_its_twin():
    setting = replace(settings.MLP_SGD, train=300, validation=100, epochs=5)
    case = plant("not-learning", "labels permuted", setting, augment=loops.labels_permuted)
    sick, twin = Seen(case.run()), Seen(case.run(sick=False))
    assert SYMPTOMS["not-learning"](sick, twin)
    assert not SYMPTOMS["not-learning"](twin, twin)
    assert case.name == "not-learning: labels permuted; mlp on digits, SGD 0.1"


def test_a_training_is_the_same_each_time():
    setting = replace(settings.LENET_ADAM, train=128, validation=50, epochs=1)
    case = plant("gradients-accumulate", "zero_grad forgotten", setting, loop=loops.NeverReset)
    assert list(case.run().history.losses) == list(case.run().history.losses)
    assert list(case.run().history.losses) != list(case.run(sick=False).history.losses)


# ---- mistakes are what they are called -------------------------------------------------------------------------


def images(count=40, channels=3, classes=4):
    draws = np.random.default_rng(0)
    return Images(
        draws.integers(0, 256, (count, 8, 8, channels), np.uint8),
        np.arange(count) % classes,
        draws.integers(0, 256, (count, 8, 8, channels), np.uint8),
        np.arange(count) % classes,
        classes,
    )


@pytest.mark.parametrize(
    "change", [outputs.softmax_around, outputs.exponentials_by_hand, outputs.exp_of_log_softmax, outputs.warm_softmax]
)
def test_softmax_answers_sum_to_one(change):
    model = change(nn.Linear(6, 5))
    answers = model(torch.randn(7, 6, generator=torch.Generator().manual_seed(0)))
    assert answers.min() >= 0
    torch.testing.assert_close(answers.sum(1), torch.ones(7))


@pytest.mark.parametrize(
    "loss", [overflow.divergence_by_hand, overflow.half_softmax, overflow.half_exponentials, overflow.hard_examples]
)
def test_losses_that_lose_their_numbers(loss):
    sure = torch.tensor([[30.0, -30.0], [-30.0, 30.0]])
    wrong = loss is overflow.half_softmax
    assert not torch.isfinite(loss(sure, torch.tensor([1, 0] if wrong else [0, 1])))


def test_pixels_of_other_images():
    x = torch.arange(24.0).reshape(4, 2, 1, 3)
    y = torch.arange(4)
    for mix in (loops.pixels_of_all_images, loops.channels_into_images):
        mixed, same = mix(x, y)
        assert mixed.shape == x.shape
        assert sorted(mixed.flatten().tolist()) == x.flatten().tolist()
        assert set(mixed[0].flatten().tolist()) != set(x[0].flatten().tolist())
        assert same is y


def test_rare_classes_keep_every_fourth():
    thinned = labels.rare(4, 1, 2)(images())
    assert np.bincount(thinned.train_labels).tolist() == [10, 3, 3, 10]
    assert len(thinned.train) == len(thinned.train_labels) == 26


def test_another_listing_renumbers_every_class():
    renumbered = labels.by_listing(np.arange(10))
    assert sorted(renumbered) == list(range(10))
    assert (renumbered != np.arange(10)).all()


def test_shuffled_labels_keep_their_counts():
    original = np.repeat(np.arange(5), 20)
    for change in (labels.shuffled, labels.off_by_one, labels.backwards, np.sort):
        changed = change(original[np.random.default_rng(1).permutation(100)])
        assert np.bincount(changed).tolist() == [20] * 5
    assert labels.off_by_one(np.array([1, 2, 3])).tolist() == [3, 1, 2]


def test_inputs_off_scale():
    grey = images(channels=1)
    assert inputs.raw(grey).train.max() > 250
    assert inputs.divided_twice(grey).train.max() < 0.005
    assert inputs.from_below(grey).train.max() <= 0
    assert inputs.mean_in_the_other_scale(grey).train.std() < 0.01


def test_a_mismatch_leaves_the_training_images_as_they_were():
    data = images()
    sound = standardise(data)
    for change in (
        inputs.validation_raw,
        inputs.validation_blue_first,
        inputs.validation_twice,
        inputs.validation_grey,
        inputs.validation_enlarged,
        inputs.validation_centred,
    ):
        changed = change(data)
        assert torch.equal(changed.train, sound.train)
        assert changed.validation.shape == sound.validation.shape
        assert not torch.allclose(changed.validation, sound.validation)


def test_batchnorm_constants():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    modes.constant(0.001)(model)
    assert model[1].momentum == 0.001
    modes.statistics_off(model)
    model.eval()
    x = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([model(one) for one in x.split(1)])
    assert not torch.allclose(model(x), alone)


def test_units_that_cannot_be_active():
    data = standardise(images())
    model = build("vgg", data)
    deep.negative_weights(model)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.zeros_(layer.bias)
    second = model[:5](data.train)
    assert isinstance(model[4], nn.ReLU)
    assert float(second.detach().max()) == 0


def test_guessed_labels_are_the_share_that_was_asked_for():
    data = images(4000)
    changed = epochs.mislabelled(0.4)(data)
    # A guess is right by chance one time in four.
    assert (changed.train_labels != data.train_labels).mean() == pytest.approx(0.4 * 0.75, abs=0.03)
    assert len(epochs.first(7)(data).train) == len(epochs.first(7)(data).train_labels) == 7
