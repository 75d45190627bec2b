"""Classes are counted at every step, whatever the targets look like; the history has them from the next watched one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.diagnosis.conftest import digits, mlp
from wellfit.diagnosis.history import Output, Sample, with_classes_of
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.tally import ENTRIES, TallyWatch


def by_hand(scores, targets, width):
    shown, said, right = (np.zeros(width, np.int64) for _ in range(3))
    for row, target in zip(scores.tolist(), targets, strict=True):
        if 0 <= target < width:
            answer = int(np.argmax(row))
            shown[target] += 1
            said[answer] += 1
            right[target] += answer == target
    return shown, said, right


@pytest.mark.parametrize("kind", ["numbers", "ignored", "shares"])
def test_counts_are_those_of_all_batches(kind):
    draw = torch.Generator().manual_seed(0)
    watch, totals = TallyWatch(), np.zeros((3, 5), np.int64)
    for size in (32, 7, 1):
        scores, targets = torch.randn(size, 5, generator=draw), torch.randint(5, (size,), generator=draw)
        given = targets
        if kind == "ignored":
            given = targets = targets.where(targets != 2, torch.tensor(-100))
        elif kind == "shares":
            given = F.one_hot(targets, 5).float() * 0.9 + 0.02
        watch.add(scores, given)
        totals += by_hand(scores, targets.tolist(), 5)
    tally = watch.collect()
    assert np.array_equal([tally.shown, tally.said, tally.right], totals)
    assert watch.collect() is None


def test_answers_of_another_width_begin_anew():
    watch = TallyWatch()
    watch.add(torch.eye(4), torch.arange(4))
    watch.add(torch.eye(3), torch.arange(3))
    assert watch.collect().shown.tolist() == [1, 1, 1]


def test_tables_that_are_too_large_are_not_counted():
    watch = TallyWatch()
    watch.add(torch.eye(4), torch.arange(4))
    watch.add(torch.zeros(ENTRIES // 4 + 1, 4), torch.zeros(ENTRIES // 4 + 1, dtype=torch.long))
    assert watch.collect() is None


def test_the_history_knows_how_often_each_class_came_though_one_step_of_ten_is_watched():
    x, y = digits()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen = np.zeros(10, np.int64)
    with Monitor(model, optimizer) as monitor:
        for step in range(100):
            rows = slice(17 * step, 17 * step + 17)
            loss = F.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss, targets=y[rows])
            seen += np.bincount(y[rows], minlength=10)
            if monitor.watched:
                assert np.array_equal(monitor.history.class_counts, seen)
    history = monitor.history
    assert sum(s.tally.shown.sum() for s in history.samples) == 17 * (history.samples[-1].step + 1)
    assert np.array_equal(history.until(50).class_counts, sum(s.tally.shown for s in history.samples if s.step < 50))


def test_without_a_tally_the_watched_answers_count():
    zeros = np.zeros(2)
    output = Output(5, 3, 0.1, targets=np.array([3, 2, 0]))
    watched = Sample(0, zeros, zeros, zeros, output=output)
    assert with_classes_of(watched, None).tolist() == [3, 2, 0]
    assert with_classes_of(watched, np.array([1, 1, 1])).tolist() == [4, 3, 1]
    assert with_classes_of(watched, np.array([1, 1])).tolist() == [3, 2, 0]
    assert with_classes_of(Sample(0, zeros, zeros, zeros), np.array([1, 1])).tolist() == [1, 1]
