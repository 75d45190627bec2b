"""Images that none of several runs was trained on: what an ensemble of them is chosen by, and what it is tested on.

Runs that were divided alike (one seed of the split, or splits that the data state) share theirs. Of runs that were
divided apart only images count that each of them held out: an image is told by its content, so that a copy under
another name is no way around it. A linear classifier that was fitted on its validation images too speaks for them by
what its like had said of them in the probe, each image held out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.config import load_config
from wellfit.data.split import Split
from wellfit.errors import UserError
from wellfit.recipe.answers import HeldOut, read_answers, read_held_out
from wellfit.recipe.prepare import Prepared, look_at_data, split_of
from wellfit.record import RunFolder, read_record

FEWEST = 30  # validation images by which members can be chosen at all
Listener = Callable[[str, dict[str, Any]], None]


@dataclass
class Shared:
    """The first run's data, divided anew. data.split.validation: what no run has trained on; train: all the rest.

    seen: content hashes of all that any run was trained or chosen on. sentences: what was done, for people. held_out:
    one a run; what it says of images that it has learnt from, by classifiers that had not; None where it has none.
    """

    data: Prepared
    seen: set[bytes]
    sentences: list[str]
    held_out: list[HeldOut | None]


@dataclass
class Divided:
    """How one run divided its images, by content. A model that was fitted on validation images too has none of them.

    held_out: what it says of training images by classifiers that had not seen them.
    """

    folder: RunFolder
    data: Prepared
    train: set[bytes]
    validation: set[bytes]
    test: set[bytes]
    held_out: HeldOut | None = None

    @property
    def unanswered(self) -> set[bytes]:
        """Images that it can say nothing of that counts."""
        return self.train - set(self.held_out.images if self.held_out is not None else ())


def shared_images(
    folders: Sequence[RunFolder], cards: Sequence[dict[str, Any]], data: Any, listener: Listener | None
) -> Shared:
    """What the runs have in common; UserError where it is nothing, or too little to choose members by."""
    read: dict[Any, Any] = {}
    divided = [_divided(folder, card, data, read, listener) for folder, card in zip(folders, cards, strict=True)]
    first = divided[0]
    base, hashes = first.data, first.data.inspection.content_hash
    for other in divided[1:]:
        if not (first.train | first.validation | first.test) & (other.train | other.validation | other.test):
            raise UserError(
                f"members of an ensemble were fitted on the same data, but '{first.folder.path}' and "
                f"'{other.folder.path}' have no image in common; join runs of one data set"
            )
    learnt = set[bytes]().union(*(each.train for each in divided))
    unanswered = set[bytes]().union(*(each.unanswered for each in divided))
    sealed = set[bytes]().union(*(each.test for each in divided))
    chosen_on = set[bytes]().union(*(each.validation for each in divided))
    seen = learnt | chosen_on
    split = base.split
    usable, out = np.concatenate([split.train, split.validation]), unanswered | sealed
    validation = np.array([i for i in usable.tolist() if hashes[i] not in out], dtype=np.int64)
    test = np.array([i for i in split.test.tolist() if hashes[i] not in seen], dtype=np.int64)
    if len(validation) < FEWEST:
        raise UserError(_too_few(divided, len(validation)))
    sentences = _sentences(divided, len(split.validation), len(validation), len(split.test), len(test))
    rest = np.setdiff1d(usable, validation)
    joined: Split = replace(split, train=rest, validation=validation, test=test, folds=None, sentences=sentences)
    return Shared(replace(base, split=joined), seen, sentences, [each.held_out for each in divided])


def _divided(
    folder: RunFolder, card: dict[str, Any], data: Any, read: dict[Any, Any], listener: Listener | None
) -> Divided:
    """A run's data, read and divided as then. read: what was read already, by place and settings."""
    lines = list(read_record(folder.record))
    begun: dict[str, Any] = next((line for line in lines if line["kind"] == "run"), {})
    audited: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "audit"), {})
    if "ensemble" in begun.get("request", {}):
        raise UserError(f"'{folder.path}' is an ensemble itself; give the runs that it was made of beside the others")
    place = data if data is not None else begun.get("request", {}).get("data")
    if place is None:
        raise UserError(
            f"the data of '{folder.path}' came from Python's memory; give them: wellfit.ensemble(runs, data=…)"
        )
    if isinstance(place, str) and place != "digits" and not Path(place).exists():
        raise UserError(f"the data of '{folder.path}' are no longer at '{place}'; say where they are with --data")
    config = load_config(folder.config)
    key = (str(place), replace(config.data, split_seed=0))
    if key not in read:

        def progress(done: int, total: int) -> None:
            if listener is not None:
                listener("progress", {"what": "decoding", "done": done, "of": total})

        read[key] = look_at_data(place, config.data, progress)
    source, inspection, store, audit = read[key]
    split = split_of(source, audit, config)
    sizes = {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)}
    if audited.get("splits") != sizes:
        then = audited.get("splits", {}).get("train", 0)
        raise UserError(
            f"the data at '{place}' are not those that '{folder.path}' was fitted on: they divide into "
            f"{sizes['train']:,} training images, then there were {then:,}; fit again, or give the right --data"
        )
    prepared = Prepared(source, inspection, store, audit, split)
    hashes = inspection.content_hash
    parts = split.train, split.validation, split.test
    train, validation, test = ({hashes[i] for i in part.tolist()} for part in parts)
    kept = read_answers(folder)
    if kept is not None:  # whatever it learnt from, also where it went on from another run
        train |= kept.seen - validation
    if learnt_validation(card):
        return Divided(folder, prepared, train | validation, set(), test, read_held_out(folder))
    return Divided(folder, prepared, train, validation, test)


def learnt_validation(card: dict[str, Any]) -> bool:
    """Whether a model was fitted on its validation images too, as a linear classifier judged by its folds is."""
    unsaid = "train and validation" if card["architecture"]["name"] == "probe_net" else "train"
    return str(card.get("learnt", unsaid)) != "train"


def _too_few(divided: Sequence[Divided], left: int) -> str:
    for each in divided:
        if not each.validation and each.held_out is None:
            return (
                "members are chosen on images that none was trained on, but the classifier of "
                f"'{each.folder.path}' was fitted on its validation images too, and its folder does not keep what "
                "others said of them; leave it out, or fit it anew"
            )
    return (
        f"members are chosen on validation images that none of them was trained on, and these {len(divided)} runs, "
        f"which were divided apart, leave {left} (fewer than {FEWEST}); fit them anew with one --split-seed"
    )


def _sentences(divided: Sequence[Divided], validation: int, left: int, tests: int, tests_left: int) -> list[str]:
    if any(each.held_out is not None for each in divided):
        return [
            f"{len(divided)} runs: {left:,} images are left to choose members by, which each run either held out or "
            f"answered in its probe by a classifier that had not seen them, and {tests_left:,} of {tests:,} test images"
        ]
    if left == validation and tests_left == tests:
        return [f"{len(divided)} runs that were divided alike: {left:,} validation and {tests_left:,} test images"]
    said = [
        f"the {len(divided)} runs were divided apart, and an image that one of them has learnt from says nothing of "
        f"their mean: of {validation:,} validation images {left:,} are left to choose members by"
    ]
    if tests_left:
        said.append(f"of {tests:,} test images {tests_left:,} are left, which none was trained or chosen on")
    else:
        said.append("no test image is left that none was trained or chosen on, so the ensemble is not tested")
    return said
