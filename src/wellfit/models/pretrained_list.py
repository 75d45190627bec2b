"""The list behind `wellfit models --pretrained`: every published set of weights, from tables alone, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from wellfit.errors import UserError, nearest
from wellfit.models import foreign, published
from wellfit.models.catalogue import measure
from wellfit.models.listing import MOST_MEASURED, fits


@dataclass(frozen=True)
class PretrainedEntry:
    """One set of weights. name: as `build` takes it. classes: of the data it was trained on. input_size: pixels a side.

    parameters: None where counting them would take too long. licence: None where the publisher states none. source:
    an address. file: where it lies on this machine, None where it does not.
    """

    name: str
    weights: str
    dataset: str
    classes: int
    input_size: int
    parameters: int | None
    licence: str | None
    source: str
    file: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PretrainedListing:
    """entries in order: ours, torchvision's, timm's; notes: sentences for people."""

    entries: list[PretrainedEntry]
    notes: list[str]


def pretrained_listing(
    wanted: str | None = None, *, with_timm: bool = False, progress: Callable[[str], None] = lambda name: None
) -> PretrainedListing:
    """All published weights of our nets and torchvision's; timm's too where `wanted` is given or `with_timm`.

    wanted: part of a model's name, or a pattern with * and ?, in any case. Nothing is downloaded. progress: called with
    the name of each of timm's nets whose parameters are counted. UserError where no model with weights has such a name.
    """
    entries = [
        _entry(name, one)
        for name in (*published.CIFAR_WEIGHTS, *foreign.torchvision_names())
        if fits(name, wanted)
        for one in (published.cifar_weights(name) or published.torchvision_weights(name))
    ]
    notes = []
    if wanted or with_timm:
        found = [f"timm:{name}" for name in _timm_pretrained() if fits(f"timm:{name}", wanted)]
        counted = len(found) <= MOST_MEASURED
        for name in found:
            if counted:
                progress(name)
            entries += [_entry(name, one, count=counted) for one in published.timm_weights(name.partition(":")[2])]
        if found and not counted:
            notes.append(
                f"the parameters of {len(found):,} of timm's nets were not counted: narrow the pattern to "
                f"{MOST_MEASURED} of them"
            )
    else:
        notes.append("timm's weights are not listed: a pattern looks among them too, --all lists every one")
    if not entries:
        every = [*published.CIFAR_WEIGHTS, *foreign.torchvision_names()]
        raise UserError(
            f"no model with published weights has a name that holds '{wanted}'{nearest(wanted or '', every)}; "
            "`wellfit models --pretrained --all` lists every one"
        )
    return PretrainedListing(entries, notes)


def _entry(name: str, weights: published.Published, *, count: bool = False) -> PretrainedEntry:
    path = published.cached(weights)
    parameters = weights.parameters
    if parameters is None and count:
        parameters = measure(name)[0].parameters
    return PretrainedEntry(
        name=name,
        weights=weights.label,
        dataset=weights.dataset,
        classes=weights.classes,
        input_size=weights.image_size,
        parameters=parameters,
        licence=weights.licence,
        source=weights.url,
        file=None if path is None else str(path),
    )


def _timm_pretrained() -> list[str]:
    import timm

    return list(timm.list_pretrained())
