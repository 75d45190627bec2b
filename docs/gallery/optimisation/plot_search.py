"""
Random against grid search
==========================

Of the knobs of a training, a few matter and you do not know beforehand which. Nine trials on a grid try three values
of each; nine random ones try nine of each (row S2; Bergstra and Bengio 2012, "Random Search for Hyper-Parameter
Optimization").
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np

from wellfit.randomness import generator
from wellfit.report.drawing import PALETTE, STYLE, as_percent, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# One important and one unimportant parameter
# -------------------------------------------
# The score depends on the learning rate with a narrow peak, and hardly on the second knob.


def score(lr: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Validation accuracy of a made-up training: lr and other are exponents of ten, in [-6, -2] and [-5, 0]."""
    return 0.3 + 0.6 * np.exp(-(((lr + 3.35) / 0.42) ** 2)) + 0.03 * np.cos(0.8 * (other + 2))


LR, OTHER = (-6.0, -2.0), (-5.0, 0.0)


def grid(side: int) -> np.ndarray:
    """side²×2: the middles of side equal parts of each range, in the logarithm."""
    places = (np.arange(side) + 0.5) / side
    return np.array([[span(LR, a), span(OTHER, b)] for a, b in itertools.product(places, places)])


def random(trials: int, seed: int) -> np.ndarray:
    """trials×2, drawn evenly in the logarithm, as `wellfit.search.space.LogUniform` has it."""
    draws = generator(seed, "gallery-search").random((trials, 2))
    return np.stack([span(LR, draws[:, 0]), span(OTHER, draws[:, 1])], axis=1)


def span(ends: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * share


figure, axes = plt.subplots(
    2, 2, figsize=(9.5, 6.6), layout="constrained", sharex=True, height_ratios=[1, 2.6], sharey="row"
)
x, y = np.meshgrid(np.linspace(*LR, 200), np.linspace(*OTHER, 200))
for column, (name, points) in enumerate({"grid, 9 trials": grid(3), "random, 9 trials": random(9, 4)}.items()):
    above, field = axes[:, column]
    found = score(*points.T)
    above.plot(x[0], score(x[0], -2.0), color=PALETTE["muted"], lw=1.5)
    above.vlines(points[:, 0], 0.25, found, color=PALETTE["train"], lw=1)
    above.plot(points[:, 0], found, "o", color=PALETTE["train"], ms=5)
    above.plot(points[found.argmax(), 0], found.max(), "*", color=PALETTE["validation"], ms=14)
    values = len(np.unique(points[:, 0].round(9)))
    above.set_title(f"{name}: {values} values of the rate, best {as_percent(found.max().round(3))}")
    above.yaxis.set_major_formatter(as_percent)
    above.set_ylim(0.25, 1)
    field.contourf(x, y, score(x, y), levels=12, cmap="Greys", alpha=0.55)
    field.plot(*points.T, "o", color=PALETTE["train"], ms=8, mec="white")
    field.plot(*points[found.argmax()], "*", color=PALETTE["validation"], ms=18, mec="white")
    field.set_xlabel("learning rate, power of ten (matters)")
    plain_axes(above)
axes[0, 0].set_ylabel("accuracy")
axes[1, 0].set_ylabel("the other knob, power of ten (hardly matters)")
plt.show()

# %%
# Not one lucky draw
# ------------------
# How good is the best trial, for the same number of trials, over 2,000 random searches?

sides = [2, 3, 4, 5, 6, 7, 8, 9, 10]
best = {side**2: np.array([score(*random(side**2, seed).T).max() for seed in range(2000)]) for side in sides}
figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
counts = list(best)
middle = [np.median(best[n]) for n in counts]
low, high = (np.array([np.quantile(best[n], q) for n in counts]) for q in (0.1, 0.9))
axes.fill_between(counts, low, high, color=PALETTE["train"], alpha=0.15, lw=0, label="random, the middle 80%")
axes.plot(counts, middle, "o-", color=PALETTE["train"], label="random, median")
axes.plot(counts, [score(*grid(side).T).max() for side in sides], "s--", color=PALETTE["validation"], label="grid")
axes.set(xlabel="trials", ylabel="best accuracy found", xscale="log", xticks=counts, xticklabels=counts)
axes.minorticks_off()
axes.yaxis.set_major_formatter(as_percent)
axes.legend(loc="lower right")
plain_axes(axes)
plt.show()
for n in (9, 25):
    side = int(n**0.5)
    print(f"{n} trials: grid {score(*grid(side).T).max():.3f}, random {np.median(best[n]):.3f} in the median")

# %%
# What to see
# -----------
# The grid spends six of its nine trials on repeating three rates with other values of a knob that does not matter.
# Random trials never repeat one. The grid can still be lucky: where one of its lines happens to fall on the peak it
# wins, and the next finer grid may lose again.
#
# What it means for your choice: search at random and in the logarithm, first coarse and short, then finer around the
# best, as ``wellfit fit`` does (rows S1, S2). If the best value lies at the edge of its range, the peak may lie
# outside: wellfit says so and widens that side (row S4).
