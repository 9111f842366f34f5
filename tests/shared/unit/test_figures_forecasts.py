"""Figures of forecasts in use hold what they were given and fit on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from stcore.figures_forecasts import cells_around, future_fan, gaps_along_sequence, probability_map

RNG = np.random.default_rng(0)
HISTORY = np.sort(RNG.uniform(0.0, 9.0, 12))
FUTURES = 9.0 + RNG.exponential(size=(60, 5)).cumsum(axis=1)
QUANTILES = np.quantile(RNG.exponential(size=(30, 400)), [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
PLACES = RNG.normal([140.0, 36.0], [2.0, 1.0], size=(500, 2))


def _map(**more: Any) -> Any:
    x, y = cells_around(PLACES)
    share = np.histogram2d(*PLACES.T, bins=(x, y))[0] / 500.0
    return probability_map(x, y, share, history=PLACES[:9], degrees=True, **more)


@pytest.mark.parametrize("name", ["fan", "gaps", "map", "region"])
def test_title_labels_and_text_of_eight_points_inside_the_page(name: str) -> None:
    square = np.array([[139.0, 35.0], [141.0, 35.0], [141.0, 37.0], [139.0, 37.0]])
    draw: dict[str, Any] = {
        "fan": lambda: future_fan(FUTURES, history_time=HISTORY, unit="days"),
        "gaps": lambda: gaps_along_sequence(np.arange(1, 31), QUANTILES, truth=RNG.exponential(size=30), unit="days"),
        "map": _map,
        "region": lambda: _map(region=(square,), chance=0.42),
    }
    figure = draw[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert figure.axes[0].get_title(loc="left") and figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel()
    texts = figure.findobj(Text, include_self=False)
    assert min(text.get_fontsize() for text in texts if text.get_text()) >= 8.0
    drawn = figure.get_tightbbox(canvas.get_renderer())
    assert drawn.x0 > -0.07 and drawn.y0 > -0.07
    assert drawn.x1 < figure.get_figwidth() + 0.07 and drawn.y1 < figure.get_figheight() + 0.07
    if name == "region":
        assert any("P(event) = 42 %" in text.get_text() for text in texts)


def test_fan_has_the_median_of_each_step_and_the_latest_known_events() -> None:
    figure = future_fan(FUTURES, history_time=HISTORY)
    lines: dict[Any, Any] = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["median"].get_xdata(), [HISTORY[-1], *np.median(FUTURES, axis=0)])
    np.testing.assert_array_equal(lines["median"].get_ydata(), range(6))
    np.testing.assert_allclose(lines["known events"].get_xdata(), HISTORY[-6:])


def test_gaps_outside_the_outer_interval_are_counted_and_zeros_are_shown() -> None:
    truth = QUANTILES[:, 2].copy()
    truth[[3, 4, 5]] = [1e3, 0.0, 1e3]
    figure = gaps_along_sequence(np.arange(1, 31), QUANTILES, truth=truth)
    lines: dict[Any, Any] = {line.get_label(): line for line in figure.axes[0].lines}
    outside = lines["outside 90 %: 10 %"]
    np.testing.assert_array_equal(outside.get_xdata(), [4, 5, 6])
    assert float(np.min(outside.get_ydata())) > figure.axes[0].get_ylim()[0] > 0.0


def test_cells_are_about_square_and_hold_the_points() -> None:
    x, y = cells_around(PLACES)
    width, height = x[1] - x[0], y[1] - y[0]
    assert 0.8 < width / height < 1.25
    low, high = np.array([x[0], y[0]]), np.array([x[-1], y[-1]])
    assert ((low < PLACES) & (high > PLACES)).all(axis=1).mean() > 0.97
    line_x, line_y = cells_around(np.array([[1.0, 2.0], [3.0, 2.0]]))
    assert len(line_y) == 3 and len(line_x) == 25
