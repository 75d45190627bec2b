from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from wellfit import engine as module
from wellfit.config import EngineConfig
from wellfit.data.preprocess import Preprocessing
from wellfit.engine import Engine, affordable_batch, choose_engine, choose_threads, engine_here, training_speed
from wellfit.errors import UserError

SHAPE, CLASSES = (3, 8, 8), 4


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )


def test_a_network_trained_on_a_device_that_is_not_here_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    here = engine_here(Engine("cuda", "bfloat16", "channels_last", 4))
    assert here == Engine("cpu", "float32", "channels_last", torch.get_num_threads())
    own = Engine("cpu", "bfloat16", "contiguous", 1)
    assert engine_here(own) == own


def test_measuring_leaves_the_network_as_it_was() -> None:
    net = network().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert training_speed(net, Engine(), SHAPE, 4, CLASSES, 0.01) > 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_fixed_is_taken_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "training_speed", lambda *a: pytest.fail("nothing is left to measure"))
    requested = EngineConfig(device="cpu", dtype="float32", layout="contiguous", threads=1)
    assert choose_engine(network(), SHAPE, CLASSES, requested) == (Engine("cpu", "float32", "contiguous", 1), [])


def test_the_fastest_is_chosen_and_all_figures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(net: nn.Module, engine: Engine, *rest: object) -> float:
        return 300.0 if (engine.dtype, engine.layout) == ("bfloat16", "contiguous") else 100.0

    monkeypatch.setattr(module, "training_speed", speed)
    monkeypatch.setattr(module, "_fast_dtypes", lambda device: ["bfloat16", "float32"])
    chosen, measured = choose_engine(network(), SHAPE, CLASSES, EngineConfig(device="cpu", threads=1))
    assert chosen == Engine("cpu", "bfloat16", "contiguous", 1)
    tried = {(m["dtype"], m["layout"]) for m in measured}
    assert tried == {(d, y) for d in ("bfloat16", "float32") for y in ("channels_last", "contiguous")}
    assert sorted(m["images_per_second"] for m in measured) == [100.0, 100.0, 100.0, 300.0]


def test_one_burst_of_other_work_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates take turns, and the better turn of each counts."""
    turns: dict[str, int] = {}

    def speed(net: nn.Module, engine: Engine, *rest: object) -> float:
        turns[engine.layout] = turns.get(engine.layout, 0) + 1
        disturbed = engine.layout == "channels_last" and turns[engine.layout] == 1
        return 70.0 if disturbed else {"channels_last": 200.0, "contiguous": 100.0}[engine.layout]

    monkeypatch.setattr(module, "training_speed", speed)
    chosen, _ = choose_engine(network(), SHAPE, CLASSES, EngineConfig(device="cpu", dtype="float32", threads=1))
    assert chosen.layout == "channels_last"


def test_a_hopeless_candidate_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def speed(net: nn.Module, engine: Engine, *rest: object) -> float:
        turns.append(engine.layout)
        return 1.0 if engine.layout == "contiguous" else 100.0

    monkeypatch.setattr(module, "training_speed", speed)
    choose_engine(network(), SHAPE, CLASSES, EngineConfig(device="cpu", dtype="float32", threads=1))
    assert turns.count("contiguous") == 1
    assert turns.count("channels_last") == module.ROUNDS


def test_a_slow_network_is_measured_once_each_when_the_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turns = [0.0], list[str]()

    def speed(net: nn.Module, engine: Engine, *rest: object) -> float:
        clock[0] += 3.0
        turns.append(engine.layout)
        return 10.0

    monkeypatch.setattr(module, "training_speed", speed)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    asked = EngineConfig(device="cpu", dtype="float32", threads=1)
    choose_engine(network(), SHAPE, CLASSES, asked, seconds=4.0)
    assert sorted(turns) == ["channels_last", "contiguous"]
    turns.clear()
    choose_threads(network(), Engine(threads=2), SHAPE, CLASSES, batch_size=4, seconds=4.0)
    assert len(turns) == 2
    turns.clear()
    choose_engine(network(), SHAPE, CLASSES, asked, seconds=7.0)
    assert len(turns) == 3  # a second turn was begun, and not ended


@pytest.mark.parametrize(
    ("speed", "left", "batch"),
    # Sixteen steps fit into 0.8 × the smaller of 10 s and 3% of the budget: 8 s, then 1.44 s.
    [
        (1.0, 1000.0, 4),
        (4.0, 1000.0, 4),
        (8.0, 400.0, 4),
        (16.0, 1000.0, 8),
        (32.0, 1000.0, 16),
        (80.0, 60.0, 4),
        (100.0, 60.0, 8),
    ],
)
def test_images_of_a_probes_step_are_what_the_budget_pays(
    monkeypatch: pytest.MonkeyPatch, speed: float, left: float, batch: int
) -> None:
    monkeypatch.setattr(module, "training_speed", lambda *a: speed)
    asked = EngineConfig(device="cpu")
    assert affordable_batch(network(), asked, SHAPE, CLASSES, left, range(4, 17)) == batch


@pytest.mark.parametrize(("single", "threads"), [(100.0, 2), (110.0, 2), (120.0, 1)])
def test_one_thread_must_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, single: float, threads: int) -> None:
    monkeypatch.setattr(module, "training_speed", lambda net, engine, *a: single if engine.threads == 1 else 100.0)
    engine = Engine(threads=2)
    chosen, speed = choose_threads(network(), engine, SHAPE, CLASSES, batch_size=4, seconds=1.0)
    assert chosen.threads == threads
    assert speed == (single if threads == 1 else 100.0)


def test_one_thread_measures_and_all_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program on a core holds up all threads together, which must not decide dtype and layout."""
    monkeypatch.setattr(module, "CORES", 4)
    monkeypatch.setattr(module, "_fast_dtypes", lambda device: ["bfloat16", "float32"])
    seen: set[int] = set()

    def speed(net: nn.Module, engine: Engine, *rest: object) -> float:
        seen.add(engine.threads)
        return 200.0 if engine.dtype == "bfloat16" else 100.0

    monkeypatch.setattr(module, "training_speed", speed)
    before = torch.get_num_threads()
    chosen, _ = choose_engine(network(), SHAPE, CLASSES, EngineConfig(device="cpu"))
    torch.set_num_threads(before)
    assert seen == {1}
    assert (chosen.dtype, chosen.threads) == ("bfloat16", 4)


def test_a_real_probe_gives_a_working_engine() -> None:
    chosen, measured = choose_engine(network(), SHAPE, CLASSES, EngineConfig(device="cpu"), batch_size=4, seconds=0.2)
    assert len(measured) >= 2
    assert all(m["images_per_second"] > 0 for m in measured)
    with chosen.autocast():
        assert chosen.place(network())(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        (EngineConfig(device="gpu"), "unknown device 'gpu'"),
        (EngineConfig(dtype="float23"), r"unknown dtype 'float23' \(did you mean 'float32'\?\)"),
        (EngineConfig(layout="channel_last"), r"unknown layout 'channel_last' \(did you mean 'channels_last'\?\)"),
    ],
)
def test_unknown_names_are_said(requested: EngineConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        choose_engine(network(), SHAPE, CLASSES, requested)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_said(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"device '{device}' was asked for.*use --device auto"):
        choose_engine(network(), SHAPE, CLASSES, EngineConfig(device=device))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_inputs_are_normalised_and_in_the_layout(layout: str) -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    preprocessing = Preprocessing(8, 8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    values = Engine(layout=layout).inputs(pixels, preprocessing)
    assert values.is_contiguous(memory_format=module.LAYOUTS[layout])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    torch.testing.assert_close(values.contiguous(), (pixels / 255.0 - mean) / std, atol=1e-6, rtol=1e-5)


def test_weights_stay_float32_under_autocast() -> None:
    engine = Engine(dtype="bfloat16")
    net = engine.place(network())
    with engine.autocast():
        outputs = net(torch.zeros(2, *SHAPE))
    assert outputs.dtype == torch.bfloat16
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert isinstance(Engine(dtype="float32").autocast(), contextlib.nullcontext)


def test_activate_sets_the_thread_count() -> None:
    Engine(threads=1).activate()
    assert torch.get_num_threads() == 1


def test_the_line_and_the_dict_say_it_all() -> None:
    engine = Engine("cpu", "bfloat16", "channels_last", 2)
    assert engine.line == "cpu, bfloat16, channels_last, 2 threads"
    assert Engine(**engine.as_dict()) == engine
