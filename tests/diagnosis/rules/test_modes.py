"""wrong-batchnorm-mode: named where BatchNorm runs in the wrong mode, silent where a mode is a choice."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

from tests.diagnosis.conftest import cnn, digits, mlp
from wellfit.diagnosis.history import BatchNorm, Epoch, History, Modes, Passes, Sample
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.rules import RULES
from wellfit.diagnosis.turns import is_watched

NAME = "wrong-batchnorm-mode"
TRAIN, BATCH = 1200, 64


class Loop:
    """A loop as people write it; a mistake is a method that does otherwise."""

    def begin(self, model):
        model.train()

    def before_validation(self, model):
        model.eval()

    def after_training(self, model):
        pass

    def trained(self, model, epochs=3, every=10):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05, momentum=0.9)
        x, y = digits()
        order = torch.Generator().manual_seed(0)
        with Monitor(model, optimizer, every=every) as monitor:
            for _ in range(epochs):
                self.begin(model)
                for rows in torch.randperm(TRAIN, generator=order).split(BATCH):
                    loss = F.cross_entropy(model(x[rows]), y[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    monitor.step(loss, targets=y[rows])
                self.after_training(model)
                self.before_validation(model)
                with torch.no_grad():
                    right = [model(x[i : i + 100]).argmax(1) == y[i : i + 100] for i in range(TRAIN, len(x), 100)]
                monitor.end_epoch(val_accuracy=float(torch.cat(right).float().mean()))
        return monitor

    def finding(self, model, **settings):
        monitor = self.trained(model, **settings)
        assert NAME not in monitor.unjudged
        return RULES[NAME].judge(monitor.history)


class Healthy(Loop):
    pass


class FrozenBatchNorm(Loop):
    def begin(self, model):
        model.train()
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval()


class MonteCarlo(Loop):
    def before_validation(self, model):
        model.eval()
        for m in model.modules():
            if isinstance(m, nn.Dropout):
                m.train()


class Averaged(Loop):
    def after_training(self, model):
        update_bn(list(digits()[0][:600].split(64)), model)


class NoTrain(Loop):
    def begin(self, model):
        pass


class NoTrainAtAll(Loop):
    def begin(self, model):
        model.eval()


class NoEval(Loop):
    def before_validation(self, model):
        pass


def pretrained():
    torch.manual_seed(0)
    model = cnn()
    Healthy().trained(model, epochs=1)
    return model


def with_momentum(momentum):
    def make():
        model = cnn()
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = momentum
        return model

    return make


@pytest.mark.parametrize(
    ("loop", "make"),
    [
        (Healthy, cnn),
        (Healthy, mlp),
        (NoTrainAtAll, mlp),
        (NoEval, mlp),
        (MonteCarlo, lambda: nn.Sequential(cnn(), nn.Dropout(0.2))),
        (Averaged, cnn),
        (FrozenBatchNorm, pretrained),
        (Healthy, with_momentum(0.01)),
        (Healthy, with_momentum(None)),
    ],
)
def test_silent_where_nothing_is_wrong(loop, make):
    assert loop().finding(make(), epochs=8) is None


def test_silent_where_only_a_head_is_trained_on_a_network_in_evaluation_mode():
    model = pretrained()
    for p in model[:-1].parameters():
        p.requires_grad_(False)
    assert NoTrainAtAll().finding(model) is None


def test_named_where_train_is_forgotten_after_validation():
    finding = NoTrain().finding(cnn())
    first = next(step for step in range(19, 40) if is_watched(step, 10))  # an epoch has 19 steps
    assert f"training ran in evaluation mode since step {first}" in finding.message
    assert finding.evidence["was_training"]
    assert "model.train()" in finding.action


def test_named_where_a_network_trains_in_evaluation_mode_from_the_start():
    monitor = NoTrainAtAll().trained(cnn(), epochs=1)
    finding = RULES[NAME].judge(monitor.history.until(13))
    assert "from the first step on" in finding.message
    assert finding.severity == "error"  # 0 and 1 are far from any batch


def test_named_where_eval_is_forgotten_before_validation():
    finding = NoEval().finding(cnn(), epochs=2)
    assert "validation of epoch 2 ran in training mode" in finding.message
    assert finding.evidence["epochs"] == [1, 2]
    assert "model.eval()" in finding.action


@pytest.mark.parametrize(("momentum", "words"), [(0.99, "set momentum to 0.01"), (1e-4, "do not follow")])
def test_named_where_the_momentum_is_that_of_another_framework(momentum, words):
    finding = Healthy().finding(with_momentum(momentum)(), epochs=8)
    assert words in f"{finding.message} {finding.action}".lower()


@pytest.mark.parametrize(("size", "left_over", "named"), [(1, 0, True), (2, 1, True), (25, 1, False), (25, 0, False)])
def test_named_where_single_images_are_normalised_by_themselves(size, left_over, named):
    model = cnn()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.track_running_stats, m.running_mean, m.running_var = False, None, None
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer)
    x, y = digits()
    for step in range(20):
        loss = F.cross_entropy(model(x[step * 32 :][:32]), y[step * 32 :][:32])
        loss.backward()
        optimizer.step()
        monitor.step(loss)
    model.eval()
    with torch.no_grad():
        for images in x[1200 : 1200 + 4 * size + left_over].split(size):
            model(images)
    monitor.end_epoch(val_accuracy=0.3)
    finding = RULES[NAME].judge(monitor.history)
    assert (finding is not None) == named
    assert not named or f"on batches of {size}," in finding.message


# ---- histories written by hand ---------------------------------------------------------------------------


def history(*, training=True, evaluating=False, gap=0.0, passes=None, momentum=0.1, steps=400, figures=0.5):
    modes = Modes(training, np.array([evaluating] * 2), np.full(2, gap), np.full(2, gap))
    norms = np.ones(1)
    samples = [Sample(s, norms, 0.01 * norms, norms, modes=modes) for s in range(0, steps, 10)]
    epochs = [Epoch(steps, val_accuracy=figures, passes=passes)]
    layers = [BatchNorm("a", momentum=momentum), BatchNorm("b", momentum=momentum)]
    return History(losses=[1.0] * steps, samples=samples, epochs=epochs, batchnorms=layers)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, False),
        ({"training": False, "evaluating": True}, True),
        ({"training": False}, False),  # its BatchNorm layers do train
        ({"evaluating": True}, False),  # BatchNorm alone is frozen
        ({"evaluating": True, "gap": 2.0}, True),  # with statistics of no batch
        ({"evaluating": True, "gap": 0.4}, False),
        ({"passes": Passes(5, training=5, by_batch=5)}, True),
        ({"passes": Passes(5, training=5, by_batch=0)}, False),  # in training mode but for BatchNorm
        ({"passes": Passes(5, training=2, by_batch=2)}, False),  # the others were the validation
        ({"passes": Passes(5, training=5, by_batch=5, closing=False)}, False),
        ({"passes": Passes(5, training=5, by_batch=5), "figures": None}, False),  # no figures rest on them
        ({"momentum": 1e-4, "gap": 2.0}, True),
        ({"momentum": 1e-4, "gap": 0.1}, False),  # pretrained: they fit already
        ({"momentum": 0.1, "gap": 2.0}, False),  # they follow, the network runs ahead
        ({"momentum": 0.9}, True),
        ({"momentum": 0.9, "evaluating": True}, False),  # nothing is collected
    ],
)
def test_histories_written_by_hand(changed, named):
    seen = history(**changed)
    before = copy.deepcopy(seen.losses)
    assert (RULES[NAME].judge(seen) is not None) == named
    assert seen.losses == before


def held(where=(), gaps=2.0, start=0, **changes):
    """BatchNorm layers in evaluation mode in a network that trains; `where`: watched steps at which they are not."""
    made = history(evaluating=True, steps=100)
    gaps = np.broadcast_to(gaps, 10)
    made.samples = [
        replace(s, step=s.step + start, modes=Modes(True, np.full(2, i not in where), *np.full((2, 2), gaps[i])))
        for i, s in enumerate(made.samples)
    ]
    return replace(made, losses=[2.0] * (100 + start), classes=10, **changes)


def test_named_where_batchnorm_alone_never_normalised_by_a_batch():
    found = RULES[NAME].judge(held())
    assert found.severity == "warning"
    assert "2 BatchNorm layers have been in evaluation mode from the first step on" in found.message
    assert found.evidence == {"layers": 2, "mean_gap": 2.0, "var_gap": 2.0}
    assert "model.train()" in found.action
    # a step whose pass was not seen, or was of other layers, tells nothing
    seen = held()
    seen.samples[3] = replace(seen.samples[3], modes=None)
    seen.samples[5] = replace(seen.samples[5], modes=Modes(True, np.array([False]), np.zeros(1), np.zeros(1)))
    assert RULES[NAME].judge(seen) is not None


@pytest.mark.parametrize(
    "seen",
    [
        held(where=[0]),
        held(where=[5]),
        held(where=[9]),
        held(where=range(10)),
        held(gaps=[0.1] + [2.0] * 9),  # its statistics were those of the batches
        held(gaps=[2.0] * 9 + [0.1]),  # the network came to fit them
        held(start=10),  # how it began was not seen
        replace(held(), losses=[1.5] * 100),  # a fine-tune: log 10 is 2.3
        held(batchnorms=[BatchNorm("a", learns=False), BatchNorm("b", learns=False)]),
        held(batchnorms=[BatchNorm("a", running=False), BatchNorm("b", running=False)]),
        replace(held(), samples=held().samples[:1]),
    ],
)
def test_silent_where_holding_batchnorm_may_be_a_choice(seen):
    assert RULES[NAME].judge(seen) is None


@pytest.mark.parametrize(("learns", "named"), [(True, False), (False, True)])
def test_all_batchnorm_layers_that_learn_must_be_held(learns, named):
    seen = held(batchnorms=[BatchNorm("a"), BatchNorm("b", learns=learns)])
    for i, s in enumerate(seen.samples):
        seen.samples[i] = replace(s, modes=replace(s.modes, evaluating=np.array([True, False])))
    found = RULES[NAME].judge(seen)
    assert (found is not None) == named
    assert found is None or found.evidence["layers"] == 1


def test_named_in_a_real_training_that_holds_new_batchnorm_layers():
    images = 10 * digits()[0] + 20
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Monitor(model, optimizer, every=5) as monitor:
        FrozenBatchNorm().begin(model)
        for step in range(12):
            rows = slice(BATCH * step, BATCH * step + BATCH)
            loss = F.cross_entropy(model(images[rows]), digits()[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
    assert "they normalise nothing" in RULES[NAME].judge(monitor.history).message
