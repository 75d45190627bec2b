"""However the network is called, its pass is seen; where it cannot be, `unjudged` says so."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.diagnosis.conftest import batch, cnn, digits, mlp, one_step
from wellfit.diagnosis.calls import heart
from wellfit.diagnosis.monitor import Monitor

SGD = torch.optim.SGD


class Halves(nn.Module):
    """A network whose loop calls its halves; the whole has no forward."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())])
        self.head = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 10))
        self.criterion = nn.CrossEntropyLoss()


def test_a_loop_that_calls_the_parts_is_seen_as_one_pass():
    model = Halves()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = digits()
    for step in range(5):
        for part in (0, 1):  # accumulation: two passes a step
            own = slice(64 * step + 32 * part, 64 * step + 32 * part + 32 - 8 * part)
            features = model.parts[0](x[own])
            answers = model.head(features)
            model.criterion(answers, y[own]).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.head(model.parts[0](x[:100]))
        monitor.step(1.0, targets=y[own])
        sample = monitor.history.samples[-1]
        assert [layer.name for layer in sample.layers] == ["parts.0.2", "head.1"]
        assert sample.layers[0].std == pytest.approx(float(features.detach().std(correction=0)), rel=1e-4)
        assert sample.output.images == 24
    assert monitor.history.samples[0].input is not None
    assert "outputs" not in monitor.history.unseen


def test_a_network_that_calls_itself_gives_the_inner_answers():
    class Wrapping(nn.Module):
        """As a trainer does that sends training_step through forward."""

        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, y=None):
            if y is None:
                return self.net(x)
            return {"loss": F.cross_entropy(self(x), y)}

    model = Wrapping()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(3):
        loss = model(x, y=y)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert monitor.answers is not None
        monitor.step(loss, targets=y)
    assert monitor.history.samples[-1].output.as_logits == pytest.approx(loss.item(), rel=1e-5)
    assert len(monitor.history.samples[-1].layers) == 2


def test_an_error_within_a_pass_does_not_blind_the_next():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            if len(x) == 3:
                raise ValueError("three")
            return self.net(x)

    model = Fragile()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="three"):
            model(batch(3)[0])
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    assert monitor.history.samples[-1].output.images == 32
    assert len(monitor.history.samples[-1].layers) == 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_that_run_twice_are_measured_once(reentrant):
    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
            self.block = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
            self.last = nn.Linear(32, 10)

        def forward(self, x):
            return self.last(checkpoint(self.block, self.first(x), use_reentrant=reentrant))

    def weights(watched):
        torch.manual_seed(0)
        model = Saving()
        optimizer = SGD(model.parameters(), 0.1)
        monitor = Monitor(model, optimizer, every=1) if watched else None
        for _ in range(3):
            loss = one_step(model, optimizer, *batch())
            if monitor:
                monitor.step(loss, targets=batch()[1])
        if monitor:
            assert [layer.name for layer in monitor.history.samples[-1].layers] == ["first.2", "block.1"]
            assert monitor.history.samples[-1].output.images == 32
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    assert weights(watched=True) == weights(watched=False)


@pytest.mark.parametrize("how", ["around", "in place", "a part"])
@pytest.mark.parametrize("first", ["compiled", "watched"])
def test_compiled_models_are_judged_or_the_unseen_is_named(how, first):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, compiles = cnn(), []

    def count(graph, inputs):
        compiles.append(graph)
        return graph.forward

    watched = model
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1) if first == "watched" else None
    if how == "around":
        watched = torch.compile(model, backend=count, fullgraph=True)
    elif how == "in place":
        model.compile(backend=count, fullgraph=True)
    else:
        model[0] = torch.compile(model[0], backend=count, fullgraph=True)
        optimizer = SGD(model.parameters(), 0.1)
    if monitor is None:
        monitor = Monitor(watched, optimizer, every=1)
    for _ in range(22):
        monitor.step(one_step(watched, optimizer, *batch()), targets=batch()[1])
    monitor.close()
    # watching neither breaks the graph nor has it made again at every step
    assert len(compiles) <= 2
    sample = monitor.history.samples[-1]
    moved = {p.name for p, norm in zip(monitor.history.parameters, sample.update_norm, strict=True) if norm > 0}
    assert {"0.weight", "1.weight", "3.weight", "4.bias", "8.weight"} <= moved
    ids = [f.id for f in monitor.findings()]
    assert "frozen-parameters" not in ids
    if how == "a part" or (how, first) == ("around", "compiled"):
        assert sample.output is not None
    for key, seen in (("constant-output", sample.output), ("dead-relu", sample.layers)):
        assert seen or "compiled" in monitor.unjudged[key] or "steps" in monitor.unjudged[key]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_model_is_judged_by_its_loss_and_its_weights():
    model = torch.jit.script(mlp())
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(5):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    assert (monitor.history.samples[-1].update_norm > 0).all()
    assert "scripted" in monitor.unjudged["saturated"]
    assert "scripted" in monitor.unjudged["double-softmax"]
    assert "nan" not in monitor.unjudged


def test_a_scripted_part_is_passed_over():
    with pytest.warns(FutureWarning, match="deprecated"):
        model = nn.Sequential(torch.jit.script(mlp()), nn.ReLU())
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(2):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    assert monitor.history.samples[-1].output.width == 10
    assert [layer.name for layer in monitor.history.samples[-1].layers] == ["1"]


def test_a_functional_pass_goes_by_the_modules_hooks():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()
    for _ in range(3):
        loss = F.cross_entropy(torch.func.functional_call(model, dict(model.named_parameters()), (x,)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss, targets=y)
    sample = monitor.history.samples[-1]
    assert sample.output.images == 32
    assert len(sample.layers) == 2


def test_gradients_by_torch_func_are_watched_at_the_optimizer():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    x, y = batch()

    def loss_of(weights):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    for _ in range(4):
        gradients, loss = torch.func.grad_and_value(loss_of)({n: p.detach() for n, p in model.named_parameters()})
        for name, p in model.named_parameters():
            p.grad = gradients[name]
        optimizer.step()
        monitor.step(loss, targets=y)
    assert (monitor.history.samples[-1].update_norm > 0).all()
    assert monitor.unjudged["constant-output"]


def test_a_data_parallel_model_is_seen_through_its_wrapper():
    model = nn.DataParallel(cnn())
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(3):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    assert monitor.history.parameters[0].name == "0.weight"
    assert monitor.history.samples[-1].output.images == 32
    assert [layer.name for layer in monitor.history.samples[-1].layers] == ["2", "5"]


def test_replicas_are_left_out():
    model = mlp()
    optimizer = SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1)
    replica = model._replicate_for_data_parallel()
    for name, child in model.named_children():
        replica._modules[name] = part = child._replicate_for_data_parallel()
        for key, p in child.named_parameters():
            setattr(part, key, p.clone())
    assert replica(batch(5)[0]).shape == (5, 10)
    assert monitor.answers is None
    model(batch(5)[0])
    assert monitor.answers is not None


def test_the_network_is_found_within_what_is_wrapped_around_it():
    class Wrapper(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net, self.criterion = net, nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)

    net = cnn()
    assert heart(Wrapper(Wrapper(net))) is net
    assert heart(nn.DataParallel(net)) is net
    assert heart(net) is net
    two = nn.ModuleDict({"body": cnn(), "head": nn.Linear(10, 10)})
    assert heart(two) is two
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert heart(single) is single
    model = Wrapper(net)
    net.eval()
    optimizer = SGD(model.parameters(), 0.01)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(30):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    assert "wrong-batchnorm-mode" in [f.id for f in monitor.findings()]
