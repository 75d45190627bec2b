"""What was asked of a search, as data: checked before an image is read, kept in the record for `resume`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wellfit.errors import UserError
from wellfit.search.place import place_of
from wellfit.search.samplers import SAMPLERS, check_sampler
from wellfit.search.space import Space
from wellfit.search.space_file import read_space, space_from_dict, space_to_dict

HIDDEN = ":***@"  # where a password stood in an address
LOCAL_STUDY = "search"  # name of the study in a run's own file


@dataclass(frozen=True)
class SearchRequest:
    """Options of `wellfit search`; None (0 workers, 0 folds) where nothing was asked.

    space: as `space_to_dict` has it. trials: of the whole study. storage: an address, passwords left out; None keeps
    the study in the run folder. folds: runs of each trial; 1: no cross-validation. own_budget: whether a budget was
    given; without one, whoever joins a study takes part until the study's is used up.
    """

    space: dict[str, Any] | None = None
    trials: int | None = None
    workers: int = 0
    storage: str | None = None
    study: str | None = None
    sampler: str | None = None
    folds: int = 0
    own_budget: bool = True

    @classmethod
    def of(
        cls,
        space: str | Path | Space | None,
        *,
        trials: int | None,
        workers: int | str,
        storage: str | Path | None,
        study: str | None,
        sampler: str | None,
        folds: int,
        own_budget: bool = True,
    ) -> SearchRequest:
        """The request in its kept form. Raises UserError for whatever cannot be."""
        if trials is not None and trials < 1:
            raise UserError(
                f"--trials counts the trials of the whole study, at least 1, got {trials}; leave it out to "
                "let the budget decide"
            )
        if folds < 0:
            raise UserError(f"--folds is at least 2 (1 for none, 0 to let the size of the data decide), got {folds}")
        if sampler is not None:
            check_sampler(sampler)
        if storage is None and study is not None:
            raise UserError(
                f"--study names a study that machines share, got '{study}' and no --storage; give both, or neither"
            )
        if storage is not None and study is None:
            raise UserError(
                "workers meet in a study of one name, got --storage and no name; give --study NAME beside it, the same "
                "on all machines"
            )
        return cls(
            space=_space(space),
            trials=trials,
            workers=_workers(workers),
            storage=None if storage is None else _kept_address(storage),
            study=study,
            sampler=sampler,
            folds=folds,
            own_budget=own_budget,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SearchRequest:
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def study_name(self) -> str:
        return self.study or LOCAL_STUDY

    def given_space(self) -> Space | None:
        return None if self.space is None else space_from_dict(self.space)

    def joining(self, identity: dict[str, Any]) -> SearchRequest:
        """The request of a worker that joins a study: what it leaves open is as the study has it."""
        left_open = [name for name in ("space", "trials", "sampler") if getattr(self, name) is None]
        found: dict[str, Any] = {name: identity.get(name) for name in left_open}
        if not self.folds:
            found["folds"] = identity.get("folds", 0)
        return replace(self, **found)


def without_password(command: str) -> str:
    """A command line as it may be kept: passwords in addresses are left out.

    >>> without_password("wellfit search photos --storage postgresql://me:secret@host/db")
    'wellfit search photos --storage postgresql://me:***@host/db'
    """
    return re.sub(r"(://[^:/@\s]+):[^@\s]*@", rf"\1{HIDDEN}", command)


def _kept_address(storage: str | Path) -> str:
    """As the run folder keeps it: a file right from any working folder, a database without its password."""
    place = place_of(storage)
    return place.shown if place.file is None else str(place.file)


def _space(space: str | Path | Space | None) -> dict[str, Any] | None:
    if space is None or isinstance(space, dict):
        from wellfit.search.knobs import check_knob

        for name, kind in (space or {}).items():
            check_knob(name, kind)
        return None if space is None else space_to_dict(space)
    return space_to_dict(read_space(space))


def _workers(workers: int | str) -> int:
    if workers == "auto":
        return 0
    try:
        count = int(workers)
    except ValueError:
        count = 0
    if count < 1 or isinstance(workers, float | bool):
        raise UserError(f"--workers is auto or a number of at least 1, got {workers}; auto measures what is fastest")
    return count


__all__ = ["SAMPLERS", "SearchRequest", "without_password"]
