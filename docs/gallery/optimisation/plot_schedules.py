"""
Learning-rate schedules
=======================

Each schedule is a pure function of progress, 0 at the first step and 1 after the last, to a multiplier of the base
rate (row O9). So the same name serves a training of ten steps and of a million.
"""

import matplotlib.pyplot as plt
import numpy as np

from wellfit.report.drawing import PALETTE, STYLE, plain_axes
from wellfit.training.schedules import SCHEDULES, Plateau, scaled_lr, schedule

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

# %%
# All of them by name
# -------------------
# In a configuration: ``schedule = "cosine"``. A linear warm-up may stand before any: ``"warmup+cosine"``.

names = [name for name in SCHEDULES if name not in ("1/t", "plateau")]  # another name; no function of progress
progress = np.linspace(0, 1, 500)
columns = 4
rows = -(-len(names) // columns)
figure, axes = plt.subplots(
    rows, columns, figsize=(10, 2.1 * rows + 0.4), layout="constrained", sharex=True, sharey=True
)
for panel in axes.flat[len(names) :]:
    panel.set_visible(False)
for panel, name in zip(axes.flat, names, strict=False):
    plain = [schedule(name)(t) for t in progress]
    warmed = [schedule(f"warmup+{name}", warmup=0.1)(t) for t in progress]
    if plain[0] > 0:  # a cycle that rises from zero is a warm-up already
        panel.plot(progress, warmed, color=PALETTE["validation"], lw=1.5, ls="--", label="after a warm-up")
    panel.plot(progress, plain, color=PALETTE["train"], lw=2, label="as it is")
    panel.set_title(name, fontsize=10.5)
    plain_axes(panel)
figure.supxlabel("progress of the training", color=PALETTE["muted"], fontsize=10.5)
figure.supylabel("multiplier of the base rate", color=PALETTE["muted"], fontsize=10.5)
figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
plt.show()

# %%
# The courses' form and this one
# ------------------------------
# A drop by ten at epochs 30, 60 and 90 of 100 is ``step`` as it comes. Other counts are shares:

for_90_epochs = schedule("step", at=(30 / 90, 60 / 90))
print([round(for_90_epochs(epoch / 90), 4) for epoch in (0, 29, 30, 60, 89)])

# %%
# Batches k times as large call for a rate k times as high, approached by a warm-up (row O10):

print("good at 256 images a batch: 0.1; at 1024:", scaled_lr(0.1, 1024, 256))

# %%
# Restarts, and where snapshots are taken
# ---------------------------------------
# ``cyclic`` falls to its floor and starts again; at the foot of each cycle the weights are worth keeping, since the
# next restart throws them out of their valley. Snapshots of several valleys make an ensemble from one training (row
# E2).

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for growth, colour in ((1.0, PALETTE["train"]), (2.0, PALETTE["averaged"])):
    restarts = schedule("cyclic", cycles=4, growth=growth)
    values = np.array([restarts(t) for t in progress])
    axes.plot(progress, values, color=colour, lw=2, label=f"each cycle ×{growth:g} as long")
    feet = [i for i in range(len(values) - 1) if values[i + 1] > values[i] + 0.5] + [len(values) - 1]
    axes.plot(progress[feet], values[feet], "o", color=colour, ms=7, mec="white")
axes.set(xlabel="progress of the training", ylabel="multiplier")
axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
plain_axes(axes)
plt.show()

# %%
# When validation has stopped improving
# -------------------------------------
# ``plateau`` looks at validation instead of progress: a tenth of the rate after some evaluations without gain, as
# AlexNet was trained.

rule = Plateau(factor=0.1, patience=2)
accuracies = [0.30, 0.42, 0.51, 0.51, 0.50, 0.51, 0.58, 0.61, 0.61, 0.60, 0.61, 0.61]
print([round(rule.update(accuracy), 4) for accuracy in accuracies])

# %%
# What it means for your choice
# -----------------------------
# Rates that are high early and low late are better than any constant one for SGD with momentum; Adam is often fine at
# a constant rate. Cosine has no knob but its length. Try without decay first: a rate found under a schedule hides
# what the rate itself does, and a loss that has plateaued tells you when a decay is due. wellfit's planner takes one
# cycle with a warm-up for a training from scratch, because its end falls on your deadline whatever the speed of the
# machine.
