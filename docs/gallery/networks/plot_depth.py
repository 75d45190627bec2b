"""
Plain against residual nets at 20 and 56 layers
===============================================

More layers can compute everything that fewer can, so a deeper net should err *less* on its own training images. A
plain one errs more (row N9; He et al. 2015). This page draws figures that were measured by hand and kept, since they
take half an hour: ``python benchmarks/depth.py`` measures them anew.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

from wellfit.report.drawing import PALETTE, STYLE, as_percent, plain_axes

plt.style.use({**STYLE, "figure.dpi": 110, "text.parse_math": True})

kept = json.loads(Path("depth.json").read_text(encoding="utf-8"))
print(
    f"measured {kept['date']}, torch {kept['torch']}, {kept['machine']}: {kept['images']:,} CIFAR-10 images (JPEG) at "
    f"{kept['side']}×{kept['side']} pixels, {kept['epochs']} of {kept['planned']} epochs, {kept['steps']:,} steps, "
    f"seed {kept['seed']}"
)

# %%
# Error on the training images
# ----------------------------
# Thin dashed: 20 layers, thick: 56. All four saw the same batches with the same rates, and differ in nothing but
# depth and shortcuts.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained", sharey=True)
for panel, kind in zip(axes, ("plain", "resnet"), strict=True):
    for depth, dash, width in ((20, "--", 1.6), (56, "-", 2.6)):
        lines = kept["nets"][f"{kind}{depth}"]
        errors = [line["training_error"] for line in lines]
        colour = PALETTE["alarm"] if kind == "plain" else PALETTE["train"]
        epochs = [line["epoch"] for line in lines]
        panel.plot(epochs, errors, dash, marker="o", ms=5, lw=width, color=colour, label=f"{depth} layers")
        higher = errors[-1] >= kept["nets"][f"{kind}{76 - depth}"][-1]["training_error"]
        panel.annotate(
            as_percent(round(errors[-1], 3)),
            (epochs[-1], errors[-1]),
            (8, 2 if higher else -9),
            textcoords="offset points",
        )
    panel.set(title="plain" if kind == "plain" else "residual", xlabel="epoch", ylim=(0, 0.9), xticks=epochs)
    panel.set_xlim(0.8, epochs[-1] + 0.7)
    panel.legend(loc="lower left")
    plain_axes(panel)
axes[0].yaxis.set_major_formatter(as_percent)
axes[0].set_ylabel("error on training images")
plt.show()

for net, lines in kept["nets"].items():
    print(f"{net:>9}: training error {lines[-1]['training_error']:.1%}, loss {lines[-1]['loss']:.3f}")

# %%
# What to see
# -----------
# The plain net of 56 layers stands far above the one of 20, on the images it was trained on: that is no overfitting,
# it is a net that is harder to train. With shortcuts the two depths stand within a point of each other, which is
# about what 5,000 measured images can tell apart, and both below either plain net.
#
# This is a short run, on small images, from one seed: only the order is to be compared with the paper, whose nets saw
# 64,000 steps at 32 pixels. There the deeper residual net ends below the shallower one; in so few steps it does not.
#
# What it means for your choice: go deep with shortcuts, never without. A block whose weights are zero is the
# identity, so a deeper residual net starts as a shallower one, and has only to learn what it adds.
