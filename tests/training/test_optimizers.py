"""Update rules against loops over plain numpy arrays, ten steps in float64; groups, options and messages."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from wellfit.errors import UserError
from wellfit.models.lenet import LeNet5
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.kron import Kron
from wellfit.training.optimizers import OPTIMIZERS, build_optimizer, decaying_names, parameter_groups

# An ill-conditioned bowl with a twist, so that every coordinate has its own gradient history.
SCALES = np.array([4.0, 1.0, 0.1, 2.5])
START = np.array([1.0, -2.0, 3.0, 0.5])
STEPS = 10
EPS = 1e-7


def slope(x):
    return SCALES * x + 0.3 * np.cos(x)


def torch_path(name, lr, schedule=None, **options):
    """The points that the named optimizer visits, STEPS×4."""
    x = torch.tensor(START, requires_grad=True)
    optimizer = build_optimizer(name, [x], lr=lr, **options)
    path = []
    for i in range(STEPS):
        if schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule(i)
        x.grad = torch.tensor(slope(x.detach().numpy()))
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return np.array(path)


def numpy_path(rule):
    x, memory, path = START.copy(), {}, []
    for i in range(STEPS):
        x = rule(x, memory, i)
        path.append(x)
    return np.array(path)


def sgd(x, memory, i, lr=0.05):
    return x - lr * slope(x)


def momentum_rate_outside(x, memory, i, lr=0.05, rho=0.9, schedule=lambda i: 1.0):
    memory["v"] = rho * memory.get("v", 0.0) + slope(x)
    return x - lr * schedule(i) * memory["v"]


def momentum_rate_inside(x, memory, i, lr=0.05, rho=0.9, schedule=lambda i: 1.0):
    memory["v"] = rho * memory.get("v", 0.0) - lr * schedule(i) * slope(x)
    return x + memory["v"]


def nesterov_shifted(x, memory, i, lr=0.05, rho=0.9):
    old = memory.get("v", np.zeros(4))
    memory["v"] = rho * old - lr * slope(x)
    return x - rho * old + (1 + rho) * memory["v"]


def adagrad(x, memory, i, lr=0.05):
    g = slope(x)
    memory["s"] = memory.get("s", 0.0) + g * g
    return x - lr * g / (np.sqrt(memory["s"]) + EPS)


def rmsprop(x, memory, i, lr=0.05, alpha=0.99):
    g = slope(x)
    memory["s"] = alpha * memory.get("s", 0.0) + (1 - alpha) * g * g
    return x - lr * g / (np.sqrt(memory["s"]) + EPS)


def adam(x, memory, i, lr=0.05, b1=0.9, b2=0.999, corrected=True, decay=0.0):
    g = slope(x)
    memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    memory["s"] = b2 * memory.get("s", 0.0) + (1 - b2) * g * g
    m, s = memory["m"], memory["s"]
    if corrected:
        m, s = m / (1 - b1 ** (i + 1)), s / (1 - b2 ** (i + 1))
    return x - lr * decay * x - lr * m / (np.sqrt(s) + EPS)


def lion(x, memory, i, lr=0.05, b1=0.9, b2=0.99):
    g, m = slope(x), memory.get("m", np.zeros(4))
    memory["m"] = b2 * m + (1 - b2) * g
    return x - lr * np.sign(b1 * m + (1 - b1) * g)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(
    ("name", "rule", "options"),
    [
        ("sgd", sgd, {}),
        ("momentum", momentum_rate_outside, {}),
        ("momentum", momentum_rate_inside, {}),
        ("nesterov", nesterov_shifted, {}),
        ("momentum_inside", momentum_rate_inside, {}),
        ("nesterov_inside", nesterov_shifted, {}),
        ("timm:lion", lambda *a: lion(*a), {}),
        ("adagrad", adagrad, {"eps": EPS}),
        ("adam", adam, {"eps": EPS}),
        ("adamw", lambda *a: adam(*a, decay=0.1), {"eps": EPS, "weight_decay": 0.1, "decay_all": True}),
        ("rmsprop", rmsprop, {"eps": EPS}),
    ],
)
def test_ten_steps_equal_the_formula(name, rule, options, fused):
    if fused is False and OPTIMIZERS.get(name, OPTIMIZERS["rmsprop"]).fused_on:
        options = {**options, "fused": False}
    np.testing.assert_allclose(torch_path(name, 0.05, **options), numpy_path(rule), rtol=1e-12, atol=1e-13)


def test_momentum_099_and_other_options_reach_torch():
    path = numpy_path(lambda x, m, i: momentum_rate_outside(x, m, i, rho=0.99))
    np.testing.assert_allclose(torch_path("momentum", 0.05, momentum=0.99), path, rtol=1e-12)


def test_the_two_momentum_forms_part_under_a_schedule_and_ours_keeps_the_rate_outside():
    def drop(i):
        return 1.0 if i < 5 else 0.1

    ours = torch_path("momentum", 0.05, schedule=drop)
    outside = numpy_path(lambda x, m, i: momentum_rate_outside(x, m, i, schedule=drop))
    inside = numpy_path(lambda x, m, i: momentum_rate_inside(x, m, i, schedule=drop))
    np.testing.assert_allclose(ours, outside, rtol=1e-12)
    np.testing.assert_allclose(ours[:5], inside[:5], rtol=1e-12)
    assert np.abs(ours[5:] - inside[5:]).max() > 0.1


def nesterov_rate_outside(x, memory, i, schedule, lr=0.05, rho=0.9):
    g = slope(x)
    memory["v"] = rho * memory.get("v", 0.0) + g
    return x - lr * schedule(i) * (g + rho * memory["v"])


def nesterov_rate_inside(x, memory, i, schedule, lr=0.05, rho=0.9):
    old = memory.get("v", np.zeros(4))
    memory["v"] = rho * old - lr * schedule(i) * slope(x)
    return x - rho * old + (1 + rho) * memory["v"]


@pytest.mark.parametrize(
    ("ours", "other", "rule"),
    [
        ("nesterov", "nesterov_inside", nesterov_rate_outside),
        ("nesterov_inside", "nesterov", nesterov_rate_inside),
        ("momentum_inside", "momentum", lambda x, m, i, s: momentum_rate_inside(x, m, i, schedule=s)),
    ],
)
def test_each_form_follows_its_own_formula_under_a_schedule_and_parts_from_the_other(ours, other, rule):
    def drop(i):
        return 1.0 if i < 5 else 0.1

    path = torch_path(ours, 0.05, schedule=drop)
    np.testing.assert_allclose(path, numpy_path(lambda x, m, i: rule(x, m, i, drop)), rtol=1e-12, atol=1e-13)
    partner = torch_path(other, 0.05, schedule=drop)
    np.testing.assert_allclose(path[:5], partner[:5], rtol=1e-12, atol=1e-13)
    assert np.abs(path[5:] - partner[5:]).max() > 0.05


def newton_schulz(matrix, steps=5):
    """Five quintic iterations towards the nearest orthogonal matrix, in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / max(np.linalg.norm(wide), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


@pytest.mark.parametrize("shape", [(4, 6), (6, 3)])
def test_ten_steps_of_muon_equal_the_formula_up_to_bfloat16(shape):
    """torch runs the iteration in bfloat16, so each step is right to a few per cent of its size."""
    draw = np.random.Generator(np.random.Philox(1))
    gradients = draw.standard_normal((STEPS, *shape))
    weight = torch.tensor(draw.standard_normal(shape), requires_grad=True)
    x, velocity = weight.detach().numpy().copy(), np.zeros(shape)
    lr, decay, rho = 0.02, 0.1, 0.95
    optimizer = build_optimizer("muon", [weight], lr=lr, weight_decay=decay, momentum=rho)
    for g in gradients:
        weight.grad = torch.tensor(g)
        optimizer.step()
        velocity = rho * velocity + (1 - rho) * g
        ahead = (1 - rho) * g + rho * velocity
        before = x
        x = x * (1 - lr * decay) - lr * 0.2 * math.sqrt(max(shape)) * newton_schulz(ahead)
        moved = np.linalg.norm(x - before)
        assert np.linalg.norm(weight.detach().numpy() - x) < 0.05 * moved
        x = weight.detach().numpy().copy()


def kron_bowl(steps, lr):
    """A bowl of condition number 1e4 in a matrix, with axes that the rows and columns share."""
    source = torch.Generator().manual_seed(0)
    rows, columns = torch.logspace(-1, 1, 6), torch.logspace(-1, 1, 4)
    x = torch.randn(6, 4, generator=source).requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer = build_optimizer("kron", [x], lr=lr)
        for i in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - i / steps)
            x.grad = rows[:, None] * columns * x.detach()
            optimizer.step()
    return (0.5 * rows[:, None] * columns * x.detach().square()).sum().item()


def test_kron_flattens_an_ill_conditioned_bowl():
    start = kron_bowl(0, 0.05)
    assert kron_bowl(200, 0.05) < 1e-3 * start
    assert kron_bowl(50, 0.05) == kron_bowl(50, 0.05)


def test_kron_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path):
    def run(stop_after):
        torch.manual_seed(0)
        net = small_net()
        optimizer = build_optimizer("kron", net, lr=1e-3, weight_decay=0.01)
        for i in range(6):
            if i == stop_after:
                save_checkpoint(tmp_path / "state", {"optimizer": optimizer.state_dict()})
                optimizer = build_optimizer("kron", net, lr=1e-3, weight_decay=0.01)
                optimizer.load_state_dict(load_checkpoint(tmp_path / "state")["optimizer"])
            torch.manual_seed(i)
            for p in net.parameters():
                p.grad = torch.randn_like(p)
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    with torch.random.fork_rng(devices=[]):
        for a, b in zip(run(None), run(3), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["kron", "timm:lamb", "timm:adan"])
def test_lenet_learns_digits(name):
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).div(8).sub(1)[:1000, None]
    images = functional.interpolate(images, scale_factor=2)
    targets = torch.tensor(data.target[:1000])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = LeNet5(10, image_size=16, channels=1)
        optimizer = build_optimizer(name, net, lr={"kron": 3e-3}.get(name, 1e-2))
        for i in range(90):
            batch = torch.arange(64).add(64 * i) % 1000
            optimizer.zero_grad()
            functional.cross_entropy(net(images[batch]), targets[batch]).backward()
            optimizer.step()
        accuracy = (net(images).argmax(1) == targets).float().mean().item()
    assert accuracy > 0.9  # guessing gives 0.1


def test_timms_own_defaults_hold_and_its_kron_is_not_compiled():
    optimizer = build_optimizer("timm:sgd", small_net(), lr=0.1, momentum=0.8)
    assert {(g["nesterov"], g["momentum"]) for g in optimizer.param_groups} == {(True, 0.8)}
    assert isinstance(build_optimizer("timm:kronw", small_net(), lr=0.1), Kron)
    assert build_optimizer("timm:kronw", small_net(), lr=0.1).defaults["decoupled_decay"] is True
    assert build_optimizer("timm:kron", small_net(), lr=0.1).defaults["decoupled_decay"] is False


def test_velocity_is_a_decaying_sum_of_gradients():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = build_optimizer("momentum", [x], lr=1e-3)
    for _ in range(400):
        x.grad = torch.full((1,), 2.0, dtype=torch.float64)
        optimizer.step()
    assert optimizer.state[x]["momentum_buffer"].item() == pytest.approx(2.0 / (1 - 0.9))


def test_adagrad_steps_decay_to_zero():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = build_optimizer("adagrad", [x], lr=1.0)
    places = [0.0]
    for _ in range(100):
        x.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        places.append(x.item())
    np.testing.assert_allclose(-np.diff(places), 1 / np.sqrt(np.arange(1, 101)), rtol=1e-6)


def test_adam_first_step_is_lr_and_without_the_correction_316_percent_of_it():
    step = START - torch_path("adam", 1e-3)[0]
    np.testing.assert_allclose(np.abs(step), 1e-3, rtol=1e-5)
    uncorrected = START - adam(START, {}, 0, lr=1e-3, corrected=False)
    np.testing.assert_allclose(np.abs(uncorrected), 3.16e-3, rtol=1e-3)
    assert (1 - 0.9) / math.sqrt(1 - 0.999) == pytest.approx(3.1623, abs=1e-4)


def test_decoupled_decay_equals_l2_for_sgd_and_not_for_adam():
    def one_step(name, **options):
        x = torch.tensor(START, requires_grad=True)
        optimizer = build_optimizer(name, [x], lr=0.1, decay_all=True, **options)
        x.grad = torch.tensor(slope(START))
        optimizer.step()
        return x.detach().numpy()

    lam = 0.2
    np.testing.assert_allclose(
        one_step("sgd", weight_decay=2 * lam), START - 0.1 * (slope(START) + 2 * lam * START), rtol=1e-12
    )
    coupled, decoupled = one_step("adam", weight_decay=lam), one_step("adamw", weight_decay=lam)
    assert np.abs(coupled - decoupled).max() > 1e-3
    np.testing.assert_array_equal(one_step("adam", weight_decay=lam, decoupled=True), decoupled)
    np.testing.assert_array_equal(one_step("adamw", weight_decay=lam, decoupled=False), coupled)


def small_net():
    torch_net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    return torch_net


def test_only_weights_of_two_or_more_dimensions_decay():
    net = small_net()
    net[0].bias.requires_grad_(False)
    optimizer = build_optimizer("momentum", net, lr=0.1, weight_decay=0.01)
    named = {id(p): n for n, p in net.named_parameters()}
    by_decay = {g["weight_decay"]: {named[id(p)] for p in g["params"]} for g in optimizer.param_groups}
    assert by_decay == {0.01: {"0.weight", "4.weight"}, 0.0: {"1.weight", "1.bias", "4.bias"}}
    assert by_decay[0.01] == decaying_names(net)
    everything = build_optimizer("momentum", net, lr=0.1, weight_decay=0.01, decay_all=True)
    assert [g["weight_decay"] for g in everything.param_groups] == [0.01]


def test_names_the_model_exempts_do_not_decay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 8))
            self.head = nn.Linear(8, 2)

        def no_weight_decay(self):
            return {"position"}

    assert decaying_names(Net()) == {"head.weight"}


def test_groups_keep_their_own_rate_and_decay():
    net = small_net()
    given = [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[4].named_parameters(), "weight_decay": 0.5}]
    optimizer = build_optimizer("adamw", given, lr=0.1, weight_decay=0.01)
    rows = [(g["lr"], g["initial_lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups]
    assert rows == [(0.01, 0.01, 0.01, 1), (0.01, 0.01, 0.0, 1), (0.1, 0.1, 0.5, 1), (0.1, 0.1, 0.0, 1)]
    assert len(parameter_groups(net, weight_decay=0.0)) == 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_state_from_a_contiguous_checkpoint_serves_channels_last_weights(name):
    def run(layout, reload):
        torch.manual_seed(0)
        net = small_net().to(memory_format=layout)
        optimizer = build_optimizer(name, net, lr=0.01, weight_decay=0.01)
        source = torch.Generator().manual_seed(1)
        for i in range(4):
            if i == 2 and reload:
                state = copy.deepcopy(optimizer.state_dict())
                for values in state["state"].values():
                    values.update({k: v.contiguous() for k, v in values.items() if isinstance(v, torch.Tensor)})
                optimizer = build_optimizer(name, net, lr=0.01, weight_decay=0.01)
                optimizer.load_state_dict(state)
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=source)
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    plain = run(torch.contiguous_format, False)
    for layout, reload in ((torch.contiguous_format, True), (torch.channels_last, False), (torch.channels_last, True)):
        for a, b in zip(plain, run(layout, reload), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_fused_where_torch_has_it():
    net = small_net()
    assert build_optimizer("momentum", net, lr=0.1).defaults["fused"] is True
    assert build_optimizer("momentum", net, lr=0.1, fused=False).defaults["fused"] is False
    assert build_optimizer("momentum", net, lr=0.1, foreach=True).defaults["fused"] is None


def test_muon_moves_filters_along_orthogonal_matrices_and_leaves_the_rest_to_adamw():
    torch.manual_seed(0)
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    optimizer = build_optimizer("muon", net, lr=0.01, weight_decay=0.0)
    rules = {id(p): g["rule"] for g in optimizer.param_groups for p in g["params"]}
    assert {n: rules[id(p)] for n, p in net.named_parameters()} == {
        "0.weight": "muon",
        "0.bias": "adamw",
        "1.weight": "adamw",
        "1.bias": "adamw",
        "4.weight": "adamw",
        "4.bias": "adamw",
    }
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    moved = (net[0].weight.detach() - before["0.weight"]).reshape(4, -1)
    singular = torch.linalg.svdvals(moved)
    assert singular.max() / singular.min() < 2.0, "Newton-Schulz brings all singular values near one"
    # A step as large as AdamW's: root mean square 0.2·lr for a matrix, lr for what AdamW moves first.
    assert moved.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.25)
    torch.testing.assert_close((net[4].bias.detach() - before["4.bias"]).abs(), torch.full((5,), 0.01))


def test_muon_survives_a_copy_and_a_closure():
    net = nn.Linear(3, 2)
    optimizer = copy.deepcopy(build_optimizer("muon", [net.weight, net.bias], lr=0.01))
    (weight,) = optimizer.param_groups[0]["params"]

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(20):
        optimizer.step(closure)
    assert closure().item() < first
    assert "momentum_buffer" in optimizer.state[weight]


def test_a_users_own_optimizer_by_dotted_path():
    optimizer = build_optimizer("torch.optim:NAdam", small_net(), lr=0.02, weight_decay=0.1, momentum_decay=0.01)
    assert isinstance(optimizer, torch.optim.NAdam)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert {g["momentum_decay"] for g in optimizer.param_groups} == {0.01}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "sdg"}, "did you mean 'sgd'"),
        ({"name": "adam", "beta": (0.5, 0.9)}, "did you mean 'betas'"),
        ({"name": "adam", "lr": -1.0}, "at least 0, got -1.0"),
        ({"name": "adam", "lr": math.nan}, "finite"),
        ({"name": "adam", "weight_decay": -0.1}, "weight decay"),
        ({"name": "adam", "betas": (0.9, 1.5)}, "refuses its settings"),
        ({"name": "momentum", "decoupled": True}, "no decoupled"),
        ({"name": "muon", "decoupled": False}, "only decoupled"),
        ({"name": "no_such_package:Lion"}, "cannot be imported"),
        ({"name": "torch.optim:Addam"}, "did you mean 'Adam'"),
        ({"name": ":Lion"}, "write it in that form"),
        ({"name": "timm:lionn"}, "did you mean 'lion"),
        ({"name": "timm:bnbadam"}, "needs apex or bitsandbytes"),
        ({"name": "timm:adahessian"}, "second gradients"),
        ({"name": "timm:lion", "beta": (0.9, 0.99)}, "did you mean 'betas'"),
        ({"name": "kron", "decoupled": False}, "only decoupled"),
        ({"name": "lbfgs", "weight_decay": 0.1}, "training.l2"),
        ({"name": "lbfgs", "max_iterations": 3}, "did you mean 'max_iter'"),
        ({"name": "torch:float32"}, "must be a function or a class"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        build_optimizer(**{"module_or_params": small_net(), "lr": 0.1, **arguments})


def test_nothing_to_train_is_said():
    with pytest.raises(UserError, match="unfreeze"):
        build_optimizer("adam", small_net().requires_grad_(False), lr=0.1)
