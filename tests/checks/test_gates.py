"""All gates in order: none changes what it is given, the first failure stops, force goes on."""

import pytest
import torch
from torch import nn

from tests.checks.conftest import fingerprint, patterned, small_convnet
from wellfit.checks import batch_leak, initial_loss, input_ignored, lr_range, regularisation, run_gates, small_sample
from wellfit.errors import UserError
from wellfit.findings import GateFailed
from wellfit.record import Record, read_record
from wellfit.training.optimizers import build_optimizer
from wellfit.training.regularize import build_criterion, l2

CE = build_criterion("cross-entropy")
IMAGES, TARGETS = patterned(40)


def batches(i):
    return patterned(16, seed=100 + i)


def build(module, lr):
    return build_optimizer("adamw", module, lr=lr, weight_decay=0.01)


GATES = {
    "initial_loss": lambda m: initial_loss(m, CE, IMAGES, TARGETS, classes=4, created_head=False),
    "regularisation": lambda m: regularisation(
        m, CE, IMAGES, TARGETS, penalty=l2(0.1), optimizer=lambda n: build(n, 1e-3)
    ),
    "small_sample": lambda m: small_sample(m, CE, IMAGES[:20], TARGETS[:20], max_steps=20),
    "lr_range": lambda m: lr_range(m, CE, batches, build, iterations=12),
    "input_ignored": lambda m: input_ignored(m, IMAGES),
    "batch_leak": lambda m: batch_leak(m, IMAGES),
}


@pytest.mark.parametrize("name", sorted(GATES))
def test_no_gate_changes_module_optimizer_or_generators(name, lived_in):
    module, optimizer = lived_in
    images, targets = IMAGES.clone(), TARGETS.clone()
    before = fingerprint(module, optimizer)
    result = GATES[name](module)
    assert fingerprint(module, optimizer) == before
    assert torch.equal(images, IMAGES)
    assert torch.equal(targets, TARGETS)
    assert result.seconds >= 0.0


@pytest.mark.parametrize("name", sorted(GATES))
def test_every_gate_runs_under_autocast(name):
    def context():
        return torch.autocast("cpu", torch.bfloat16)

    net = small_convnet(classes=4)
    run = {
        "initial_loss": lambda: initial_loss(net, CE, IMAGES, TARGETS, classes=4, created_head=True, context=context),
        "regularisation": lambda: regularisation(net, CE, IMAGES, TARGETS, penalty=l2(0.1), context=context),
        "small_sample": lambda: small_sample(net, CE, IMAGES[:20], TARGETS[:20], context=context),
        "lr_range": lambda: lr_range(net, CE, batches, build, iterations=40, context=context),
        "input_ignored": lambda: input_ignored(net, IMAGES, context=context),
        "batch_leak": lambda: batch_leak(net, IMAGES, context=context),
    }
    result = run[name]()
    assert result.passed, result.message


def test_a_sound_network_passes_all_gates_in_order(tmp_path):
    record = Record(tmp_path / "record.jsonl")
    seen = []

    def note(result):
        seen.append(result.check)
        record.write("check", **result.as_dict())

    results = run_gates(
        small_convnet(classes=4),
        CE,
        IMAGES,
        TARGETS,
        classes=4,
        created_head=True,
        optimizer=build,
        penalty=l2(1e-4),
        batches=batches,
        iterations=40,
        on_result=note,
    )
    assert all(result.passed for result in results)
    assert seen == [
        "input-ignored",
        "batch-leak",
        "initial-loss",
        "regularisation-inert",
        "cannot-overfit-small-sample",
        "no-good-lr",
    ]
    record.close()
    assert [line["check"] for line in read_record(tmp_path / "record.jsonl")] == seen


def broken():
    net = small_convnet(classes=4)
    with torch.no_grad():
        net[-1].weight.mul_(300)
    return net


def test_the_first_failure_stops_and_is_reported_first():
    seen = []
    with pytest.raises(GateFailed, match="initial-loss") as caught:
        run_gates(
            broken(),
            CE,
            IMAGES,
            TARGETS,
            classes=4,
            created_head=True,
            optimizer=build,
            on_result=lambda result: seen.append(result.check),
        )
    assert seen[-1] == "initial-loss"
    assert [finding.id for finding in caught.value.findings] == ["initial-loss"]


def test_force_goes_on_and_keeps_the_findings():
    results = run_gates(
        broken(), CE, IMAGES, TARGETS, classes=4, created_head=True, optimizer=build, max_steps=5, force=True
    )
    assert len(results) == 5
    assert "initial-loss" in {result.check for result in results if result.stops}


def test_without_batches_there_is_no_lr_gate_and_odd_outputs_are_the_users_mistake():
    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x)

    with pytest.raises(UserError, match="images × classes"):
        run_gates(Maps(), CE, IMAGES, TARGETS, classes=4, created_head=False, optimizer=build)


def test_a_model_that_cannot_be_copied_is_said():
    net = small_convnet(classes=4)
    net.handle = (i for i in range(3))
    with pytest.raises(UserError, match="cannot be copied"):
        input_ignored(net, IMAGES)
