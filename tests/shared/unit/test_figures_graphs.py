"""Figures of graphs: what they draw is what they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.figures import save_figure
from stcore.figures_graphs import (
    error_by_horizon,
    nearest_row_distances,
    node_forecasts,
    node_map,
    spectral_positions,
)
from stcore.generate.traffic import TrafficCity
from stcore.graphs import Adjacency

CITY = TrafficCity.make(12, seed=0)


def test_errors_are_drawn_at_their_times_with_naive_ones_dashed() -> None:
    errors = {"generated": np.array([1.0, 2.0, 3.0]), "persistence": np.array([2.0, 3.0, 4.0])}
    (axis,) = error_by_horizon(errors, step_minutes=15, unit="km/h", spread={"generated": np.full(3, 0.1)}).axes
    lines = {str(line.get_label()): line for line in axis.get_lines()}
    assert lines["generated"].get_xydata().tolist() == [[15, 1], [30, 2], [45, 3]]
    assert lines["persistence"].get_linestyle() == "--" and lines["generated"].get_linestyle() == "-"
    assert axis.get_xlabel() == "minutes ahead" and "km/h" in axis.get_ylabel() and len(axis.collections) == 1
    (steps,) = error_by_horizon(errors).axes
    assert steps.get_xlabel() == "steps ahead" and steps.get_lines()[0].get_xdata().tolist() == [1.0, 2.0, 3.0]
    for wrong in ({}, {"a": np.ones(2), "b": np.ones(3)}):
        with pytest.raises(UserError, match="errors: lengths"):
            error_by_horizon(wrong)


@pytest.mark.parametrize("placed", [True, False])
def test_nodes_are_drawn_at_their_places_with_their_values_and_edges(placed: bool, tmp_path: Path) -> None:
    values = np.arange(12.0)
    values[4] = np.nan
    points = 1000.0 * CITY.points if placed else None
    figure = node_map(values, CITY.adjacency, coordinates=points, unit="km/h")
    edges, hollow, dots = figure.axes[0].collections
    assert len(edges.get_paths()) == CITY.adjacency.edges.shape[1] - 12 and len(hollow.get_offsets()) == 1
    np.testing.assert_array_equal(np.asarray(dots.get_array()), np.delete(values, 4))
    expected = CITY.points - CITY.points.mean(axis=0) if placed else spectral_positions(CITY.adjacency)
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), np.delete(expected, 4, axis=0), atol=1e-9)
    assert ("km from the middle" in figure.axes[0].get_xlabel()) == placed
    assert save_figure(figure, tmp_path / "map.png").stat().st_size > 5000
    signed = node_map(np.linspace(-2.0, 1.0, 12), CITY.adjacency, signed=True).axes[0].collections[2]
    assert signed.get_clim()[0] == -signed.get_clim()[1]
    with pytest.raises(UserError, match="3 values and 12 positions; expected one for each of 12"):
        node_map(np.ones(3), CITY.adjacency)


def test_positions_by_the_graph_keep_a_line_in_order() -> None:
    line = Adjacency.from_dense(np.eye(9, k=1) + np.eye(9, k=-1))
    along = spectral_positions(line)[:, 0]
    assert (np.diff(along) < 0).all() or (np.diff(along) > 0).all()
    assert np.isfinite(spectral_positions(Adjacency.empty(4))).all() and spectral_positions(
        Adjacency.empty(1)
    ).shape == (1, 2)


def test_distances_of_rows_are_drawn_as_shares() -> None:
    figure = nearest_row_distances(np.array([1.0, 2.0, 9.0, 9.0]), np.array([5.0, 6.0]), copies=3.0)
    (axis,) = figure.axes
    assert sum(patch.get_height() for patch in axis.patches) == pytest.approx(2.0)
    assert any("50 % of generated rows" in text.get_text() for text in figure.legends[0].get_texts())
    with pytest.raises(UserError, match="0 generated rows and 2 training rows"):
        nearest_row_distances(np.zeros(0), np.ones(2))


def test_forecasts_get_a_panel_for_each_node() -> None:
    truth = np.random.default_rng(0).normal(size=(50, 3))
    times = np.datetime64("2024-05-01T00:00", "s") + np.arange(50) * np.timedelta64(900, "s")
    figure = node_forecasts(
        truth, {"ours": truth + 1.0}, names=["a", "b", "c"], times=times, ahead="1 hour", unit="mph"
    )
    assert [axis.get_title("center") or axis.get_title("left") for axis in figure.axes] == [
        "node a",
        "node b",
        "node c",
    ]
    for node, axis in enumerate(figure.axes):
        came, ours = axis.get_lines()
        np.testing.assert_array_equal(came.get_ydata(), truth[:, node])
        np.testing.assert_array_equal(ours.get_ydata(), truth[:, node] + 1.0)
    assert len(node_forecasts(truth[:, :1], {}, names=["a"]).axes) == 1
    for names, forecasts, words in (
        (["a"], {}, "3 nodes and 1 names"),
        (["a", "b", "c"], {"x": truth[:2]}, "forecast 'x'"),
    ):
        with pytest.raises(UserError, match=words):
            node_forecasts(truth, forecasts, names=names)
