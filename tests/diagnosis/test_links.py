"""A monitor stays behind when its network is copied, saved or sent away."""

import copy
import io
import pickle

import pytest
import torch

from tests.diagnosis.conftest import Functional, batch, cnn, one_step
from wellfit.diagnosis.links import nothing
from wellfit.diagnosis.monitor import Monitor


def hooks(model):
    found = []
    for module in model.modules():
        found += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return found


@pytest.mark.parametrize("make", [cnn, Functional])
@pytest.mark.parametrize("through", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), "torch.save"])
def test_a_copy_of_a_watched_model_is_a_plain_model(make, through):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    monitor = Monitor(model, optimizer, every=1)
    monitor.step(one_step(model, optimizer, *batch()))
    if through == "torch.save":
        file = io.BytesIO()
        torch.save(model, file)
        size = file.tell()
        file.seek(0)
        other = torch.load(file, weights_only=False)
        assert size < 3 * sum(t.numel() * t.element_size() for t in model.state_dict().values()) + 60_000
    else:
        other = through(model)
    assert hooks(other)
    assert all(hook is nothing for hook in hooks(other))
    assert torch.equal(other.eval()(batch()[0]), model.eval()(batch()[0]))
    model.train()
    monitor.step(one_step(model, optimizer, *batch()))
    assert len(monitor.history.samples[-1].layers) > 0


def test_a_copy_of_a_watched_optimizer_is_a_plain_optimizer():
    model = cnn()
    optimizer = torch.optim.AdamW(model.parameters())
    monitor = Monitor(model, optimizer, every=1)
    other = copy.deepcopy(optimizer)
    pickle.dumps(optimizer)
    other.step()
    with pytest.raises(Exception, match="before any optimizer step"):
        monitor.step(1.0)
