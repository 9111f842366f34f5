"""The figure of code usage says what it was given."""

from __future__ import annotations

import numpy as np

from stcore.figures_codes import code_usage


def test_histogram_and_usage_are_drawn_as_given() -> None:
    figure = code_usage(np.array([0.1, 1.0, 10.0]), np.array([30, 10]), np.array([0.5, 0.25, 0.0, 0.0]),
                        deviation=2.0, kurtosis=3.5)  # fmt: skip
    left, right = figure.axes
    np.testing.assert_allclose(left.patches[0].get_data().values, [0.75, 0.25])
    assert left.lines[0].get_xdata()[0] == 2.0
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.5, 0.25, 0.0, 0.0])
    assert left.get_title(loc="left") == "Code weights (kurtosis 3.5)"
    assert right.get_title(loc="left") == "Usage (2 of 4 never active)"
