"""What a study is of: written by its first worker, once, and compared by all that come after.

It stands in the study's first trial, number 0, which Optuna makes under a lock: of several workers that begin at the
same moment one founds the study, and the others read what it wrote. (A study's own attributes can be overwritten.)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from wellfit.errors import UserError

SCHEMA = 1
FOUNDING = "founding"  # name of Optuna's user attribute


@dataclass(frozen=True)
class Founding:
    """identity: what must be the same for all workers (data, seed, …); schedule: what the first worker planned."""

    identity: dict[str, Any]
    schedule: dict[str, Any]


def read_founding(study: optuna.Study, shown: str) -> Founding | None:
    """What the study was founded as; None where it has no trial yet.

    Raises UserError for a study that is not wellfit's, and for one of a newer wellfit.
    """
    first = next((trial for trial in study.get_trials(deepcopy=False) if trial.number == 0), None)
    if first is None:
        return None
    written = first.user_attrs.get(FOUNDING)
    if not isinstance(written, dict) or not isinstance(written.get("schema"), int):
        raise UserError(
            f"study '{study.study_name}' in {shown} was not made by `wellfit search`; give another name with --study"
        )
    if written["schema"] > SCHEMA:
        raise UserError(
            f"study '{study.study_name}' in {shown} was made by a newer wellfit (schema {written['schema']}, this one "
            f"reads {SCHEMA}); upgrade wellfit here"
        )
    return Founding(written["identity"], written["schedule"])


def found(study: optuna.Study, storage: optuna.storages.RDBStorage, founding: Founding) -> None:
    """Write the first trial. Of several, the one that comes first counts: read it back."""
    written = {"schema": SCHEMA, "identity": founding.identity, "schedule": founding.schedule}
    study_id = storage.get_study_id_from_name(study.study_name)
    storage.create_new_trial(study_id, create_trial(state=TrialState.FAIL, user_attrs={FOUNDING: written}))


def refuse_another(name: str, shown: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """UserError that says what differs, where the study is of something else."""
    here = json.loads(json.dumps(here))
    differing = [key for key in dict.fromkeys((*there, *here)) if there.get(key) != here.get(key)]
    if differing:
        said = ", ".join(f"{key} ({_short(there.get(key))} there, {_short(here.get(key))} here)" for key in differing)
        raise UserError(
            f"all workers of a study search the same, but study '{name}' in {shown} was begun with another {said}; "
            "give what it was begun with, or another name with --study"
        )


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
