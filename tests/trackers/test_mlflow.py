"""Runs written by the real MLflow into an SQLite file, and read back by its client."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.conftest import STEPS, Play, lines, trials

pytest.importorskip("mlflow", reason="logging into MLflow is tested with it: pip install mlflow-skinny")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: MLflow takes seconds to make one."""
    return f"sqlite:///{(tmp_path_factory.mktemp('mlflow') / 'runs.db').as_posix()}"


@pytest.fixture(autouse=True)
def tracking(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


def runs(address: str, experiment: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(address)
    number = client.get_experiment_by_name(experiment).experiment_id
    return client, client.search_runs([number], order_by=["attributes.start_time ASC"])


def test_a_run_is_read_back(play: Play, address: str, tmp_path: Path) -> None:
    heard = play("mlflow", lines())
    client, (run,) = runs(address, tmp_path.name)
    assert heard == [f"MLflow: run {run.info.run_id} at {address}"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    losses = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[2] == 0.5
    assert math.isnan(losses[3])
    assert run.data.metrics["validation/accuracy"] == 0.5
    assert run.data.metrics["result/test/accuracy"] == 0.8
    assert run.data.params["optimizer.name"] == "sgd"
    assert run.data.params["optimizer.lr"] == "0.25"
    assert run.data.tags["wellfit.data"] == "/x/photos"
    assert run.data.tags["finding/overfitting"].startswith("warning: <b>0.75</b>")


def test_a_resumed_run_goes_on_in_the_same_run(play: Play, address: str, tmp_path: Path) -> None:
    play("mlflow", [*lines()[:3], ("end", {"status": "interrupted", "seconds": 1.0})])
    _, (run,) = runs(address, tmp_path.name)
    assert run.info.status == "KILLED"
    play("mlflow", lines(first=3, spent=1.0))
    client, (run,) = runs(address, tmp_path.name)
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "lr")]
    assert sorted(steps) == list(range(1, STEPS + 1))


def test_trials_are_nested_runs(play: Play, address: str, tmp_path: Path) -> None:
    play("mlflow", trials())
    _, found = runs(address, tmp_path.name)
    parent = next(run for run in found if run.info.run_name == "first")
    trial = next(run for run in found if run.info.run_name == "trial 1")
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert trial.data.params == {"lr": "0.01", "optimizer": "sgd"}
    assert trial.data.metrics["validation_accuracy"] == 0.6
    assert parent.data.metrics["result/best/validation_accuracy"] == 0.6
