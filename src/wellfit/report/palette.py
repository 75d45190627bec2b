"""The colours that every figure shares, whichever library draws it; this file imports none."""

from __future__ import annotations

# Blue, orange and green of unequal lightness stay apart for every common kind of colour blindness and in grey.
# `drawing.themed` swaps these exact values for the page's variables of the same names.
PALETTE = {
    "ink": "#1c2733",
    "muted": "#5b6875",
    "grid": "#e2e6ea",
    "train": "#2f66a9",
    "validation": "#d0701c",
    "averaged": "#23857a",
    "alarm": "#b02a3c",
    "ground": "#fdfdfc",
}
# Of accuracies, from low to high. Rising in lightness: it keeps its order in grey and for colour-blind readers, and
# its ends stand out on light and dark.
ACCURACY_COLOURS = ("#5a4b9c", "#3f74b8", "#3ba39a", "#9dbb3a", "#e0b92f")
