"""A run by two processes is a run by one; killed, it is taken up by another number of them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import wellfit
from tests.recipe.plans import longer, write_plan
from wellfit.config import Config
from wellfit.errors import Interrupted, UserError
from wellfit.recipe import processes, steps
from wellfit.recipe.plan import EndingPlan, ModelPlan, SearchPlan
from wellfit.record import Record, read_record
from wellfit.training import loop

LAST = 24
CHANGES: dict[str, Any] = {
    "search": SearchPlan(),
    "training": longer(LAST, evaluate_every=8, average=0.9),
    "model": ModelPlan("lenet5", "none", 28, 28, "none", 0, {"normalization": "group"}),
    "ending": EndingPlan(1, (0.5, 1.0), ("none",), ()),
}


class Killed(BaseException):
    """What stands for a kill where the tests themselves must live on."""


def break_off(monkeypatch: pytest.MonkeyPatch, at: int, *, really: bool) -> None:
    """The process ends behind the record's line of this step, whose checkpoint is the step before."""
    write = Record.write

    def write_or_end(self: Record, kind: str, **fields: Any) -> None:
        write(self, kind, **fields)
        if kind == "step" and fields["step"] == at:
            if really:
                os._exit(9)
            raise Killed

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Record, "write", write_or_end)


def take_part(rank: int, port: int, plan: Path, out: Path, begun: bool, end: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "write_report", lambda folder: None)
        if end and rank == 0:
            break_off(patch, end, really=True)
        try:
            run = wellfit.resume(out) if begun else wellfit.fit("digits", plan=plan, out=out)
        except Interrupted as error:
            print(error, file=sys.stderr)
            sys.exit(130)
        assert run.path == out


def two_processes(plan: Path, out: Path, *, begun: bool = False, end: int = 0) -> list[int | None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=take_part, args=(rank, port, plan, out, begun, end)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    return [process.exitcode for process in processes]


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "write_report", lambda folder: None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> wellfit.Run:
    """One process from the beginning to the end."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "write_report", lambda folder: None)
        return wellfit.fit("digits", plan=write_plan(out.with_suffix(".toml"), **CHANGES), out=out)


def same_model(one: Path, other: Path) -> bool:
    weights, others = (load_file(run / "model.safetensors") for run in (one, other))
    return weights.keys() == others.keys() and all(
        torch.allclose(weights[key], others[key], rtol=1e-3, atol=1e-4) for key in weights
    )


def losses(run: Path) -> list[float]:
    """By step; of a step that was done again the later line holds."""
    lines = [line for line in read_record(run / "record.jsonl") if line["kind"] == "step"]
    return [float(loss) for _, loss in sorted({line["step"]: line["loss"] for line in lines}.items())]


def test_two_begin_one_is_killed_the_other_ends_by_itself_and_one_goes_on(alone: wellfit.Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = write_plan(tmp_path / "plan.toml", **CHANGES)
    assert two_processes(plan, out, end=17) == [9, 130]
    assert (out / "checkpoint").is_dir()
    wellfit.resume(out)
    assert losses(out) == pytest.approx(losses(alone.path), rel=1e-3)
    assert same_model(out, alone.path)


def test_one_begins_and_two_go_on(alone: wellfit.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    plan = write_plan(tmp_path / "plan.toml", **CHANGES)
    with monkeypatch.context() as patch:
        break_off(patch, 17, really=False)
        with pytest.raises(Killed):
            wellfit.fit("digits", plan=plan, out=out)
    assert two_processes(plan, out, begun=True) == [0, 0]
    assert losses(out) == pytest.approx(losses(alone.path), rel=1e-3)
    assert same_model(out, alone.path)
    sessions = [line for line in read_record(out / "record.jsonl") if line["kind"] == "run"]
    assert [line["machine"]["processes"] for line in sessions] == [1, 2]


def torchruns(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))


def test_only_torchruns_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.processes() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.processes() == 1
    assert not processes.follows()
    torchruns(monkeypatch, 0)
    assert processes.processes() == 2
    assert not processes.follows()
    torchruns(monkeypatch, 1)
    assert processes.follows()


def test_what_cannot_be_shared_is_refused_before_a_folder_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torchruns(monkeypatch, 0)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="2 were started for a search"):
        wellfit.search("digits", out=out)
    with pytest.raises(UserError, match="the optimizer 'lbfgs' has none"):
        wellfit.fit("digits", config=Config().replace(**{"optimizer.name": "lbfgs"}), out=out)
    assert not out.exists()


def test_a_broken_connection_is_one_sentence_and_a_defect_stays_one() -> None:
    with pytest.raises(Interrupted, match="another of the 1 processes ended"), processes.lost_others("resume it"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3421")
    with pytest.raises(RuntimeError, match="size mismatch"), processes.lost_others("resume it"):
        raise RuntimeError("size mismatch")
