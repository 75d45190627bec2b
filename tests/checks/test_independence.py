"""Inputs that are ignored and batches that leak."""

import pytest
import torch
from torch import nn

from tests.checks.conftest import patterned, raw_pixels, small_convnet, two_layer
from wellfit.checks import batch_leak, input_ignored


class Detour(nn.Module):
    """A net with a step before it."""

    def __init__(self, before, net=None):
        super().__init__()
        self.before, self.net = before, net or small_convnet(classes=4)

    def forward(self, x):
        return self.net(self.before(x))


def batch_norm_by_hand(x):
    return (x - x.mean(0)) / (x.std(0) + 1e-5)


def mixing_reshape(x):
    return x.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)


@pytest.mark.parametrize("net", [small_convnet(classes=4), Detour(nn.InstanceNorm2d(3))])
def test_sound_networks_pass_both(net):
    images, _ = patterned(8)
    for check in (input_ignored, batch_leak):
        result = check(net, images)
        assert result.passed, result.message
        assert result.finding is None


def test_the_taught_network_with_tiny_weights_passes():
    images, _ = raw_pixels(8)
    assert input_ignored(two_layer(), images).passed
    assert batch_leak(two_layer(), images).value == 0.0


@pytest.mark.parametrize("before", [torch.zeros_like, lambda x: torch.ones_like(x) * 3])
def test_an_input_that_never_arrives(before):
    result = input_ignored(Detour(before), patterned(8)[0])
    assert not result.passed
    assert result.stops
    assert result.finding.id == "input-ignored"


def test_dead_units_ignore_the_input_too():
    net = small_convnet(classes=4)
    with torch.no_grad():
        net[3].bias.fill_(-1e4)
    assert not input_ignored(net, patterned(8)[0]).passed


@pytest.mark.parametrize("before", [batch_norm_by_hand, mixing_reshape, lambda x: x.flip(0)])
def test_leaks_between_images_are_caught(before):
    result = batch_leak(Detour(before), patterned(8)[0])
    assert not result.passed
    assert result.finding.id == "batch-leak"
    assert result.value > 1e-4


def test_batchnorm_is_no_leak_in_evaluation_mode():
    images, _ = patterned(8)
    net = small_convnet(classes=4).train()
    with torch.no_grad():
        alone, others = net(images), net(torch.cat([images[:1], -images[1:]]))
    assert (alone[0] - others[0]).abs().max() > 1e-3, "in training mode the images do depend on each other"
    assert batch_leak(net, images).passed


def test_one_image_cannot_leak():
    assert batch_leak(small_convnet(classes=4), patterned(1)[0]).passed


def test_a_last_layer_that_starts_at_zero_is_no_ignored_input_and_hides_no_leak():
    images, _ = patterned(8)
    net = small_convnet(classes=4)
    with torch.no_grad():
        net[-1].weight.zero_()
    before = net[-1].weight.clone()
    assert input_ignored(net, images).passed
    assert batch_leak(net, images).passed
    assert not batch_leak(Detour(batch_norm_by_hand, net), images).passed
    assert torch.equal(net[-1].weight, before)


def test_an_input_that_is_dropped_in_training_alone():
    result = input_ignored(nn.Sequential(nn.Dropout(1.0), small_convnet(classes=4)), patterned(8)[0])
    assert not result.passed
    assert "in training mode" in result.message
    assert input_ignored(nn.Sequential(nn.Dropout(0.9), small_convnet(classes=4)), patterned(8)[0]).passed


def test_what_only_later_images_of_the_batch_feel():
    result = batch_leak(Detour(lambda x: x.cumsum(0)), patterned(8)[0])
    assert not result.passed


def test_a_dropout_that_is_always_on_is_no_leak():
    result = batch_leak(Detour(lambda x: nn.functional.dropout(x, 0.5)), patterned(8)[0])
    assert result.passed
    assert result.value == 0.0


@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_scores_that_are_not_finite_do_not_count_as_an_ignored_input(number):
    net = small_convnet(classes=4)
    with torch.no_grad():
        net[-1].weight.fill_(number)
    assert input_ignored(net, patterned(8)[0]).passed
