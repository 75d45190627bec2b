"""What a monitor costs while it stands: memory, and waits for an accelerator."""

import gc
import tracemalloc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.diagnosis.conftest import cnn, digits
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.turns import is_watched

MIB = 2**20


def tensors_there():
    """Bytes of each storage that a tensor holds, by its place in memory."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter):
            try:
                storage = thing.untyped_storage()
            except NotImplementedError:  # what torch.func left of its wrappers
                continue
            found[storage.data_ptr()] = storage.nbytes()
    return found


def test_the_monitors_memory_stays_small_over_two_thousand_steps():
    """Counted are numpy's arrays and Python's objects (tracemalloc) and all tensors, the record of 2,000 steps too.

    A tensor beyond 4,096 entries costs the monitor the same however large it is: 32 weights of 8,192 entries and as
    many biases stand for those of a network of ten million parameters, which would train for minutes here.
    """
    torch.manual_seed(0)
    body: list[nn.Module] = []
    for _ in range(16):
        body += [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()]
    model = nn.Sequential(nn.Flatten(), *body, nn.Linear(64, 10))
    assert sum(p.numel() > 4096 for p in model.parameters()) == 32
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x, y = digits()[0][:8], digits()[1][:8]
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    before = tensors_there()
    tracemalloc.start()
    try:
        monitor = Monitor(model, optimizer)
        for step in range(2000):
            if is_watched(step, 10):  # a step in between leaves its loss and no more
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            monitor.step(loss, targets=y)
        del loss
        gc.collect()
        objects = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(monitor.history.samples) > 150
    assert monitor.steps == 2000
    own = {t.grad.untyped_storage().data_ptr() for t in model.parameters()}
    tensors = sum(size for place, size in tensors_there().items() if place not in before and place not in own)
    assert tensors > 0.2 * MIB  # the places of the entries that are read, at least
    assert (objects + tensors) / MIB < 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: waits are counted by torch.cuda")
def test_a_step_that_is_not_watched_waits_for_no_cuda_device():
    torch.manual_seed(0)
    model = cnn().cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer)
    x, y = (part[:64].cuda() for part in digits())

    def step():
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y)

    unwatched = 0
    for number in range(40):
        torch.cuda.set_sync_debug_mode("default" if is_watched(number, 10) else "error")
        unwatched += not is_watched(number, 10)
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert unwatched > 30
    assert monitor.steps == 40
    assert isinstance(monitor.findings(), list)
    assert len(monitor.history.losses) == 40
