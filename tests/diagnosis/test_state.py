"""What a monitor saw goes into a checkpoint and comes back."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.diagnosis.conftest import cnn, digits, mlp
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.state import KIND
from wellfit.errors import UserError


def train(model, optimizer, monitor, steps, start=0):
    x, y = digits()
    for step in range(start, start + steps):
        part = slice(32 * (step % 30), 32 * (step % 30) + 32)
        loss = F.cross_entropy(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y[part])
        if step % 10 == 9:
            with torch.no_grad():
                model.eval()
                model(x[-200:])
                model.train()
            monitor.end_epoch(train_accuracy=0.5, val_loss=1.0, val_accuracy=0.4)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_monitor_goes_on_where_its_state_was_taken():
    def begin():
        torch.manual_seed(0)
        model = cnn()
        return model, torch.optim.SGD(model.parameters(), 0.05)

    model, optimizer = begin()
    whole = Monitor(model, optimizer, every=5)
    train(model, optimizer, whole, 40)

    model, optimizer = begin()
    first = Monitor(model, optimizer, every=5)
    train(model, optimizer, first, 20)
    state = through_a_file(first.state_dict())
    first.close()
    second = Monitor(model, optimizer, every=5)
    second.load_state_dict(state)
    train(model, optimizer, second, 20, start=20)

    assert second.history.losses == whole.history.losses
    assert second.history.lrs == whole.history.lrs
    assert second.history.parameters == whole.history.parameters
    assert second.history.batchnorms == whole.history.batchnorms
    assert [e.val_loss for e in second.history.epochs] == [e.val_loss for e in whole.history.epochs]
    assert [s.step for s in second.history.samples] == [s.step for s in whole.history.samples]
    for ours, theirs in zip(second.history.samples, whole.history.samples, strict=True):
        np.testing.assert_array_equal(ours.update_norm, theirs.update_norm)
        np.testing.assert_array_equal(ours.output.predicted, theirs.output.predicted)
        assert [(s.name, s.std, s.spread) for s in ours.layers] == [(s.name, s.std, s.spread) for s in theirs.layers]
        assert (ours.input, type(ours.modes)) == (theirs.input, type(theirs.modes))
    np.testing.assert_array_equal(second.history.class_counts, whole.history.class_counts)
    assert [f.id for f in second.findings()] == [f.id for f in whole.findings()]


def test_fan_ins_decays_and_dropouts_come_back_from_a_state():
    model = torch.nn.Sequential(cnn(), torch.nn.Dropout(0.7))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, weight_decay=0.03)
    first = Monitor(model, optimizer)
    train(model, optimizer, first, 2)
    second = Monitor(model, optimizer)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert [(p.fan_in, p.decay) for p in second.history.parameters if p.weight] == [(9, 0.03), (72, 0.03), (256, 0.03)]
    assert second.history.parameters == first.history.parameters
    assert second.history.dropped == [0.7]


def test_a_state_of_another_network_or_of_nothing_is_one_clear_sentence():
    model = mlp()
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), 0.1))
    other = cnn()
    watched = Monitor(other, optimizer := torch.optim.SGD(other.parameters(), 0.1))
    train(other, optimizer, watched, 2)
    with pytest.raises(UserError, match=r"'1.weight' stands where that had '0.weight'; start without"):
        monitor.load_state_dict(watched.state_dict())
    for wrong in ({KIND: "History", "nothing": 1}, {KIND: "Nothing"}, {}, {KIND: "Epoch", "step": 1}):
        with pytest.raises(UserError, match="state_dict") as error:
            monitor.load_state_dict(wrong)
        assert "\n" not in str(error.value)
    monitor.load_state_dict(Monitor(model, torch.optim.SGD(model.parameters(), 0.1)).state_dict())


def test_a_state_of_an_earlier_version_is_gone_on_with():
    """It knew no fan-in, no weight decay and no dropout."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, weight_decay=1e-3)
    first = Monitor(model, optimizer)
    train(model, optimizer, first, 20)
    state = through_a_file(first.state_dict())
    first.close()
    del state["dropped"]
    for parameter in state["parameters"]:
        del parameter["fan_in"], parameter["decay"]
    second = Monitor(model, optimizer)
    second.load_state_dict(state)
    assert {(p.fan_in, p.decay) for p in second.history.parameters} == {(0, 0.0)}
    assert not any(name.startswith("nothing") for name in second.unjudged.values())
    train(model, optimizer, second, 20, start=20)
    assert all(p.fan_in > 0 for p in second.history.parameters if p.weight)
    assert {p.decay for p in second.history.parameters} == {1e-3}
