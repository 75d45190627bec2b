"""The loop, beside the same training written out."""

import pytest
import torch
import torch.nn.functional as F
from faults.data import Tensors, load, standardise
from faults.loop import Loop, train
from faults.networks import NETWORKS, build, seeded
from torch import nn

from wellfit.randomness import generator


@pytest.fixture(scope="module")
def digits():
    return standardise(load("digits", train=200, validation=100))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_is_the_loop_that_everyone_writes(digits):
    model, other = build("vgg-dropout", digits, seed=3), build("vgg-dropout", digits, seed=3)
    watched = train(
        model, torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), digits, epochs=2, batch_size=64, seed=5
    )
    optimizer = torch.optim.SGD(other.parameters(), 0.05, momentum=0.9)
    losses, accuracies = [], []
    with seeded(5):
        for epoch in range(2):
            other.train()
            order = torch.from_numpy(generator(5, "faults/order", epoch).permutation(200))
            for start in range(0, 200, 64):
                rows = order[start : start + 64]
                optimizer.zero_grad()
                loss = F.cross_entropy(other(digits.train[rows]), digits.train_labels[rows])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            other.eval()
            with torch.no_grad():
                said = other(digits.validation).argmax(1)
            accuracies.append(float((said == digits.validation_labels).float().mean()))
    assert torch.equal(weights(model), weights(other))
    assert list(watched.history.losses) == losses
    assert [e.val_accuracy for e in watched.history.epochs] == pytest.approx(accuracies)
    assert [e.step for e in watched.history.epochs] == [4, 8]
    assert watched.validation_accuracy == pytest.approx(accuracies[-1])


def test_steps_end_it_within_an_epoch(digits):
    model = build("mlp", digits)
    watched = train(model, torch.optim.Adam(model.parameters()), digits, steps=6, batch_size=64)
    assert [e.step for e in watched.history.epochs] == [4, 6]
    assert len(watched.history.losses) == 6


def test_the_schedule_multiplies_each_rate(digits):
    model = build("mlp", digits)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watched = train(model, optimizer, digits, epochs=2, batch_size=64, schedule=lambda progress: 1 - progress)
    assert list(watched.history.lrs) == pytest.approx([0.1 * (1 - i / 8) for i in range(8)])


def test_accumulated_batches_make_the_step_of_one_large_batch(digits):
    small, large = build("tanh-mlp", digits), build("tanh-mlp", digits)
    one = train(small, torch.optim.SGD(small.parameters(), 0.1), digits, epochs=1, batch_size=25, accumulate=4)
    two = train(large, torch.optim.SGD(large.parameters(), 0.1), digits, epochs=1, batch_size=100)
    assert len(one.history.losses) == len(two.history.losses) == 2
    torch.testing.assert_close(weights(small), weights(large))


def test_clipping_bounds_the_step(digits):
    model = build("mlp", digits)
    before = weights(model)
    train(model, torch.optim.SGD(model.parameters(), 1.0), digits, steps=1, clip=0.01)
    assert float((weights(model) - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_torchs_own_generator_is_left_alone(digits):
    state = torch.random.get_rng_state()
    model = build("vgg-dropout", digits)
    train(model, torch.optim.SGD(model.parameters(), 0.05), digits, steps=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_subclass_changes_one_line(digits):
    class Forgetful(Loop):
        def zero_grad(self):
            pass

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    Forgetful(model, torch.optim.SGD(model.parameters(), 0.0), digits, steps=4, batch_size=64).run()
    summed = model[1].weight.grad.clone()
    model.zero_grad()
    order = torch.from_numpy(generator(0, "faults/order", 0).permutation(200))
    for rows in order.split(64):
        F.cross_entropy(model(digits.train[rows]), digits.train_labels[rows]).backward()
    torch.testing.assert_close(model[1].weight.grad, summed)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"squeezenet"}))
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 10), (3, 16, 10), (1, 28, 2), (3, 96, 2)])
def test_every_network_is_made_for_the_data_and_decided_by_its_seed(name, channels, size, classes):
    x = torch.zeros(2, channels, size, size)
    data = Tensors(x, torch.zeros(2, dtype=torch.int64), x, torch.zeros(2, dtype=torch.int64), classes)
    model = build(name, data, seed=1)
    assert model.eval()(torch.ones_like(x)).shape == (2, classes)
    assert torch.equal(weights(model), weights(build(name, data, seed=1)))
    assert not torch.equal(weights(model), weights(build(name, data, seed=2)))
