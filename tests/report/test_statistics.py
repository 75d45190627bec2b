from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wellfit.report.curves_statistics import Histogram
from wellfit.report.static_statistics import draw_histograms, plot_histograms


def histograms(n: int) -> list[Histogram]:
    shares = np.array([0.6, 0.2, 0.15, 0.05])
    return [Histogram(f"relu{i}", 0.0, 4.0, shares, 0.5, 0.25, 1e-4 if i % 2 else None) for i in range(n)]


def test_one_histogram_a_layer_with_bars_as_high_as_the_shares() -> None:
    figure = plot_histograms(histograms(7))
    seen = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in seen] == [f"relu{i}" for i in range(7)]
    bars = [patch for patch in seen[0].patches if isinstance(patch, Rectangle)]
    assert [bar.get_x() for bar in bars] == [0.0, 1.0, 2.0, 3.0]
    assert np.allclose([bar.get_height() for bar in bars], [0.3, 0.2, 0.15, 0.05])  # what is cut says how high it is
    assert "60%" in [text.get_text() for text in seen[0].texts]
    said = [any("gradient" in text.get_text() for text in axes.texts) for axes in seen]
    assert said == [False, True, False, True, False, True, False]


def test_it_draws_on_a_figure_that_is_given_and_as_svg_that_repeats() -> None:
    figure = Figure()
    assert plot_histograms(histograms(2), figure) is figure
    assert len(figure.axes) == 2
    assert draw_histograms(histograms(6)) == draw_histograms(histograms(6))
    assert draw_histograms(histograms(6)).startswith("<svg")
