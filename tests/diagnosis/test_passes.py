"""Training and validation passes are told apart in loops of all kinds, and their modes are kept."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.optim.swa_utils import update_bn

from tests.diagnosis.conftest import batch, cnn, digits, mlp, one_step
from wellfit.diagnosis.monitor import Monitor
from wellfit.training.averaging import recompute_batchnorm

SGD = torch.optim.SGD


def loop(model, validate, *, steps=4, accumulate=1, left_over=0, every=1):
    """One epoch; `validate(model)` stands between the last step and end_epoch."""
    optimizer = SGD(model.parameters(), 0.01)
    x, y = digits()
    with Monitor(model, optimizer, every=every) as monitor:
        model.train()
        for step in range(steps):
            for part in range(accumulate):
                place = 32 * (step * accumulate + part)
                loss = F.cross_entropy(model(x[place:][:32]), y[place:][:32])
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.step(loss)
        for _ in range(left_over):
            F.cross_entropy(model(x[:32]), y[:32]).backward()
        validate(model)
        monitor.end_epoch(val_accuracy=0.5)
    return monitor.history


def evaluation(model, *, mode=False, grad=False, batches=3, images=None):
    model.train(mode)
    x = digits()[0][1200:1400] if images is None else images
    with torch.set_grad_enabled(grad):
        for part in x.split(-(-len(x) // batches)):
            model(part)
    model.train()


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_validation_is_what_no_step_follows(grad, mode, accumulate):
    history = loop(cnn(), lambda m: evaluation(m, mode=mode, grad=grad, batches=5), accumulate=accumulate)
    passes = history.epochs[0].passes
    assert (passes.passes, passes.training, passes.by_batch) == (5, 5 * mode, 5 * mode)
    assert passes.smallest == 40
    assert passes.closing
    assert passes.inputs[0].shape == (1, 8, 8)


def test_one_pass_in_evaluation_mode_is_a_validation_even_with_gradients():
    passes = loop(cnn(), lambda m: evaluation(m, grad=True, batches=1)).epochs[0].passes
    assert (passes.passes, passes.training) == (1, 0)
    assert passes.inputs[0].images == 32


@pytest.mark.parametrize("left_over", [1, 2])
def test_batches_left_over_from_accumulating_are_no_validation(left_over):
    assert loop(cnn(), lambda m: None, accumulate=3, left_over=left_over).epochs[0].passes is None
    passes = loop(cnn(), evaluation, accumulate=3, left_over=left_over).epochs[0].passes
    assert (passes.passes, passes.training) == (3, 0)


def test_no_pass_is_no_validation():
    assert loop(cnn(), lambda m: None).epochs[0].passes is None


def test_a_validation_between_two_steps_comes_second():
    model = cnn()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer)
    for _ in range(2):
        monitor.step(one_step(model, optimizer, *batch()))
        evaluation(model, mode=True)
    monitor.step(one_step(model, optimizer, *batch()))
    monitor.end_epoch(val_accuracy=0.5)
    passes = monitor.history.epochs[0].passes
    assert (passes.passes, passes.training, passes.closing) == (6, 6, False)
    evaluation(model)
    monitor.end_epoch(val_accuracy=0.5)
    passes = monitor.history.epochs[1].passes
    assert (passes.passes, passes.training, passes.closing) == (3, 0, True)


@pytest.mark.parametrize("collect", [update_bn, lambda batches, model: recompute_batchnorm(model, batches)])
def test_collecting_statistics_is_no_validation(collect):
    def validate(model):
        collect(list(digits()[0][:600].split(64)), model)
        evaluation(model)

    passes = loop(cnn(), validate).epochs[0].passes
    assert (passes.passes, passes.training, passes.by_batch) == (3, 0, 0)


def test_dropout_alone_in_training_mode_is_an_evaluation():
    model = nn.Sequential(cnn(), nn.Dropout(0.5))

    def validate(net):
        net.eval()
        net[1].train()
        with torch.no_grad():
            for _ in range(5):
                net(batch()[0])

    passes = loop(model, validate).epochs[0].passes
    assert (passes.passes, passes.training, passes.by_batch) == (5, 0, 0)


def test_sets_of_images_are_told_apart_where_a_larger_batch_follows_a_smaller():
    x = digits()[0]

    def validate(model):
        evaluation(model, images=x[:100], batches=2)
        model.eval()
        with torch.no_grad():
            model(x[100:130])
            for _ in range(3):
                model(10 * x[200:264])

    inputs = loop(cnn(), validate).epochs[0].passes.inputs
    assert [i.batches for i in inputs] == [3, 3]
    assert inputs[1].high > 5 * inputs[0].high


def test_a_long_validation_is_looked_at_more_and_more_rarely_but_to_its_end():
    x = torch.linspace(0, 1, 1000).reshape(1000, 1, 1, 1).expand(-1, 1, 8, 8) + 0.1 * digits()[0][:1000]

    def validate(model):
        evaluation(model, images=x, batches=250)

    (inputs,) = loop(cnn(), validate).epochs[0].passes.inputs
    assert 10 < inputs.batches < 30
    assert 0.2 < inputs.figures[0] < 0.7


def test_the_modes_of_watched_steps_and_the_gap_of_running_statistics():
    model = cnn()
    model[4].eval()
    optimizer = SGD(model.parameters(), 0.0)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch(64)
    first = model[0](x).detach()
    monitor.step(one_step(model, optimizer, x, y))
    modes = monitor.history.samples[0].modes
    assert modes.training
    assert modes.evaluating.tolist() == [False, True]
    # before the first update the running statistics are 0 and 1
    mean, var = first.mean((0, 2, 3)), first.var((0, 2, 3), correction=0)
    assert modes.mean_gap[0] == pytest.approx(float((mean.abs() / var.sqrt()).median()), rel=1e-3)
    assert modes.var_gap[0] == pytest.approx(float((1 / var).log().median()), rel=1e-3)
    for _ in range(60):
        monitor.step(one_step(model, optimizer, x, y))
    modes = monitor.history.samples[-1].modes
    assert abs(modes.mean_gap[0]) < 0.01
    assert abs(modes.var_gap[0]) < 0.05
    assert abs(modes.var_gap[1]) > 0.2  # in evaluation mode it stays where it was
    assert [(b.name, b.learns, b.momentum, b.running) for b in monitor.history.batchnorms] == [
        ("1", True, 0.1, True),
        ("4", True, 0.1, True),
    ]


def test_layers_without_running_statistics_or_trainable_parameters_say_so():
    model = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(64, affine=False), nn.Linear(64, 10), nn.BatchNorm1d(10, track_running_stats=False)
    )
    history = loop(model, evaluation)
    assert [(b.learns, b.running) for b in history.batchnorms] == [(False, True), (True, False)]
    assert np.isfinite(history.samples[0].modes.mean_gap).tolist() == [True, False]
    passes = history.epochs[0].passes
    assert (passes.training, passes.by_batch) == (0, 3)


def test_training_images_of_watched_steps_are_kept():
    history = loop(mlp(), evaluation)
    x = digits()[0]
    for k, sample in enumerate(history.samples):
        assert sample.inputs.figures[0] == pytest.approx(float(x[32 * k :][:32].mean()), abs=1e-5)


def test_a_compiled_network_is_not_slowed_down_by_its_hooks():
    model = cnn()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for _ in range(5):
        monitor.step(one_step(compiled, optimizer, *batch()))
    assert counter.frame_count == 1
    assert "wrong-batchnorm-mode" in monitor.unjudged
    assert "train-val-mismatch" in monitor.unjudged


def test_the_usual_batch_is_not_the_one_that_is_left_over():
    passes = loop(cnn(), lambda m: evaluation(m, batches=4, images=digits()[0][1200:1401])).epochs[0].passes
    assert (passes.passes, passes.usual, passes.smallest) == (4, 51, 48)
    single = loop(cnn(), lambda m: evaluation(m, batches=5, images=digits()[0][1200:1205])).epochs[0].passes
    assert (single.usual, single.smallest) == (1, 1)
