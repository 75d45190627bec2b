"""Update rules against loops over plain numpy arrays, ten steps in float64; groups, options and messages."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from wellfit.errors import UserError
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


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(
    ("name", "rule", "options"),
    [
        ("sgd", sgd, {}),
        ("momentum", momentum_rate_outside, {}),
        ("momentum", momentum_rate_inside, {}),
        ("nesterov", nesterov_shifted, {}),
        ("adagrad", adagrad, {"eps": EPS}),
        ("adam", adam, {"eps": EPS}),
        ("adamw", lambda *a: adam(*a, decay=0.1), {"eps": EPS, "weight_decay": 0.1, "decay_all": True}),
        ("rmsprop", rmsprop, {"eps": EPS}),
    ],
)
def test_ten_steps_equal_the_formula(name, rule, options, fused):
    if fused is False and name != "rmsprop":
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
        ({"name": "torch:float32"}, "must be a function or a class"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        build_optimizer(**{"module_or_params": small_net(), "lr": 0.1, **arguments})


def test_nothing_to_train_is_said():
    with pytest.raises(UserError, match="unfreeze"):
        build_optimizer("adam", small_net().requires_grad_(False), lr=0.1)
