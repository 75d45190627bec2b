"""The list behind `wellfit models`: which nets, in which order, and what of it was not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wellfit.errors import UserError, nearest, unknown_name
from wellfit.models.catalogue import Entry, kept, measure

MOST_MEASURED = 12  # timm's nets; half a second each


@dataclass(frozen=True)
class Listing:
    """entries in order; not_computed: names of timm's whose costs would take too long; notes: sentences for people."""

    entries: list[Entry]
    not_computed: list[str]
    notes: list[str]


def listing(
    *, wanted: str | None = None, sort: str | None = None, with_timm: bool = False, progress: Any = None
) -> Listing:
    """Our nets and torchvision's; timm's too where `wanted` is given or `with_timm`.

    wanted: part of a name, or a pattern with * and ?, in any case. sort: a key of SORTS; None keeps the order ours
    first. The costs of timm's nets are computed where at most 12 of them are wanted. progress: called with each name
    that is being measured. UserError: an unknown sort, or a filter that no name fits.
    """
    if sort is not None and sort not in SORTS:
        raise unknown_name("order of models", sort, SORTS)
    entries = [entry for entry in kept() if fits(entry.name, wanted)]
    notes = []
    names: list[str] = []
    if wanted or with_timm:
        from wellfit.models.foreign import timm_names

        names = [f"timm:{name}" for name in timm_names() if fits(f"timm:{name}", wanted)]
    not_computed = names if len(names) > MOST_MEASURED else []
    for name in [] if not_computed else names:
        if progress is not None:
            progress(name)
        try:
            entries.append(measure(name)[0])
        except UserError as error:
            notes.append(str(error))
            not_computed.append(name)
    entries += [Entry(name, 0) for name in not_computed]
    if not entries:
        every = [entry.name for entry in kept()]
        raise UserError(
            f"no model's name holds '{wanted}'{nearest(wanted or '', every)}; `wellfit models --all` lists every name"
        )
    if len(not_computed) > MOST_MEASURED:
        notes.append(
            f"the costs of {len(not_computed):,} of timm's nets were not computed: narrow --filter to {MOST_MEASURED} "
            "of them, or name one with `wellfit models NAME`"
        )
    elif not (wanted or with_timm):
        notes.append("timm's nets are not listed: --filter TEXT looks among them too, --all lists every name")
    if sort is not None:
        entries.sort(key=SORTS[sort])
    return Listing(entries, not_computed, notes)


def fits(name: str, wanted: str | None) -> bool:
    """Whether a name holds `wanted`, or matches it where it is a pattern; any name where nothing is wanted."""
    if not wanted:
        return True
    name, wanted = name.lower(), wanted.lower()
    if any(sign in wanted for sign in "*?["):
        return fnmatchcase(name, wanted) or fnmatchcase(name.partition(":")[2], wanted)
    return wanted in name


def _ascending(field: str) -> Callable[[Entry], tuple[bool, Any]]:
    def key(entry: Entry) -> tuple[bool, Any]:
        value = getattr(entry, field)
        return value is None, value or 0  # what is not known stands last

    return key


def _best_first(entry: Entry) -> tuple[Any, ...]:
    # Accuracies on different data sets cannot be compared: the larger task first.
    return entry.accuracy is None, entry.dataset != "ImageNet-1K", str(entry.dataset), -(entry.accuracy or 0)


SORTS: dict[str, Callable[[Entry], Any]] = {
    "name": lambda entry: entry.name.partition(":")[2] or entry.name,
    "parameters": _ascending("parameters"),
    "flops": _ascending("flops"),
    "activations": _ascending("activations"),
    "input": lambda entry: (entry.input_size == 0, entry.input_size),
    "accuracy": _best_first,
}
