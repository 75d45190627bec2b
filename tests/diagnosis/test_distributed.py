"""Two processes train together, each with a monitor of its own."""

import json
import os
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from wellfit.diagnosis.monitor import Monitor

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch here has no gloo, which joins processes")
STEPS = 22


def work(rank, port, folder):
    """Trains one network in both ways, as one of two processes, and writes down what its monitors saw."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(32 * STEPS, 64, generator=draw), torch.randint(0, 10, (32 * STEPS,), generator=draw)
    seen = {}
    for how in ("ddp", "ddp unwatched", "sharded"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
        if how == "sharded":
            for layer in (model[0], model[2], model[4], model):
                fully_shard(layer)
        else:
            model = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        monitor = None if how == "ddp unwatched" else Monitor(model, optimizer, every=1, entries=10**6)
        for step in range(STEPS):
            part = slice(32 * step + 16 * rank, 32 * step + 16 * rank + 16)
            loss = F.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if monitor:
                monitor.step(loss, targets=y[part])
        whole = [p.full_tensor() if how == "sharded" else p for p in model.parameters()]
        seen[how] = {"weights": [p.detach().flatten().double().tolist() for p in whole]}
        if monitor:
            sample = monitor.history.samples[-1]
            seen[how] |= {
                "names": [p.name for p in monitor.history.parameters],
                "updates": sample.update_norm.tolist(),
                "gradients": sample.gradient_norm.tolist(),
                "layers": [layer.name for layer in sample.layers],
                "images": sample.output.images,
                "findings": [str(f) for f in monitor.findings()],
                "unjudged": monitor.unjudged,
                "carried": sample.carried,
            }
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, folder), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_both_processes_see_the_same_joint_gradients_and_updates(both):
    first, second = (seen["ddp"] for seen in both)
    assert first["names"] == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    assert first["updates"] == second["updates"]
    assert first["gradients"] == second["gradients"]
    assert first["layers"] == ["1", "3"]
    assert first["images"] == 16
    assert first["carried"] is False
    assert [f for f in first["findings"] if "[info]" not in f] == []


def test_watching_changes_no_bit_of_a_joint_training(both):
    for seen in both:
        assert seen["ddp"]["weights"] == seen["ddp unwatched"]["weights"]


def test_each_process_sees_its_shard(both):
    joint = np.array(both[0]["ddp"]["updates"])
    shards = np.array([seen["sharded"]["updates"] for seen in both])
    assert np.sqrt((shards**2).sum(0)) == pytest.approx(joint, rel=1e-3)
    assert (shards < joint).all()
    gradients = np.array([seen["sharded"]["gradients"] for seen in both])
    assert np.sqrt((gradients**2).sum(0)) == pytest.approx(both[0]["ddp"]["gradients"], rel=1e-3)
    for seen in both:
        assert seen["sharded"]["layers"] == ["1", "3"]
        assert [f for f in seen["sharded"]["findings"] if "[info]" not in f] == []
        assert "sharded" in seen["sharded"]["unjudged"]["gradients-accumulate"]
