"""Whatever moves the weights is seen: closures, wrappers, two-step optimizers, new ones, other kinds of numbers."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.optim import Adan, Lookahead
from torch import nn

from tests.diagnosis.conftest import batch, digits, mlp, one_step
from wellfit.diagnosis.history import OptimizerGroup
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.steppers import family
from wellfit.errors import UserError

SGD = torch.optim.SGD


class Sharpness(torch.optim.Optimizer):
    """Two steps in one: up to where the loss is worse, then down from there with that gradient, at the old weights."""

    def __init__(self, params, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = SGD(self.param_groups, **options)

    @torch.no_grad()
    def first_step(self):
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in weights]).norm()
        for p in weights:
            self.state[p]["old"] = p.detach().clone()
            p.add_(p.grad, alpha=float(0.05 / norm))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure=None):
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


class Averaging:
    """A wrapper that is no torch optimizer itself."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


def moved(model, before):
    return {n: float((p.detach() - before[n]).norm()) for n, p in model.named_parameters()}


def copy_of(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_a_closure_gives_the_gradient_at_the_weights_before_the_step():
    model = mlp(nn.Tanh)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    monitor = Monitor(model, optimizer, every=1, entries=10**6)
    x, y = batch(64)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        calls.append(float(loss.detach()))
        return loss

    for _ in range(3):
        before, start = copy_of(model), len(calls)
        whole = F.cross_entropy(model(x), y)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(whole, list(model.parameters()))])
        loss = optimizer.step(closure)
        assert len(calls) - start > 1
        monitor.step(loss, targets=y)
        sample = monitor.history.samples[-1]
        assert sample.total_gradient == pytest.approx(float(gradient.norm()), rel=1e-4)
        assert sample.update_norm == pytest.approx(list(moved(model, before).values()), rel=1e-4)
        change = torch.cat([(p.detach() - before[n]).flatten() for n, p in model.named_parameters()])
        assert sample.promised == pytest.approx(-float(gradient @ change), rel=1e-3)
    assert "gradients-accumulate" not in [f.id for f in monitor.findings()]


@pytest.mark.parametrize("by_closure", [True, False])
def test_a_two_step_optimizer_is_measured_from_old_weights_to_new(by_closure):
    model = mlp()
    optimizer = Sharpness(model.parameters(), lr=0.1)
    monitor = Monitor(model, optimizer, every=1, entries=10**6)
    x, y = batch()
    for _ in range(4):
        before = copy_of(model)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if by_closure:
            optimizer.step(lambda: F.cross_entropy(model(x), y).backward())
        else:
            optimizer.first_step()
            F.cross_entropy(model(x), y).backward()
            optimizer.second_step()
        monitor.step(loss, targets=y)
        assert monitor.history.samples[-1].update_norm == pytest.approx(list(moved(model, before).values()), rel=1e-4)
    assert monitor.history.lrs[-1] == 0.1
    assert not any(s.carried for s in monitor.history.samples)


@pytest.mark.parametrize("wrap", [lambda o: Lookahead(o, k=2), Averaging])
def test_wrapped_optimizers_are_seen(wrap):
    model = mlp()
    optimizer = wrap(SGD(model.parameters(), 0.1))
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(4):
        monitor.step(one_step(model, optimizer, *batch()))
    assert len(monitor.history.samples) == 4
    assert all((s.update_norm > 0).all() for s in monitor.history.samples)
    assert list(monitor.history.lrs) == [0.1] * 4


def test_the_family_of_what_is_no_optimizer_is_empty():
    assert family("sgd") == []
    assert family(nn.Linear(2, 2)) == []
    inner = SGD(mlp().parameters(), 0.1)
    assert family(Averaging(Averaging(inner))) == [inner]


def test_an_optimizer_made_anew_midway_is_watched_on_and_the_old_one_is_let_go():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    gone = weakref.ref(optimizer)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        monitor.step(one_step(model, optimizer, *batch()))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(4):
        monitor.step(one_step(model, optimizer, *batch()))
    gc.collect()
    assert gone() is None
    # the first step of the new one came unseen
    assert [s.step for s in monitor.history.samples] == [0, 1, 2, 4, 5, 6]
    assert all((s.update_norm > 0).all() for s in monitor.history.samples)
    assert list(monitor.history.lrs) == [0.1] * 3 + [1e-3] * 4


def test_an_optimizer_of_another_network_is_not_taken_for_ours():
    model, other = mlp(), mlp()
    optimizer, stranger = SGD(model.parameters(), 0.1), SGD(other.parameters(), 7.0)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        one_step(other, stranger, *batch())
        monitor.step(one_step(model, optimizer, *batch()))
    assert list(monitor.history.lrs) == [0.1] * 3
    monitor.close()
    assert not stranger._optimizer_step_post_hooks


def test_a_head_replaced_midway_with_its_optimizer_is_watched():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        monitor.step(one_step(model, optimizer, *batch()))
    model[5] = nn.Linear(64, 10)
    optimizer = SGD(model.parameters(), 0.1)
    for _ in range(25):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    names = [p.name for p in monitor.history.parameters]
    assert names[-2:] == ["5.weight", "5.bias"]
    assert len(names) == 8
    lost = [p for p in monitor.history.parameters if not p.requires_grad]
    assert [p.name for p in lost] == ["5.weight", "5.bias"]
    assert len({len(s.update_norm) for s in monitor.history.samples}) == 1
    assert (monitor.history.samples[-1].update_norm[-2:] > 0).all()
    assert "frozen-parameters" not in [f.id for f in monitor.findings()]


def test_a_group_added_later_is_watched():
    model = mlp()
    optimizer = SGD(model[5].parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    monitor.step(one_step(model, optimizer, *batch()))
    assert [p.in_optimizer for p in monitor.history.parameters] == [False] * 4 + [True] * 2
    optimizer.add_param_group({"params": list(model[1].parameters()) + list(model[3].parameters()), "lr": 0.01})
    for _ in range(2):
        monitor.step(one_step(model, optimizer, *batch()))
    assert all(p.in_optimizer for p in monitor.history.parameters)
    assert (monitor.history.samples[-1].update_norm > 0).all()
    assert monitor.history.lrs[-1] == 0.1


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"lr": torch.tensor(1e-3)}])
def test_other_ways_of_computing_adam_give_the_same_figures(options):
    def figures(**given):
        torch.manual_seed(2)
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), **{"lr": 1e-3, **given})
        monitor = Monitor(model, optimizer, every=1)
        for _ in range(3):
            monitor.step(one_step(model, optimizer, *batch()))
        return monitor.history.lrs[-1], monitor.history.samples[-1].update_norm

    (plain_lr, plain), (lr, norms) = figures(), figures(**options)
    assert lr == pytest.approx(plain_lr)
    assert norms == pytest.approx(plain, rel=1e-3)


def test_a_fused_optimizer_under_a_scaler_shows_unscaled_gradients():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    monitor = Monitor(model, optimizer, every=1, entries=10**6)
    x, y = batch()
    loss = F.cross_entropy(model(x), y)
    plain = torch.stack([g.norm() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)])
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    monitor.step(loss, targets=y)
    assert monitor.history.samples[0].total_gradient == pytest.approx(float(plain.norm()), rel=1e-3)


class Counting(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.table = nn.Embedding(2000, 8, sparse=sparse)
        self.last = nn.Linear(8, 10)

    def forward(self, x):
        return self.last(self.table(x).mean(1))


def test_a_sparse_gradient_has_the_norm_of_the_dense_one():
    torch.manual_seed(0)
    sparse = Counting(sparse=True)
    dense = Counting(sparse=False)
    dense.load_state_dict(sparse.state_dict())
    x, y = torch.randint(0, 2000, (32, 6)), torch.randint(0, 10, (32,))
    norms, ratios = [], []
    for model in (sparse, dense):
        optimizer = SGD(model.parameters(), 0.5)
        monitor = Monitor(model, optimizer, every=1, entries=10**6)
        for _ in range(3):
            monitor.step(one_step(model, optimizer, x, y), targets=y)
        norms.append(monitor.history.samples[-1].gradient_norm)
        ratios.append(monitor.history.samples[-1].update_ratio)
        assert monitor._updates.gradients_are_finite()
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


def test_complex_parameters_are_measured_in_real_and_imaginary_parts():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.randn(64, 10, dtype=torch.cfloat) * 0.1)

        def forward(self, x):
            return (x.flatten(1).to(torch.cfloat) @ self.mix.conj()).abs()

    model = Waves()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1, entries=10**6)
    for _ in range(3):
        before = model.mix.detach().clone()
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    sample = monitor.history.samples[-1]
    assert sample.update_norm[0] == pytest.approx(float((model.mix.detach() - before).abs().square().sum().sqrt()))
    assert sample.gradient_norm[0] == pytest.approx(float(model.mix.grad.abs().square().sum().sqrt()))
    assert sample.promised == pytest.approx(0.1 * sample.gradient_norm[0] ** 2, rel=1e-3)


def test_a_step_too_small_for_float32_is_seen_in_float64():
    model = mlp().double()
    optimizer = SGD(model.parameters(), 1e-12)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(22):
        monitor.step(one_step(model, optimizer, x.double(), y), targets=y)
    assert (monitor.history.samples[-1].update_norm > 0).all()
    assert "frozen-parameters" not in [f.id for f in monitor.findings()]


def test_parameters_without_numbers_are_left_out_and_a_model_of_them_is_refused():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.later = nn.Linear(4, 4, device="meta")

        def forward(self, x):
            return self.net(x)

    model = Half()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(22):
        monitor.step(one_step(model, optimizer, *batch()))
    assert [p.requires_grad for p in monitor.history.parameters] == [True] * 6 + [False] * 2
    assert "frozen-parameters" not in [f.id for f in monitor.findings()]
    hollow = nn.Linear(2, 2, device="meta")
    with pytest.raises(UserError, match="meta device"):
        Monitor(hollow, SGD(hollow.parameters(), 0.1))


def test_an_average_of_the_weights_leaves_no_trace():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    average = torch.optim.swa_utils.AveragedModel(model)
    kept = copy.deepcopy(model)
    x, y = digits()
    loss = F.cross_entropy(model(x[:32]), y[:32])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update_parameters(model)
    # even a pass of the copies under gradients, on other images
    average(1000 * x[:7]), kept(1000 * x[:7])
    monitor.step(loss, targets=y[:32])
    assert monitor.history.samples[0].output.images == 32
    assert monitor.history.samples[0].input[1] < 2
    assert np.isfinite(monitor.history.samples[0].layers[0].std)
    assert monitor.history.samples[0].layers[0].std < 10


def test_the_settings_of_every_optimizer_are_known_equal_ones_once():
    model = mlp()
    first, rest = list(model.parameters())[:2], list(model.parameters())[2:]
    adam = torch.optim.Adam(first, betas=(0.5, 0.9), eps=1e-4, maximize=True)
    sgd = SGD([{"params": rest[:1]}, {"params": rest[1:], "lr": 1.0}], 0.1, momentum=0.95)
    monitor = Monitor(model, [adam, sgd])
    for optimizer in (sgd, adam):
        loss = one_step(model, optimizer, *batch())
    monitor.step(loss)
    assert set(monitor.history.groups) == {
        OptimizerGroup("Adam", 0.5, 0.9, 1e-4, maximize=True),
        OptimizerGroup("SGD", 0.95),
    }


@pytest.mark.parametrize(
    ("optimizer", "group"),
    [
        (lambda p: torch.optim.RMSprop(p, alpha=0.7, momentum=0.2), OptimizerGroup("RMSprop", 0.2, 0.7, 1e-8)),
        (lambda p: torch.optim.Adagrad(p), OptimizerGroup("Adagrad", None, None, 1e-10)),
        (lambda p: torch.optim.Rprop(p), OptimizerGroup("Rprop")),
        (lambda p: torch.optim.ASGD(p), OptimizerGroup("ASGD")),  # its alpha is an exponent
        (lambda p: Adan(p), OptimizerGroup("Adan", eps=1e-8)),  # three betas
    ],
    ids=["RMSprop", "Adagrad", "Rprop", "ASGD", "Adan"],
)
def test_what_an_optimizer_does_not_have_is_none(optimizer, group):
    model = mlp()
    made = optimizer(model.parameters())
    monitor = Monitor(model, made)
    monitor.step(one_step(model, made, *batch()))
    assert monitor.history.groups == [group]
