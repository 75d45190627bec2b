"""The monitor sees what it says it sees, changes nothing, and refuses what it cannot watch."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.diagnosis.conftest import Functional, batch, cnn, digits, mlp, one_step
from wellfit.diagnosis.monitor import KEPT, Monitor
from wellfit.diagnosis.turns import is_watched
from wellfit.errors import UserError

SGD = torch.optim.SGD


def trained(make, optimizer_of, *, watched, autocast=False, layout=torch.contiguous_format, steps=25):
    torch.manual_seed(1)
    model = make().to(memory_format=layout)
    optimizer = optimizer_of(model.parameters())
    monitor = Monitor(model, optimizer, every=2) if watched else None
    x, y = digits()
    for i in range(steps):
        part = slice(32 * i, 32 * i + 32)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(x[part]), y[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if monitor:
            monitor.step(loss, targets=y[part])
    if monitor:
        assert monitor.history.samples[-1].layers
        monitor.close()
    return b"".join(t.detach().contiguous().numpy().tobytes() for t in model.state_dict().values())


@pytest.mark.parametrize("make", [mlp, cnn, Functional, lambda: nn.Sequential(mlp(), nn.Dropout(0.3))])
@pytest.mark.parametrize(
    "optimizer_of", [lambda p: SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.AdamW(p, 1e-3)], ids=["sgd", "adamw"]
)
def test_watching_changes_no_bit_of_the_training(make, optimizer_of):
    assert trained(make, optimizer_of, watched=True) == trained(make, optimizer_of, watched=False)


def test_watching_changes_no_bit_under_autocast_and_channels_last():
    settings = {"autocast": True, "layout": torch.channels_last}
    plain = trained(cnn, lambda p: SGD(p, 0.1), watched=False, **settings)
    assert trained(cnn, lambda p: SGD(p, 0.1), watched=True, **settings) == plain


def hooks_of(model, optimizer):
    on_modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    on_tensors = sum(len(p._backward_hooks or {}) for p in model.parameters())
    return (
        on_modules + on_tensors + len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    )


@pytest.mark.parametrize("make", [cnn, Functional])
def test_closing_removes_every_hook_even_after_an_error_in_the_loop(make):
    model = make()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)

    def loop():
        with monitor:
            monitor.step(one_step(model, optimizer, *batch()))
            assert hooks_of(model, optimizer) > 4
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert hooks_of(model, optimizer) == 0
    assert isinstance(monitor.findings(), list)
    with pytest.raises(UserError, match="closed"):
        monitor.step(1.0)


def test_update_ratio_and_gradient_norm_are_exact_for_tensors_that_are_read_whole():
    model = mlp()
    nn.init.zeros_(model[-1].bias)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    monitor = Monitor(model, optimizer, every=1, entries=10**6)
    for step in range(3):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        monitor.step(one_step(model, optimizer, *batch()))
        ratios = {n: float((p.detach() - before[n]).norm() / before[n].norm()) for n, p in model.named_parameters()}
        if step == 0:
            ratios.pop("5.bias")  # its norm was zero: no ratio (SPEC C8)
        assert monitor.statistics["update_ratio"] == pytest.approx(ratios, rel=1e-4)
        total = math.sqrt(sum(float(p.grad.norm()) ** 2 for p in model.parameters()))
        assert monitor.statistics["gradient_norm"] == pytest.approx(total, rel=1e-5)
        assert monitor.statistics["step"] == step


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_sampled_norms_estimate_the_whole_tensor(layout):
    model = nn.Sequential(nn.Conv2d(3, 64, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 64, 10))
    model = model.to(memory_format=layout)
    optimizer = SGD(model.parameters(), 0.05)
    monitor = Monitor(model, optimizer, every=1, entries=2000)
    torch.manual_seed(3)
    x, y = torch.randn(16, 3, 8, 8).to(memory_format=layout), torch.randint(0, 10, (16,))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    monitor.step(one_step(model, optimizer, x, y))
    for name, p in model.named_parameters():
        exact = float((p.detach() - before[name]).norm() / before[name].norm())
        assert monitor.statistics["update_ratio"][name] == pytest.approx(exact, rel=0.15), name
    # plain SGD promises lr·‖g‖²
    promised = 0.05 * sum(float(p.grad.norm()) ** 2 for p in model.parameters())
    assert monitor.history.samples[0].promised == pytest.approx(promised, rel=0.15)


def test_layer_figures_are_those_of_the_activations():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        model[1].weight.mul_(20)
        model[3].bias[:4] = -1e4
    optimizer = SGD(model.parameters(), 1e-6)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch(64)
    with torch.no_grad():
        tanh, relu = model[:3](x), model[:5](x)
    for _ in range(5):
        monitor.step(one_step(model, optimizer, x, y))
    layers = monitor.statistics["layers"]
    assert list(layers) == ["2", "4"]
    assert layers["2"]["mean"] == pytest.approx(float(tanh.mean()), abs=1e-3)
    assert layers["2"]["std"] == pytest.approx(float(tanh.std(correction=0)), abs=1e-3)
    assert layers["2"]["saturated"] == pytest.approx(float((tanh.abs() > 0.97).float().mean()), abs=0.01)
    assert layers["2"]["dead"] is None
    silent = float((relu.amax(0) <= 0).float().mean())
    assert silent >= 4 / 16
    assert layers["4"]["dead"] == pytest.approx(silent)
    assert layers["4"]["saturated"] is None
    spread = float(relu.std(0, correction=0).mean())
    assert monitor.history.samples[0].layers[1].spread == pytest.approx(spread, rel=1e-3)


def test_a_unit_that_was_active_once_in_the_window_is_not_dead():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    optimizer = SGD(model.parameters(), 0.0)
    monitor = Monitor(model, optimizer, every=1)
    quiet, loud = torch.tensor([[1.0, -1.0]] * 4), torch.tensor([[1.0, 1.0]] * 4)
    for x in (quiet, loud, quiet, quiet, quiet):
        monitor.step(one_step(model, optimizer, x, torch.zeros(4, dtype=torch.long)))
    assert monitor.statistics["layers"]["1"]["dead"] == 0.0
    for x in (quiet, quiet):
        monitor.step(one_step(model, optimizer, x, torch.zeros(4, dtype=torch.long)))
    assert monitor.statistics["layers"]["1"]["dead"] == 0.5


def test_a_network_without_activation_modules_is_seen_at_its_weight_layers():
    model = Functional()
    optimizer = SGD(model.parameters(), 0.01)
    with torch.no_grad():
        model.second.bias[:8] = -100
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(5):
        monitor.step(one_step(model, optimizer, *batch()))
    layers = monitor.history.samples[-1].layers
    assert [layer.name for layer in layers] == ["input of second", "input of third", "input of last"]
    assert {layer.kind for layer in layers} == {"relu"}
    # the flattened maps are judged by channel: 8 of 16
    assert layers[1].dead == pytest.approx(0.5, abs=0.13)
    assert layers[1].dead >= 0.5


def test_a_validation_pass_leaves_no_trace():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    loss = one_step(model, optimizer, x, y)
    with torch.no_grad():
        model(1000 * digits()[0])
    monitor.step(loss, targets=y)
    assert monitor.history.samples[0].output.images == len(x)
    assert monitor.history.samples[0].input[1] < 2


def test_watched_steps_are_the_first_three_and_one_of_every_ten():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    watched = []
    for step in range(45):
        monitor.step(one_step(model, optimizer, *batch(8)))
        if monitor.watched:
            watched.append(step)
    assert watched == [s.step for s in monitor.history.samples] == [s for s in range(45) if is_watched(s, 10)]
    assert len(monitor.history.losses) == len(monitor.history.lrs) == 45


def test_memory_stays_bounded_in_a_long_run():
    model = nn.Linear(2, 2)
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(KEPT + 300):
        monitor.step(one_step(model, optimizer, torch.ones(2, 2), torch.tensor([0, 1])))
    steps = [s.step for s in monitor.history.samples]
    assert len(steps) <= KEPT
    assert steps == sorted(set(steps))
    assert steps[:100] == list(range(100))
    assert steps[-100:] == list(range(KEPT + 200, KEPT + 300))


def test_the_statistics_are_json():
    model = cnn()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    assert monitor.statistics == {}
    monitor.step(one_step(model, optimizer, *batch()))
    assert json.loads(json.dumps(monitor.statistics, allow_nan=False)) == monitor.statistics


def step_together(model, optimizers, monitor, steps):
    for _ in range(steps):
        loss = F.cross_entropy(model(batch()[0]), batch()[1])
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        for o in optimizers:
            o.step()
        monitor.step(loss)


def test_several_optimizers_frozen_and_shared_parameters():
    model = mlp()
    model[1].weight.requires_grad_(False)
    model[3].weight = model[5].weight = nn.Parameter(torch.randn(64, 64) * 0.1)
    model[5].bias = nn.Parameter(torch.zeros(64))
    optimizers = [SGD([model[1].bias, model[3].bias], 0.1), SGD([model[3].weight, model[5].bias], 0.2)]
    monitor = Monitor(model, optimizers, every=1)
    step_together(model, optimizers, monitor, steps=3)
    ratios = monitor.statistics["update_ratio"]
    assert set(ratios) == {"1.bias", "3.weight", "3.bias", "5.bias"}
    assert all(r > 0 for r in ratios.values())
    assert monitor.history.lrs[-1] == 0.1


def test_accumulated_gradients_are_no_forgotten_zero_grad():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.05)
    monitor = Monitor(model, optimizer, every=1)
    x, y = digits()
    for _ in range(6):
        optimizer.zero_grad(set_to_none=False)
        for part in range(4):
            loss = F.cross_entropy(model(x[32 * part :][:32]), y[32 * part :][:32]) / 4
            loss.backward()
        optimizer.step()
        monitor.step(loss.detach() * 4)
    carried = [s.carried for s in monitor.history.samples]
    assert carried == [None] + [False] * 5


@pytest.mark.parametrize("place", ["before forward", "after forward", "after step", "never"])
def test_the_place_of_zero_grad_does_not_matter_but_its_absence_does(place):
    model = mlp()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(6):
        if place == "before forward":
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if place == "after forward":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss.item(), targets=y)
        if place == "after step":
            optimizer.zero_grad()
    ids = [f.id for f in monitor.findings()]
    assert ("gradients-accumulate" in ids) == (place == "never")


def test_steps_that_a_gradient_scaler_skips_are_no_mistake():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-60)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(5):
        loss = F.cross_entropy(model(x), y) * 4
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        monitor.step(loss, targets=y)
    assert len(monitor.history.losses) == 5
    assert 0 < len(monitor.history.samples) < 5
    # what was seen are the unscaled gradients
    assert monitor.history.samples[-1].total_gradient < 1e3


def test_a_compiled_model_trains_on_and_what_is_unseen_is_named():
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(compiled, optimizer, every=1)
    for _ in range(6):
        monitor.step(one_step(compiled, optimizer, *batch()), targets=batch()[1])
    assert next(iter(monitor.statistics["update_ratio"])) == "1.weight"
    assert monitor.history.samples[-1].carried is False
    seen = bool(monitor.history.samples[-1].layers)
    assert seen or "compiled" in monitor.unjudged["dead-relu"]


def test_outputs_are_found_in_tuples_and_mappings():
    class Wrapped(nn.Module):
        def __init__(self, wrap):
            super().__init__()
            self.net, self.wrap = mlp(), wrap

        def forward(self, x):
            return self.wrap(self.net(x))

    for wrap in (lambda o: (o, None), lambda o: {"loss": o.sum(), "logits": o}, lambda o: [o]):
        model = Wrapped(wrap)
        optimizer = SGD(model.parameters(), 0.1)
        monitor = Monitor(model, optimizer, every=1)
        out = model(batch()[0])
        loss = F.cross_entropy(out["logits"] if isinstance(out, dict) else out[0], batch()[1])
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=batch()[1])
        output = monitor.history.samples[0].output
        assert output.width == 10
        assert output.as_logits == pytest.approx(loss.item(), rel=1e-5)
        assert monitor.history.classes == 10


def test_soft_targets_give_the_soft_cross_entropy():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    soft = 0.6 * F.one_hot(y, 10).float() + 0.4 * F.one_hot(y.flip(0), 10).float()
    loss = one_step(model, optimizer, x, soft)
    monitor.step(loss, targets=soft)
    assert monitor.history.samples[0].output.as_logits == pytest.approx(loss.item(), rel=1e-5)


def test_an_epoch_without_a_training_loss_gets_the_mean_of_its_steps():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    for losses in ([1.0, 3.0], [5.0]):
        for loss in losses:
            one_step(model, optimizer, *batch())
            monitor.step(loss)
        monitor.end_epoch(val_accuracy=0.5)
    assert [e.train_loss for e in monitor.history.epochs] == [2.0, 5.0]
    assert [e.step for e in monitor.history.epochs] == [2, 3]


def test_what_was_not_judged_is_named_with_what_it_lacked():
    model = mlp(nn.GELU)
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    monitor.step(one_step(model, optimizer, *batch()).item())
    unjudged = monitor.unjudged
    assert "nan" not in unjudged
    assert "targets" in unjudged["class-collapsed"]
    assert "it has no ReLU" in unjudged["dead-relu"]
    assert "end_epoch" in unjudged["overfitting"]
    assert "100 steps (has 1)" in unjudged["not-learning"]


def test_rules_and_history_need_no_torch():
    code = "import sys, wellfit.diagnosis.rules; print('torch' in sys.modules or 'matplotlib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_parameters_of_zero_norm_have_no_ratio():
    model = mlp()
    for p in model.parameters():
        nn.init.zeros_(p) if p.ndim == 1 else None
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    monitor.step(one_step(model, optimizer, *batch()))
    assert set(monitor.statistics["update_ratio"]) == {"1.weight", "3.weight", "5.weight"}
    assert np.isfinite(list(monitor.statistics["update_ratio"].values())).all()


def test_the_entries_that_make_one_output_are_recorded_of_weights_alone():
    model = cnn()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer)
    monitor.step(one_step(model, optimizer, *batch()))
    assert {p.name: p.fan_in for p in monitor.history.parameters if p.fan_in} == {
        "0.weight": 1 * 3 * 3,
        "3.weight": 8 * 3 * 3,
        "8.weight": 256,
    }


def test_the_largest_decay_of_each_parameter_is_recorded_over_groups_and_optimizers():
    model = mlp()
    heads = [{"params": [model[5].weight], "weight_decay": 0.1}, {"params": [model[5].bias], "weight_decay": 0.0}]
    optimizers = [
        SGD([{"params": model[1].parameters()}, *heads], 0.01, weight_decay=0.02),
        torch.optim.AdamW([model[1].weight], 0.01, weight_decay=0.3),
        SGD([model[1].bias], 0.01, weight_decay=0.001),
    ]
    monitor = Monitor(model, optimizers, every=1)
    step_together(model, optimizers, monitor, steps=2)
    decays = {p.name: p.decay for p in monitor.history.parameters}
    assert decays == {
        "1.weight": 0.3,
        "1.bias": 0.02,
        "3.weight": 0.0,
        "3.bias": 0.0,
        "5.weight": 0.1,
        "5.bias": 0.0,
    }
    assert [p.name for p in monitor.history.parameters if not p.in_optimizer] == ["3.weight", "3.bias"]


def test_what_each_dropout_layer_drops_is_recorded():
    for model, dropped in (
        (nn.Sequential(nn.Dropout2d(0.2), mlp(), nn.Dropout(0.7)), [0.2, 0.7]),
        (mlp(), []),
    ):
        optimizer = SGD(model.parameters(), 0.1)
        monitor = Monitor(model, optimizer)
        monitor.step(one_step(model, optimizer, *batch()))
        assert monitor.history.dropped == dropped


@pytest.mark.parametrize(
    ("zeroed", "carried"),
    [(slice(0, 3), True), (slice(3, 6), True), (slice(0, 6), False), (slice(0, 0), True)],
    ids=["first half", "second half", "all", "nothing"],
)
def test_an_old_gradient_of_either_half_is_seen(zeroed, carried):
    model = mlp()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(5):
        for p in list(model.parameters())[zeroed]:
            p.grad = None
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y)
    assert [s.carried for s in monitor.history.samples] == [None] + [carried] * 4


def test_an_old_gradient_is_told_of_each_step_by_itself():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for step in range(6):
        if step in (2, 4):
            optimizer.zero_grad(set_to_none=step == 2)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y)
    assert [s.carried for s in monitor.history.samples] == [None, True, False, True, False, True]


def test_a_network_of_one_parameter_shows_its_old_gradient():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        loss = F.cross_entropy(model(batch()[0]), batch()[1])
        loss.backward()
        optimizer.step()
        monitor.step(loss)
    assert [s.carried for s in monitor.history.samples] == [None, True, True]


def test_what_is_no_plain_number_is_no_weight_decay():
    """An optimizer of one's own may keep a list of decays; watching it must not end the training."""
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    optimizer.param_groups[0]["weight_decay"] = 0
    with Monitor(model, optimizer) as monitor:
        x, y = digits()
        for decay in (0, 0.0):
            optimizer.param_groups[0]["weight_decay"] = decay
            F.cross_entropy(model(x[:32]), y[:32]).backward()
            optimizer.step()
            optimizer.param_groups[0]["weight_decay"] = [1e-3, 1e-4]
            monitor.step(1.0, targets=y[:32])
        assert {p.decay for p in monitor.history.parameters} == {0.0}


def test_only_layers_whose_rows_are_outputs_have_a_fan_in():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(128, 10))
    model.embedding = nn.Embedding(5, 8)
    with Monitor(model, SGD(model.parameters(), 0.1)) as monitor:
        names = {p.name: p.fan_in for p in monitor._updates.parameters() if p.weight}
    assert names == {"0.weight": 9, "1.weight": 0, "3.weight": 128, "embedding.weight": 0}


def test_a_weight_that_is_computed_is_not_asked_for():
    """Each reading of a spectrally normed weight in training mode moves its buffers on."""
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monitor = Monitor(model, SGD(model.parameters(), 0.1))
    monitor.close()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
