"""MLflow: a run in the experiment "wellfit" (MLFLOW_EXPERIMENT_NAME names another), at MLflow's own tracking address.

Trials of a search are runs nested in it. Figures are sent in batches: a database takes milliseconds for each call.
"""

from __future__ import annotations

import logging
import os
import re
import time
from typing import Any

from wellfit.record import RunFolder
from wellfit.trackers.figures import Setting
from wellfit.trackers.memory import remember, remembered

BATCH = 500  # figures; a tracking server takes at most 1,000 at once
EVERY_SECONDS = 5.0
_LONGEST = 500  # characters of a value
_ENDS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_UNFIT = re.compile(r"[^\w\-. :/]")


class Tracker:
    """See `figures.Tracker`."""

    def begin(self, folder: RunFolder, settings: dict[str, Setting], about: dict[str, str], resumed: bool) -> str:
        import mlflow

        for name in ("mlflow", "alembic"):  # a new database is announced in a dozen lines
            logging.getLogger(name).setLevel(logging.WARNING)
        kept = remembered(folder, "mlflow")
        uri = kept.get("uri") if resumed else None
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        self._logged: set[str] = set()
        if resumed and isinstance(kept.get("run"), str):
            run = self._client.get_run(kept["run"])
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._logged = set(run.data.params)
        else:
            tags = {"mlflow.source.name": "wellfit", **{f"wellfit.{name}": text for name, text in about.items()}}
            run = self._client.create_run(self._experiment(), tags=tags, run_name=folder.path.resolve().name)
        self._run, self._experiment_id = run.info.run_id, run.info.experiment_id
        remember(folder, "mlflow", uri=self._client.tracking_uri, run=self._run)
        self._params(self._run, settings)
        return f"MLflow: run {self._run} at {self._client.tracking_uri}"

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._waiting += _metrics(values, step)
        if len(self._waiting) >= BATCH or time.monotonic() - self._sent > EVERY_SECONDS:
            self._send()

    def trial(self, number: int, settings: dict[str, Setting], values: dict[str, float], curve: list[Any]) -> None:
        tags = {"mlflow.parentRunId": self._run}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=f"trial {number}").info.run_id
        losses = [metric for step, loss in curve for metric in _metrics({"loss": float(loss)}, int(step))]
        metrics = [*losses[:BATCH], *_metrics(values, 0)]
        self._client.log_batch(run, metrics=metrics, params=_params(settings))
        self._client.set_terminated(run)

    def text(self, name: str, text: str) -> None:
        self._client.set_tag(self._run, _fit(name), text[:_LONGEST])

    def end(self, status: str, settings: dict[str, Setting], values: dict[str, float]) -> None:
        self._send()
        self._params(self._run, settings)
        self._client.log_batch(self._run, metrics=_metrics({f"result/{k}": v for k, v in values.items()}, 0))
        self._client.set_terminated(self._run, _ENDS.get(status, "FINISHED"))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "wellfit")
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known is not None else self._client.create_experiment(name))

    def _params(self, run: str, settings: dict[str, Setting]) -> None:
        # A parameter can be logged once: what was asked stands, and what the run settled comes at its end.
        new = {name: value for name, value in settings.items() if _fit(name) not in self._logged}
        self._logged |= {_fit(name) for name in new}
        params = _params(new)
        for i in range(0, len(params), 100):  # the most that a server takes at once
            self._client.log_batch(run, params=params[i : i + 100])

    def _send(self) -> None:
        for i in range(0, len(self._waiting), BATCH):
            self._client.log_batch(self._run, metrics=self._waiting[i : i + BATCH])
        self._waiting, self._sent = [], time.monotonic()


def _metrics(values: dict[str, float], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(_fit(name), value, now, step) for name, value in values.items()]


def _params(settings: dict[str, Setting]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_fit(name), str(value)[:_LONGEST]) for name, value in settings.items()]


def _fit(name: str) -> str:
    """MLflow's names are of letters, digits and a few signs."""
    return _UNFIT.sub("_", name)[:200]
