from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wellfit.errors import UserError
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
from wellfit.training.optimizers import build_optimizer


def same(one: Any, other: Any) -> bool:
    """Equal in structure, type and every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


STATE: dict[str, Any] = {
    "module": {"weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "steps": torch.tensor(5)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "buffer": None}}, "groups": [{"betas": (0.9, 0.999)}]},
    "kinds": [True, 1, 1.5, "text", None, (), [], {}],
    "tensors": [torch.zeros(0), torch.ones(2, dtype=torch.bfloat16), torch.tensor([True]), torch.arange(3)],
    "small": 5e-324,
    "exact": 0.1 + 0.2,
}


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint" / "training.safetensors"
    save_checkpoint(path, STATE)
    loaded = load_checkpoint(path)
    assert same(loaded, STATE)


def test_the_comparison_sees_a_difference() -> None:
    assert not same(STATE, {**STATE, "exact": 0.3})
    assert not same({"a": 1}, {"a": 1.0})
    assert not same({"a": torch.zeros(2)}, {"a": torch.zeros(3)})


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", STATE)
    save_checkpoint(tmp_path / "b", STATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_infinity_and_nan_survive(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"best": -float("inf"), "losses": [float("nan"), float("inf")]})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded is not None
    assert loaded["best"] == -float("inf")
    assert loaded["losses"][0] != loaded["losses"][0]
    assert loaded["losses"][1] == float("inf")


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adamw", "rmsprop", "muon"])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(name: str, tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        return module, build_optimizer(name, module, lr=0.05, weight_decay=1e-2)

    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            module(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    module, optimizer = fresh()
    steps(module, optimizer, 3)
    state = {"module": dict(module.state_dict()), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "c", state)
    steps(module, optimizer, 4)

    again, restored = fresh()
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded is not None
    again.load_state_dict(loaded["module"])
    restored.load_state_dict(loaded["optimizer"])
    steps(again, restored, 4)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_damaged_file_is_said(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "training.safetensors"
    save_checkpoint(path, STATE)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"is damaged.*delete it") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_safetensors_file_is_said(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "f")
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path / "f")


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a checkpoint holds tensors, numbers, text, lists and dicts, got object"):
        save_checkpoint(tmp_path / "c", {"thing": object()})


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, os.strerror(errno.EROFS)),
        (errno.EACCES, os.strerror(errno.EACCES)),
    ],
)
def test_a_disk_that_takes_no_more_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, number: int, said: str
) -> None:
    path = tmp_path / "run" / "checkpoint" / "training.safetensors"
    save_checkpoint(path, STATE)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(UserError, match=said) as caught:
        save_checkpoint(path, {**STATE, "exact": 1.0})
    assert f"wellfit resume {tmp_path / 'run'}" in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from wellfit.errors import UserError
from wellfit.training.checkpoint import load_checkpoint, save_checkpoint
path = Path(sys.argv[1])
save_checkpoint(path, {"step": 1, "weights": torch.zeros(1000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(path, {"step": 2, "weights": torch.zeros(1_000_000)})
except UserError as error:
    print(error)
print(load_checkpoint(path)["step"], [p.name for p in path.parent.iterdir()])
"""


@pytest.mark.skipif(
    importlib.util.find_spec("resource") is None, reason="this system has no limit on the size of a file"
)
def test_a_file_that_cannot_grow_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    """The system itself refuses the bytes, half-way through the file."""
    path = tmp_path / "training.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    sentence, last = done.stdout.strip().splitlines()
    assert "could not be written" in sentence
    assert "the earlier one is intact" in sentence
    assert last == "1 ['training.safetensors']"
