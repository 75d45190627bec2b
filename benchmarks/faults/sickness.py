"""Is a planted fault a fault? Each sick training beside its healthy twin, judged by the symptom that defines the id.

    python benchmarks/faults/sickness.py [--only ID] [--name PART] [--jobs 2]

No finding is looked at here: a symptom is a comparison of losses, accuracies and recorded figures with the twin's.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import pickle
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.all_cases import all_cases
from faults.case import Watched
from faults.sick.plant import Planted
from wellfit.data.sources.cache import cache_folder
from wellfit.diagnosis.history import Floats, History
from wellfit.record import write_atomically


class Seen:
    """What the symptoms look at in one training."""

    def __init__(self, watched: Watched) -> None:
        self.history: History = watched.history
        self.loss: Floats = self.history.loss
        self.accuracy = watched.validation_accuracy
        self.seconds = watched.seconds
        tenth = max(5, len(self.loss) // 10)
        self.finite = bool(np.isfinite(self.loss).all())
        self.first = float(self.loss[:3].mean())
        self.last = float(self.loss[-tenth:].mean()) if np.isfinite(self.loss[-tenth:]).all() else math.inf
        outputs = [sample.output for sample in self.history.samples if sample.output is not None]
        self.width = outputs[-1].width if outputs else 10
        self.chance = math.log(self.width)
        self.spread = outputs[-1].spread if outputs else math.nan
        self.sums_to_one = bool(outputs) and all(o.probabilities for o in outputs)

    @property
    def mean_accuracy(self) -> float:
        """Of validation, over the epochs."""
        return float(np.mean([e.val_accuracy for e in self.history.epochs]))

    @property
    def fall(self) -> float:
        return self.first - self.last

    @property
    def gradients(self) -> Floats:
        return np.array([sample.total_gradient for sample in self.history.samples])

    def unmoved(self) -> list[str]:
        """Parameters that require a gradient and that no watched step moved."""
        moved = np.zeros(len(self.history.parameters), bool)
        for sample in self.history.samples:
            moved |= sample.update_norm > 0
        return [p.name for p, m in zip(self.history.parameters, moved, strict=True) if p.requires_grad and not m]

    def line(self) -> str:
        epochs = " ".join(f"{e.train_accuracy or 0:.2f}/{e.val_accuracy or 0:.2f}" for e in self.history.epochs)
        return f"{len(self.loss)} steps {self.seconds:.1f} s, loss {self.first:.3g} -> {self.last:.3g}, {epochs}"


Symptom = Callable[[Seen, Seen], bool]


def worse(sick: Seen, twin: Seen) -> bool:
    """Clearly: a tenth less accuracy, a third more loss, or no loss at all."""
    return not sick.finite or sick.accuracy < twin.accuracy - 0.1 or sick.last > 1.33 * twin.last + 0.1


def exploded(sick: Seen, twin: Seen) -> bool:
    def growth(seen: Seen) -> float:
        finite = np.abs(seen.loss[np.isfinite(seen.loss)])
        gradients = seen.gradients[np.isfinite(seen.gradients)]
        return max(float(finite.max() / max(seen.first, seen.chance)), float(gradients.max() / gradients[0]))

    return (not sick.finite or growth(sick) > 30) and growth(sick) > 5 * growth(twin)


def unscaled(sick: Seen, twin: Seen) -> bool:
    mean, std = sick.history.samples[0].input or (0.0, 1.0)
    off = abs(mean) > 2 * std or not 0.1 < std < 4
    return off and (worse(sick, twin) or sick.accuracy < twin.accuracy - 0.05 or sick.first > 3 * twin.first)


def passing(seen: Seen) -> float:
    """Gradient beside weight in the first weight tensor over that in the last one, median of the early steps."""
    weights = [i for i, p in enumerate(seen.history.parameters) if p.weight]
    early = seen.history.samples[: max(4, len(seen.history.samples) // 4)]
    relative = np.array([sample.gradient_norm / np.maximum(sample.weight_norm, 1e-12) for sample in early])
    return float(np.nanmedian(relative[:, weights[0]] / np.maximum(relative[:, weights[-1]], 1e-30)))


def share(seen: Seen, kind: str) -> float:
    """Largest share of dead or saturated units that a layer keeps: the median over the later watched steps."""
    late = seen.history.samples[len(seen.history.samples) // 3 :]
    rows = [[getattr(layer, kind) or 0.0 for layer in sample.layers] for sample in late if sample.layers]
    return float(np.median(np.array(rows), 0).max()) if rows else 0.0


def begun_wrongly(sick: Seen, twin: Seen) -> bool:
    """Activations of the first step far from those of the twin, or a first loss far above chance."""
    deviations = np.array([layer.std for layer in sick.history.samples[0].layers])
    other = np.array([layer.std for layer in twin.history.samples[0].layers])
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.abs(np.log10(deviations[-1] / deviations[0])) > np.abs(np.log10(other[-1] / other[0])) + 0.7
    spread = min(layer.spread for layer in sick.history.samples[0].layers)
    stuck = sick.last > 0.97 * sick.chance
    return bool(away or stuck or spread < 1e-3 or sick.first > 5 * sick.chance) and worse(sick, twin)


def ratio(seen: Seen, at: float = 0.5) -> float:
    """Update beside weight: the median over weight tensors, the quantile `at` over watched steps."""
    weights = [i for i, p in enumerate(seen.history.parameters) if p.weight]
    return float(np.nanquantile([np.nanmedian(sample.update_ratio[weights]) for sample in seen.history.samples], at))


def swing(seen: Seen) -> float:
    """Deviation of the second half of the losses from a straight line, beside the twin's."""
    late = seen.loss[len(seen.loss) // 2 :]
    steps = np.arange(len(late))
    return float((late - np.polyval(np.polyfit(steps, late, 1), steps)).std()) if np.isfinite(late).all() else math.inf


def spike(seen: Seen) -> float:
    """Largest loss beside the median of the 25 before it, where within 60 steps 1.6 times that is reached again."""
    found = 0.0
    for step in range(25, len(seen.loss) - 5):
        before = float(np.median(seen.loss[step - 25 : step]))
        if seen.loss[step + 1 : step + 60].min() < 1.6 * before:
            found = max(found, float(seen.loss[step]) / (before + 0.05))
    return found


def early(sick: Seen, twin: Seen) -> bool:
    """At two fifths of the run the rate is below a tenth of its largest, and the loss ends above the twin's."""
    rates = sick.history.lr
    return bool(rates[len(rates) * 2 // 5] < 0.1 * rates.max()) and sick.last > 1.15 * twin.last + 0.03


def counts(seen: Seen) -> tuple[Floats, Floats]:
    """How often each class was answered and wanted over the last third of the watched steps."""
    outputs = [x.output for x in seen.history.samples[-len(seen.history.samples) // 3 :] if x.output is not None]
    said = np.sum([o.predicted for o in outputs if o.predicted is not None], 0).astype(np.float64)
    return said, np.sum([o.targets for o in outputs if o.targets is not None], 0).astype(np.float64)


def unsaid(seen: Seen) -> float:
    """Smallest share of answers to wanted, over the classes."""
    said, wanted = counts(seen)
    return float((said / np.maximum(wanted, 1)).min())


def rare_unsaid(seen: Seen) -> float:
    """The same over the classes of less than a third of the mean size."""
    said, wanted = counts(seen)
    rare = (wanted < wanted.mean() / 3) | (wanted < 0.5 * wanted.max() / len(wanted))
    return float(said[rare].sum() / max(wanted[rare].sum(), 1)) if rare.any() else math.nan


def gap(seen: Seen) -> float:
    epoch = seen.history.epochs[-1]
    return (epoch.train_accuracy or 0.0) - (epoch.val_accuracy or 0.0)


def trained(seen: Seen) -> float:
    return seen.history.epochs[-1].train_accuracy or 0.0


def gained_late(seen: Seen) -> float:
    """Best validation accuracy of the last third of the epochs, less the best before."""
    accuracies = [epoch.val_accuracy or 0.0 for epoch in seen.history.epochs]
    cut = len(accuracies) * 2 // 3
    return max(accuracies[cut:]) - max(accuracies[:cut])


def plateaued(sick: Seen, twin: Seen) -> bool:
    """Nothing gained in the last third, above chance, where the twin's falling rate gains something."""
    late = [epoch.val_accuracy or 0.0 for epoch in sick.history.epochs][len(sick.history.epochs) * 2 // 3 :]
    return gained_late(sick) < 0.015 and 2 / sick.width < float(np.mean(late)) < twin.accuracy - 0.02


def val_losses(seen: Seen) -> Floats:
    return np.array([epoch.val_loss for epoch in seen.history.epochs], np.float64)


def improving(sick: Seen, twin: Seen) -> bool:
    losses = val_losses(sick)
    gained = twin.accuracy > sick.accuracy + 0.04 or val_losses(twin).min() < 0.8 * losses[-1]
    return gained and losses[-1] == losses.min()


SYMPTOMS: dict[str, Symptom] = {
    "nan": lambda sick, twin: not sick.finite and twin.finite,
    "exploding": exploded,
    "lr-too-high": worse,
    "lr-too-low": lambda sick, twin: (
        sick.last > twin.last + 0.3 and (sick.fall < 0.5 * twin.fall or sick.last > 0.95 * sick.chance)
    ),
    "not-learning": lambda sick, twin: sick.last > 0.93 * sick.chance and twin.last < 0.8 * twin.chance,
    "gradients-accumulate": worse,
    "double-softmax": lambda sick, twin: (
        sick.last > math.log1p((sick.width - 1) / math.e) - 0.02 and sick.last > twin.last + 0.05
    ),
    "constant-output": lambda sick, twin: sick.spread < 1e-3 < 0.05 < twin.spread,
    "frozen-parameters": lambda sick, twin: bool(sick.unmoved()) and not twin.unmoved(),
    "unnormalised-input": unscaled,
    "vanishing-gradient": lambda sick, twin: passing(sick) < 1e-2 < passing(twin) and worse(sick, twin),
    "dead-relu": lambda sick, twin: share(sick, "dead") > max(0.6, 1.5 * share(twin, "dead")) and sick.last > twin.last,
    "saturated": lambda sick, twin: (
        share(sick, "saturated") > max(0.5, 0.25 + share(twin, "saturated")) and worse(sick, twin)
    ),
    "bad-initialisation": begun_wrongly,
    "updates-too-small": lambda sick, twin: ratio(sick) < 1e-4 < ratio(twin) and sick.fall < 0.3 * twin.fall,
    "updates-too-large": lambda sick, twin: ratio(sick, 0.75) > max(0.02, 2 * ratio(twin, 0.75)) and worse(sick, twin),
    "wrong-batchnorm-mode": lambda sick, twin: (
        worse(sick, twin)
        or sick.mean_accuracy < twin.mean_accuracy - 0.04
        or val_losses(sick).mean() > 1.2 * val_losses(twin).mean()
        or sick.last > 1.15 * twin.last
    ),
    "oscillating": lambda sick, twin: swing(sick) > max(0.2, 2 * swing(twin)),
    "loss-spike": lambda sick, twin: spike(sick) > max(3.0, 1.5 * spike(twin)),
    "decayed-too-early": early,
    "class-collapsed": lambda sick, twin: unsaid(sick) < 0.02 < unsaid(twin),
    "imbalance-ignored": lambda sick, twin: rare_unsaid(sick) < 0.5 and trained(sick) > 0.5,
    "labels-shuffled": lambda sick, twin: (
        sick.last < 0.75 * sick.first and sick.accuracy < 1 / sick.width + 0.07 < twin.accuracy - 0.1
    ),
    "overfitting": lambda sick, twin: (
        gap(sick) > 0.18 and gap(sick) > gap(twin) + 0.1 and val_losses(sick)[-1] > 1.1 * val_losses(sick).min()
    ),
    "underfitting": lambda sick, twin: (
        trained(sick) < trained(twin) - 0.15 and gap(sick) < 0.1 and sick.accuracy < twin.accuracy
    ),
    "plateau": plateaued,
    "still-improving": improving,
    "train-val-mismatch": lambda sick, twin: (
        sick.mean_accuracy < twin.mean_accuracy - 0.06 and sick.last < twin.last + 0.2
    ),
}


# Printed beside the verdict.
MEASURES: dict[str, Callable[[Seen], float]] = {
    "vanishing-gradient": passing,
    "dead-relu": lambda seen: share(seen, "dead"),
    "saturated": lambda seen: share(seen, "saturated"),
    "updates-too-small": ratio,
    "oscillating": swing,
    "loss-spike": spike,
    "class-collapsed": unsaid,
    "imbalance-ignored": rare_unsaid,
    "overfitting": gap,
    "underfitting": gap,
    "plateau": gained_late,
    "updates-too-large": lambda seen: ratio(seen, 0.75),
}


def twin_of(planted: Planted) -> Watched:
    """The training without the mistake; settings are shared by many cases, so it is kept."""
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in ("loop.py", "networks.py", "data.py"))
    setting = re.sub(r" at 0x[0-9a-f]+", "", repr(planted.setting))
    kept = cache_folder() / "faults" / "twins" / f"{hashlib.sha256(sources + setting.encode()).hexdigest()[:32]}.pkl"
    if kept.exists():
        watched: Watched = pickle.loads(kept.read_bytes())
    else:
        watched = planted(sick=False)
        write_atomically(kept, pickle.dumps(watched))
    return watched


def both(name: str) -> tuple[str, bool]:
    torch.set_num_threads(1)
    case = all_cases()[name]
    assert isinstance(case.run, Planted)
    sick, twin = Seen(case.run()), Seen(twin_of(case.run))
    ill = SYMPTOMS[case.fault](sick, twin)
    if MEASURES.get(case.fault):
        measure = MEASURES[case.fault]
        name += f"  [{measure(sick):.3g}, twin {measure(twin):.3g}]"
    return f"{'sick' if ill else 'NOT SICK'}  {name}\n    sick: {sick.line()}\n    twin: {twin.line()}", ill


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one finding's id")
    parser.add_argument("--name", default="", help="cases whose name holds this, or one of several between |")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    parts = given.name.split("|")
    planted = [case for case in all_cases().values() if isinstance(case.run, Planted)]
    named = [case for case in planted if any(part in case.name for part in parts)]
    names = [case.name for case in named if given.only in (None, case.fault)]
    well = 0
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        for line, ill in pool.map(both, names):
            print(line, flush=True)
            well += not ill
    print(f"{len(names) - well} of {len(names)} are sick")
    return 1 if well else 0


if __name__ == "__main__":
    sys.exit(main())
