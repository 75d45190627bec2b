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
CONTENT = "content"  # in an identity, a hash of what is too much to keep
MOST_LISTED = 3  # values that one side has and the other has not
FOUNDING = "founding"  # name of Optuna's user attribute


@dataclass(frozen=True)
class Founding:
    """identity: what must be the same for all workers (data, seed, …); schedule: what the first worker planned.

    when: by the clock that the workers share.
    """

    identity: dict[str, Any]
    schedule: dict[str, Any]
    when: float = 0.0


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
    return Founding(written["identity"], written["schedule"], float(written.get("when", 0.0)))


def found(study: optuna.Study, storage: optuna.storages.RDBStorage, founding: Founding) -> None:
    """Write the first trial. Of several, the one that comes first counts: read it back."""
    written = {"schema": SCHEMA, "when": founding.when, "identity": founding.identity, "schedule": founding.schedule}
    study_id = storage.get_study_id_from_name(study.study_name)
    storage.create_new_trial(study_id, create_trial(state=TrialState.FAIL, user_attrs={FOUNDING: written}))


def refuse_another(name: str, shown: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """UserError that says what differs, where the study is of something else."""
    here = json.loads(json.dumps(here))
    differing = _differences(there, here, "")
    if differing:
        raise UserError(
            f"all workers of a study search the same, but study '{name}' in {shown} was begun with another "
            f"{', '.join(differing)}; give what it was begun with, or another name with --study"
        )


def _differences(there: dict[str, Any], here: dict[str, Any], path: str) -> list[str]:
    """What differs, in words; a hash, under the name "content", only where nothing beside it says more."""
    found: list[str] = []
    for key in dict.fromkeys((*there, *here)):
        one, other = there.get(key), here.get(key)
        if one == other or key == CONTENT:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{path}{key}.")
        elif _names(one) and _names(other) and set(one or ()) != set(other or ()):
            lacking = (_listed(one or [], other or [], "there"), _listed(other or [], one or [], "here"))
            found.append(f"{path}{key} ({', '.join(part for part in lacking if part)})")
        else:
            found.append(f"{path}{key} ({_short(one)} there, {_short(other)} here)")
    if not found and there.get(CONTENT) != here.get(CONTENT):
        found.append(f"set of {path.rstrip('.')} (as many there as here, but not the same)")
    return found


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _listed(ours: list[Any], theirs: list[Any], where: str) -> str:
    own = [str(value) for value in ours if value not in theirs]
    more = f" and {len(own) - MOST_LISTED} more" if len(own) > MOST_LISTED else ""
    return f"{', '.join(own[:MOST_LISTED])}{more} only {where}" if own else ""


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
