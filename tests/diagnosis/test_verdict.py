"""A verdict is reached once for each state of what was seen, however often it is asked for."""

import pytest
import torch

from tests.diagnosis.conftest import batch, mlp, one_step
from wellfit.diagnosis import monitor as room
from wellfit.diagnosis.monitor import Monitor


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def judge(history):
        calls.append(len(history.losses))
        return own(history)

    own = room.judge
    monkeypatch.setattr(room, "judge", judge)
    return calls


def begun():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)

    def step(count=1, **options):
        for _ in range(count):
            monitor.step(one_step(model, optimizer, *batch()), **options)

    return monitor, step


def test_findings_unjudged_and_the_printed_lines_share_one_verdict(asked):
    monitor, step = begun()
    step(5)
    for _ in range(3):
        monitor.findings()
        assert monitor.unjudged
        repr(monitor)
        monitor._repr_html_()
    assert asked == [5]
    step()
    monitor.findings()
    assert monitor.unjudged
    assert asked == [5, 6]
    monitor.end_epoch(val_accuracy=0.1)
    monitor.findings()
    assert asked == [5, 6, 6]
    monitor.load_state_dict(monitor.state_dict())
    monitor.findings()
    assert asked == [5, 6, 6, 6]


def test_what_a_caller_does_to_a_verdict_stays_with_the_caller():
    monitor, step = begun()
    step(4)
    first = monitor.unjudged
    monitor.findings().append("mine")
    monitor.unjudged.clear()
    assert "mine" not in monitor.findings()
    assert monitor.unjudged == first
    assert hasattr(monitor.findings(), "_repr_html_")
