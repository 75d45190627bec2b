"""A history cut short says what it said at that step."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wellfit.diagnosis.history import Epoch, History, Output, Sample
from wellfit.diagnosis.monitor import Monitor


def sample(step, targets=None):
    output = Output(3, len(targets), 0.1, targets=np.array(targets)) if targets is not None else None
    return Sample(step, np.ones(1), np.ones(1), np.ones(1), output=output)


def test_until_keeps_what_was_seen_before_the_step_and_counts_classes_anew():
    whole = History(
        losses=[5.0, 4.0, 3.0, 2.0, 1.0],
        lrs=[0.1] * 5,
        samples=[sample(0, [1, 2]), sample(2, [3, 0]), sample(3), sample(4, [0, 3])],
        epochs=[Epoch(2), Epoch(4)],
        class_counts=np.array([4, 5]),
    )
    early = whole.until(4)
    assert early.losses == [5.0, 4.0, 3.0, 2.0]
    assert early.lrs == [0.1] * 4
    assert [s.step for s in early.samples] == [0, 2, 3]
    assert [e.step for e in early.epochs] == [2, 4]
    assert early.class_counts.tolist() == [4, 2]
    assert [e.step for e in whole.until(3).epochs] == [2]
    assert whole.until(0).class_counts is None
    assert whole.class_counts.tolist() == [4, 5]
    assert len(whole.losses) == 5


def test_until_does_not_add_counts_of_another_number_of_classes():
    # As the monitor does when the width of the outputs changes.
    assert History(samples=[sample(0, [1, 2]), sample(1, [1, 1, 1])]).until(2).class_counts.tolist() == [1, 1, 1]


def test_until_is_what_a_monitor_held_at_that_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(30, 4), torch.arange(30) % 3
    with Monitor(model, optimizer) as monitor:
        for step in range(30):
            if step == 17:
                losses, lrs = list(monitor.history.losses), list(monitor.history.lrs)
                steps = [s.step for s in monitor.history.samples]
                counts = monitor.history.class_counts.copy()
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            monitor.step(loss, targets=y)
    early = monitor.history.until(17)
    assert list(early.losses) == losses
    assert list(early.lrs) == lrs
    assert [s.step for s in early.samples] == steps
    np.testing.assert_array_equal(early.class_counts, counts)
    assert len(monitor.history.losses) == 30
