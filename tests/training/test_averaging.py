"""Averaged weights against a loop in float64; BatchNorm statistics against numpy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.training.averaging import WeightAverage, recompute_batchnorm
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)
    )


def wander(module, step):
    source = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=source) * 0.1)
            else:
                value.add_(1)


def state_bytes(module):
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("every", [1, 4])
def test_the_average_follows_the_formula_and_starts_at_x(every):
    module = net()
    average = WeightAverage(module, 0.995, every=every)
    expected = module[0].weight.detach().double().numpy().copy()
    np.testing.assert_array_equal(average.averaged["0.weight"], expected.astype(np.float32))
    for step in range(1, 41):
        wander(module, step)
        average.update(module)
        if step % every == 0:
            keep = 0.995**every
            expected = keep * expected + (1 - keep) * module[0].weight.detach().double().numpy()
        np.testing.assert_allclose(average.averaged["0.weight"], expected, rtol=1e-4, atol=1e-6)


def test_a_ramp_forgets_the_start_of_a_short_training():
    module = net()
    start = module[5].weight.detach().clone()
    slow, ramped = WeightAverage(module), WeightAverage(module, ramp=True)
    with torch.no_grad():
        module[5].weight.add_(1.0)
    for _ in range(50):
        slow.update(module)
        ramped.update(module)
    assert (slow.averaged["5.weight"] - start).mean().item() == pytest.approx(1 - 0.995**50, rel=1e-3)
    assert (ramped.averaged["5.weight"] - start).mean().item() > 0.99


def test_applied_weights_come_back_bit_for_bit_and_counters_stay():
    module = net()
    average = WeightAverage(module)
    wander(module, 1)
    average.update(module)
    before = state_bytes(module)
    with average.applied_to(module):
        torch.testing.assert_close(module[0].weight.detach(), average.averaged["0.weight"])
        torch.testing.assert_close(module[1].running_mean, average.averaged["1.running_mean"])
        assert module[1].num_batches_tracked.item() == 1
        assert state_bytes(module) != before
    assert state_bytes(module) == before


def test_an_error_under_applied_weights_still_puts_them_back():
    module = net()
    average = WeightAverage(module)
    wander(module, 1)
    before = state_bytes(module)

    def evaluate():
        with average.applied_to(module):
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        evaluate()
    assert state_bytes(module) == before


def test_bfloat16_weights_are_averaged_in_float32():
    module = nn.Linear(1, 1, bias=False).bfloat16()
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = WeightAverage(module)
    with torch.no_grad():
        module.weight.fill_(1.125)
    for _ in range(10):
        average.update(module)
    assert average.averaged["weight"].item() == pytest.approx(1 + 0.125 * (1 - 0.995**10), rel=1e-5)
    average.copy_to(module)
    assert module.weight.dtype == torch.bfloat16


def test_a_resumed_average_goes_on_to_the_same_bytes(tmp_path):
    module = net()
    average = WeightAverage(module, every=3, ramp=True)
    resumed = None
    for step in range(20):
        wander(module, step)
        average.update(module)
        if resumed is not None:
            resumed.update(module)
        if step == 7:
            save_checkpoint(tmp_path / "state", average.state_dict())
            resumed = WeightAverage(net(seed=5).to(memory_format=torch.channels_last), every=3, ramp=True)
            resumed.load_state_dict(load_checkpoint(tmp_path / "state"))
    for name, value in average.averaged.items():
        assert value.numpy().tobytes() == resumed.averaged[name].contiguous().numpy().tobytes(), name


def test_recomputed_statistics_are_those_of_all_images():
    module = net()
    images = torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 3 + 2
    wander(module, 1)
    modes = [m.training for m in module.train().modules()]
    rng = torch.get_rng_state()
    recompute_batchnorm(module, images.split(16))
    assert torch.equal(rng, torch.get_rng_state()), "dropout must draw nothing"
    assert [m.training for m in module.modules()] == modes
    assert module[1].momentum == 0.1
    maps = module[0](images).detach().numpy()
    np.testing.assert_allclose(module[1].running_mean, maps.mean((0, 2, 3)), rtol=1e-4)
    # The mean of the batches' variances: near the whole set's, as the batches are drawn alike.
    parts = [maps[i : i + 16] for i in range(0, 50, 16)]
    expected = sum(len(p) / 50 * p.var((0, 2, 3)) * (p[:, 0].size / (p[:, 0].size - 1)) for p in parts)
    np.testing.assert_allclose(module[1].running_var, expected, rtol=1e-4)


def test_averaged_weights_with_recomputed_statistics_normalise_their_own_activations():
    module = net().train()
    images = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    average = WeightAverage(module, 0.9)
    for step in range(10):
        wander(module, step)
        average.update(module)
    with average.applied_to(module):
        recompute_batchnorm(module, [(images, None)])
        module.eval()
        out = module[1](module[0](images))
    torch.testing.assert_close(out.mean((0, 2, 3)), average.averaged["1.bias"], rtol=1e-4, atol=1e-5)


def test_recomputing_needs_batches_and_leaves_other_nets_alone():
    module = net()
    before = state_bytes(module)
    with pytest.raises(ValueError, match="at least one batch"):
        recompute_batchnorm(module, [])
    assert state_bytes(module) == before
    recompute_batchnorm(nn.Linear(2, 2), [])


def test_nonsense_is_refused():
    for arguments in ({"decay": 1.0}, {"decay": -0.1}, {"every": 0}):
        with pytest.raises(UserError, match="is usual"):
            WeightAverage(net(), **arguments)
    other = WeightAverage(nn.Linear(2, 2))
    with pytest.raises(KeyError):
        WeightAverage(net()).load_state_dict(copy.deepcopy(other.state_dict()))
