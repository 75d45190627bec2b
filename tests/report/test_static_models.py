from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from wellfit.report.static_models import Point, _front, draw_models, draw_models_png

POINTS = [Point("small", 10**8, 0.6, 10**6), Point("worse", 10**9, 0.5, 10**8), Point("large", 10**10, 0.8, 10**7)]


def test_names_axes_and_sizes_are_in_the_figure() -> None:
    svg = draw_models(POINTS)
    ET.fromstring(svg)
    for text in ("small", "worse", "large", "parameters", "100 M", "published top-1 accuracy", "60%"):
        assert f">{text}<" in svg


def test_the_same_points_give_the_same_bytes() -> None:
    assert draw_models(POINTS) == draw_models(POINTS)
    assert draw_models_png(POINTS) == draw_models_png(POINTS)
    assert draw_models_png(POINTS).startswith(b"\x89PNG")


def test_one_point_alone_can_be_drawn() -> None:
    assert ">worse<" in draw_models(POINTS[1:2])


def test_the_front_holds_the_nets_that_none_beats_for_less() -> None:
    rng = np.random.default_rng(0)
    flops, accuracy = rng.integers(1, 20, 60).astype(float), rng.integers(1, 30, 60) / 30
    expected = [
        not any(
            ((f < g or (f == g and i < j)) and a >= b) or (f == g and a > b)
            for i, (f, a) in enumerate(zip(flops, accuracy, strict=True))
            if i != j
        )
        for j, (g, b) in enumerate(zip(flops, accuracy, strict=True))
    ]
    assert _front(flops, accuracy).tolist() == expected
