"""What was not judged is said in words: what is lacking, apart from what does not arise for this network."""

import pytest
import torch
from torch import nn

from tests.diagnosis.conftest import batch, cnn, mlp, one_step
from wellfit.diagnosis.monitor import Monitor
from wellfit.diagnosis.rules.needs import NOT_HERE


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(16, 10)

    def forward(self, x):
        x = x.squeeze(1)
        out = self.layer(x if self.layer.batch_first else x.transpose(0, 1))[0]
        return self.head(out[:, -1] if self.layer.batch_first else out[-1])


def watched(model, steps=12, lr=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr)
    monitor = Monitor(model, optimizer, every=1)
    for _ in range(steps):
        monitor.step(one_step(model, optimizer, *batch()), targets=batch()[1])
    return monitor


def test_a_question_that_does_not_arise_is_no_lack():
    unjudged = watched(mlp(nn.GELU)).unjudged
    assert unjudged["dead-relu"].startswith(f"{NOT_HERE}it has no ReLU")
    assert unjudged["saturated"].startswith(f"{NOT_HERE}it has no tanh")
    assert not unjudged["overfitting"].startswith(NOT_HERE)
    assert "dead-relu" not in watched(cnn()).unjudged


def test_before_a_layer_was_seen_it_is_a_lack():
    model = mlp()
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), 0.1))
    assert "model(x)" in monitor.unjudged["dead-relu"]


def test_the_two_are_apart_in_print_and_on_the_page(tmp_path):
    monitor = watched(mlp(nn.GELU))
    foreign = sum(reason.startswith(NOT_HERE) for reason in monitor.unjudged.values())
    assert foreign >= 2
    assert f"{foreign} do not apply to this network" in repr(monitor)
    page = monitor.report(tmp_path / "doctor.html").read_text(encoding="utf-8")
    lacking, apart = page.index("What could not be judged, and"), page.index("What does not apply to this network")
    assert lacking < apart < page.index("it has no ReLU")
    assert NOT_HERE.strip() not in page[apart + 40 :]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (nn.LSTM, "other"),
        (nn.GRU, "other"),
        (nn.RNN, "bounded"),
        (lambda *args, **options: nn.RNN(*args, nonlinearity="relu", **options), "relu"),
    ],
)
def test_recurrent_layers_are_watched(make, kind, batch_first):
    torch.manual_seed(0)
    model = Recurrent(make(8, 16, batch_first=batch_first))
    monitor = watched(model)
    layer = monitor.history.samples[0].layers[0]
    assert (layer.name, layer.kind) == ("layer", kind)
    torch.manual_seed(0)
    fresh = Recurrent(make(8, 16, batch_first=batch_first))
    with torch.no_grad():
        x = batch()[0].squeeze(1)
        out = fresh.layer(x if batch_first else x.transpose(0, 1))[0]
    assert layer.mean == pytest.approx(float(out.mean()), abs=1e-5)
    # over the images, wherever their axis is
    assert layer.spread == pytest.approx(float(out.std(0 if batch_first else 1, correction=0).mean()), rel=1e-4)
    assert (kind == "relu") == ("dead-relu" not in monitor.unjudged)


def test_sequences_of_several_lengths_are_watched_too():
    class Packed(Recurrent):
        def forward(self, x):
            lengths = torch.arange(1, 33).clamp(max=8)
            packed = nn.utils.rnn.pack_padded_sequence(x.squeeze(1), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.layer(packed)[1][0][-1])

    monitor = watched(Packed(nn.LSTM(8, 16, batch_first=True)))
    assert monitor.history.samples[0].layers[0].name == "layer"
    assert monitor.history.samples[0].received is not None
