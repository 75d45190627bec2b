"""Source → audit → split → pixel store. Test images that the user set apart are not decoded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.config import Config, DataConfig
from wellfit.data.audit import Audit, audit
from wellfit.data.inspect import Inspection, inspect
from wellfit.data.sources import Source, open_source
from wellfit.data.split import Split, make_split
from wellfit.data.store import PixelStore, build_store
from wellfit.recipe.job import Job

# The largest short side that a run keeps: what SPEC D7's views need at 224 pixels would be 480; 320 is
# the scale at which a 224-pixel crop of the mean view still holds real pixels, in less than half the space.
LARGEST_SHORT_SIDE = 320
# More validation images than this do not sharpen a choice enough to be worth taking from training.
ENOUGH_VALIDATION = 5000


@dataclass
class Prepared:
    """The data of one run. rows: store row of a source index, -1 where it has none (sealed test images)."""

    source: Source
    inspection: Inspection
    store: PixelStore
    audit: Audit
    split: Split

    @property
    def classes(self) -> list[str]:
        return self.split.classes

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self.store.row_of[indices]

    def targets(self, indices: np.ndarray) -> np.ndarray:
        return self.split.targets[indices]

    @property
    def test_is_sealed(self) -> bool:
        """Whether test images are still to be decoded: those that the data give, not those that were carved out."""
        return bool((self.rows(self.split.test) < 0).any())

    @property
    def short_side(self) -> int:
        """Median short side of the images as they came, in pixels."""
        usable = self.inspection.usable
        sides = np.minimum(self.inspection.widths[usable], self.inspection.heights[usable])
        return int(np.median(sides))


def look_at_data(
    data: Any, config: DataConfig, progress: Any = None, *, open_test: bool = False
) -> tuple[Source, Inspection, PixelStore, Audit]:
    """Open, inspect, decode and audit; what `wellfit audit` shows and every run begins with.

    open_test: decode a given test split too; never where a training follows.
    """
    source, inspection, store = read_data(data, config, progress)
    opened = None
    sealed = np.flatnonzero(~_open_to_us(source) & inspection.usable)
    if open_test and len(sealed):
        opened = build_store(source, inspection, sealed, short_side=LARGEST_SHORT_SIDE, progress=progress)
    return source, inspection, store, audit(source, inspection, store, opened)


def read_data(data: Any, config: DataConfig, progress: Any = None) -> tuple[Source, Inspection, PixelStore]:
    """Open, inspect and decode; the images of a given test split are not decoded."""
    source = open_source(
        data,
        image_column=config.image_column,
        label_column=config.label_column,
        group_column=config.group_column,
        test=config.test,
    )
    inspection = inspect(source)
    indices = np.flatnonzero(_open_to_us(source) & inspection.usable)
    return (
        source,
        inspection,
        build_store(source, inspection, indices, short_side=LARGEST_SHORT_SIDE, progress=progress),
    )


def _open_to_us(source: Source) -> np.ndarray:
    return np.array([split != "test" for split in source.splits], dtype=bool)


def seed_of_split(config: Config) -> int:
    """What the splits are drawn from: the run's seed, where none is given for them alone."""
    return config.seed if config.data.split_seed < 0 else config.data.split_seed


def split_of(source: Source, audited: Audit, config: Config) -> Split:
    """The split that a run with this configuration makes of its data."""
    share = config.data.validation_share
    given = sum(split != "test" for split in source.splits)
    if "test" in source.splits and given * share > ENOUGH_VALIDATION:
        share = ENOUGH_VALIDATION / given
    return make_split(source, audited, seed=seed_of_split(config), validation=share, test=config.data.test_share)


def prepare(job: Job) -> Prepared:
    with job.step("audit") as outcome:
        source, inspection, store, audited = look_at_data(job.data, job.config.data, _progress(job))
        job.report(*source.findings, *audited.findings)
        outcome.reason = (
            f"{audited.images:,} images in {len(audited.classes)} classes, {len(audited.left_out)} left out"
        )
    with job.step("split") as outcome:
        split = split_of(source, audited, job.config)
        outcome.reason = "; ".join(split.sentences)
    job.record.write(
        "audit",
        images=audited.images,
        classes=audited.classes,
        left_out=[vars(item) for item in audited.left_out],
        splits={"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
        sentences=split.sentences,
    )
    return Prepared(source, inspection, store, audited, split)


def _progress(job: Job) -> Any:
    return lambda done, total: job.record.tell("progress", what="decoding", done=done, of=total)
