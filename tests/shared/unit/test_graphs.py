"""The container of series on a graph: what it holds, what it refuses, how it is cut, and its clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.graphs import Adjacency, GraphSeries

RANDOM = np.random.default_rng(0)
HOURS = np.datetime64("2024-05-01T00:00:00", "s") + np.arange(200) * np.timedelta64(3600, "s")


def graph_of(nodes: int = 4) -> Adjacency:
    """A ring with edges of a node to itself, directed."""
    return Adjacency.from_dense(np.eye(nodes) + 0.5 * np.roll(np.eye(nodes), 1, axis=1))


def series_of(steps: int = 200, num_nodes: int = 4, **changes: Any) -> GraphSeries:
    fields: dict[str, Any] = {
        "values": RANDOM.normal(size=(steps, num_nodes, 2)),
        "adjacency": graph_of(num_nodes),
        "times": HOURS[:steps],
        "channels": ("in", "out"),
        "units": ("persons",),
        "coordinates": np.arange(2.0 * num_nodes).reshape(num_nodes, 2),
        "name": "town",
    }
    return GraphSeries(**fields | changes)


def test_edges_are_sorted_zeros_dropped_and_the_matrix_comes_back() -> None:
    matrix = RANDOM.uniform(size=(7, 7)) * (RANDOM.uniform(size=(7, 7)) < 0.4)
    graph = Adjacency.from_dense(matrix)
    np.testing.assert_array_equal(graph.dense(), matrix)
    order = RANDOM.permutation(graph.edges.shape[1])
    again = Adjacency(graph.edges[:, order], graph.weights[order], 7)
    np.testing.assert_array_equal(again.edges, graph.edges)
    np.testing.assert_array_equal(again.weights, graph.weights)
    assert Adjacency(np.array([[0, 1], [1, 0]]), np.array([0.0, 2.0]), 2).edges.tolist() == [[1], [0]]
    assert Adjacency.empty(3).dense().sum() == 0.0 and Adjacency.empty(3).degrees().tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        graph.weights[0] = 1.0


def test_neighbours_go_both_ways_and_hold_the_node_itself_only_where_it_has_an_edge() -> None:
    graph = Adjacency(np.array([[0, 2, 1, 1], [1, 0, 1, 0]]), np.ones(4), 4)
    assert graph.neighbours(0).tolist() == [1, 2] and graph.neighbours(1).tolist() == [0, 1]
    assert graph.neighbours(3).tolist() == [] and graph.degrees().tolist() == [2, 1, 1, 0]
    assert not graph.symmetric and Adjacency.from_dense([[0.0, 2.0], [2.0, 1.0]]).symmetric
    assert not Adjacency.from_dense([[0.0, 2.0], [1.0, 0.0]]).symmetric


def test_taking_nodes_takes_the_graph_between_them_in_their_order() -> None:
    graph = graph_of(6)
    for index in ([5, 0, 3], [2], RANDOM.permutation(6).tolist()):
        np.testing.assert_array_equal(graph.take(index).dense(), graph.dense()[np.ix_(index, index)])
    series = series_of(num_nodes=6)
    part = series.take_nodes([4, 1], name="half")
    np.testing.assert_array_equal(part.values, series.values[:, [4, 1]])
    assert part.nodes == ("4", "1") and part.name == "half" and part.coordinates is not None
    assert part.coordinates.tolist() == [[8.0, 9.0], [2.0, 3.0]] and part.units == ("persons", "persons")
    for index, words in (([6], "node 6; expected 0 to 5"), ([1, 1], "node 1 occurs twice")):
        with pytest.raises(UserError, match=words):
            series.take_nodes(index)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\); expected a square"),
        (np.array([[1.0, -0.5], [0.0, 1.0]]), r"row 0, column 1 is -0.5 \(one of 1 negative\)"),
        (np.array([[1.0, 0.0], [np.nan, 1.0]]), r"row 1, column 0 is nan \(one of 1 not finite\)"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), "row 0, column 1 is inf"),
        (np.array([[1j]]), "complex128; expected real"),
    ],
    ids=["not square", "negative", "nan", "infinite", "complex"],
)
def test_a_wrong_matrix_is_refused_with_row_and_column(matrix: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Adjacency.from_dense(matrix)


@pytest.mark.parametrize(
    ("edges", "weights", "expected"),
    [
        ([[0], [3]], [1.0], "edge 0 to 3; expected nodes 0 to 2"),
        ([[0, 0], [1, 1]], [1.0, 2.0], "edge 0 to 1 occurs twice"),
        ([[0, 1]], [1.0], "two rows of integers"),
        ([[0], [1]], [1.0, 2.0], "one number for each of 1 edges"),
    ],
    ids=["outside", "twice", "one row", "weights"],
)
def test_wrong_edges_are_refused(edges: Any, weights: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Adjacency(np.array(edges), np.array(weights), 3)


def test_missing_readings_are_nan_and_known_to_be() -> None:
    values = np.arange(12.0).reshape(3, 2, 2)
    values[1, 0, 1] = np.nan
    valid = np.ones((3, 2, 2), np.bool_)
    valid[2, 1, 0] = False
    series = GraphSeries(values=values, adjacency=Adjacency.empty(2), valid=valid)
    assert series.valid is not None and series.values.dtype == np.float32
    assert np.argwhere(~series.valid).tolist() == [[1, 0, 1], [2, 1, 0]]
    np.testing.assert_array_equal(np.isnan(series.values), ~series.known)
    whole = GraphSeries(values=np.zeros((3, 2, 2), np.uint8), adjacency=Adjacency.empty(2), valid=np.ones_like(valid))
    assert whole.valid is None and whole.known.all() and whole.channels == ("0", "1")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"values": np.zeros((3, 4))}, r"shape \(3, 4\); expected three axes"),
        ({"values": np.zeros((200, 0, 2)), "adjacency": Adjacency.empty(0)}, "at least one node and channel"),
        ({"values": np.full((200, 4, 2), "x")}, "expected real numbers"),
        ({"values": np.full((200, 4, 2), 1e39)}, "step 0, node 0, channel 0 is 1e.39; expected numbers that single"),
        ({"adjacency": graph_of(5)}, "adjacency of 5 nodes for values of 4"),
        ({"nodes": ("a", "b", "a", "c")}, "node 'a' occurs twice"),
        ({"nodes": ("a",)}, "1 node names; expected 4"),
        ({"channels": ("x", "x")}, "channel 'x' occurs twice"),
        ({"units": ("m", "s", "K")}, "3 units; expected one for each of 2"),
        ({"coordinates": np.zeros((3, 2))}, r"coordinates of shape \(3, 2\); expected \(4, 2\)"),
        ({"coordinates": np.full((4, 2), np.nan)}, "coordinates of node 0 are"),
        ({"coordinates": np.full((4, 2), 118.0), "degrees": True}, "latitude 118; expected latitudes .* swapped"),
        ({"times": HOURS[:3]}, r"shape \(3,\); expected one moment for each of 200"),
        ({"times": HOURS[:200][::-1]}, "step 1 has 2024-05-09T06:00:00, before 2024-05-09T07:00:00"),
        ({"times": HOURS[np.r_[0:5, 4:199]]}, "step 5 has the same time as the step before it"),
        ({"times": np.r_[HOURS[:5], HOURS[5:200] + np.timedelta64(7, "s")]}, "step 5 comes 3607 seconds after"),
        ({"step_seconds": 1000}, "step 1 comes 3600 seconds after .* whole steps of 1000"),
        ({"step_seconds": 0, "times": None}, "step of 0 seconds"),
        ({"valid": np.ones((200, 4), np.bool_)}, "valid is bool of shape"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_series_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=f"graph: .*{expected}"):
        series_of(**changes)


def test_the_clock_counts_steps_of_the_day_and_days_of_the_week() -> None:
    series = series_of()  # from a Wednesday on
    assert series.step_seconds == 3600 and series.steps_per_day == 24
    assert series.step_of_day()[:26].tolist() == [*range(24), 0, 1]
    assert series.day_of_week()[[0, 24, 4 * 24, 5 * 24]].tolist() == [2, 3, 6, 0]
    undated = GraphSeries(values=np.zeros((100, 1, 1)), adjacency=Adjacency.empty(1), step_seconds=7200)
    assert undated.steps_per_day == 12 and undated.day_of_week()[[0, 84]].tolist() == [0, 0]
    later = undated.slice(15, 40)
    np.testing.assert_array_equal(later.step_of_day(), undated.step_of_day()[15:40])
    np.testing.assert_array_equal(later.day_of_week(), undated.day_of_week()[15:40])
    weekly = GraphSeries(values=np.zeros((5, 1, 1)), adjacency=Adjacency.empty(1), step_seconds=7 * 86_400)
    assert weekly.steps_per_day == 1 and weekly.step_of_day().tolist() == [0] * 5
    for step, words in ((None, "time step not known"), (7000, "divides a day")):
        with pytest.raises(UserError, match=words):
            _ = GraphSeries(values=np.zeros((5, 1, 1)), adjacency=Adjacency.empty(1), step_seconds=step).steps_per_day


def test_gaps_end_runs_and_the_step_is_kept_in_short_pieces() -> None:
    times = HOURS[np.r_[0:50, 60:120]]
    series = series_of(110, times=times)
    assert series.gaps().tolist() == [50] and series.runs() == [range(50), range(50, 110)]
    piece = series.slice(49, 51)  # two steps on both sides of the gap
    assert piece.step_seconds == 3600 and piece.gaps().tolist() == [1] and piece.first_step == 49
    assert series.slice(0, 0).runs() == [] and len(series.slice(-5, None)) == 5


def test_pieces_share_the_readings_and_nobody_can_change_them() -> None:
    values = RANDOM.normal(size=(200, 4, 2)).astype(np.float32)
    series = series_of(values=values)
    assert np.shares_memory(series.slice(50, 90).values, series.values)
    assert not np.shares_memory(series.values, values)
    values[0] = 9.0
    assert not (series.values[0] == 9.0).any()
    with pytest.raises(ValueError, match="read-only"):
        series.values[0, 0, 0] = 1.0
    masked = series_of(values=series.values, valid=np.arange(200)[:, None, None] > np.zeros((200, 4, 2)))
    assert np.isnan(masked.values[0]).all() and not np.isnan(series.values).any()


def test_channels_are_chosen_by_name() -> None:
    series = series_of()
    out = series.take_channels(["out"])
    np.testing.assert_array_equal(out.values[..., 0], series.values[..., 1])
    assert out.channels == ("out",) and out.units == ("persons",)
    for names, words in ((["up"], "no channel 'up'; expected in, out"), ([], "no channel chosen")):
        with pytest.raises(UserError, match=f"town: {words}"):
            series.take_channels(names)


def test_writing_and_reading_give_the_same_series(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(200, 4, 2))
    values[3, 1, 0] = np.nan
    series = series_of(values=values, nodes=("a", "é", "c", "d")).slice(2, 190)
    series.write(tmp_path / "town.npz")
    again = GraphSeries.read(tmp_path / "town.npz")
    for name in ("nodes", "channels", "units", "step_seconds", "degrees", "name", "first_step"):
        assert getattr(again, name) == getattr(series, name)
    for name in ("values", "times", "coordinates", "valid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(series, name))
    np.testing.assert_array_equal(again.adjacency.dense(), series.adjacency.dense())
    plain = GraphSeries(values=RANDOM.normal(size=(9, 1, 1)), adjacency=Adjacency.empty(1), step_seconds=300)
    plain.write(tmp_path / "plain.npz")
    assert GraphSeries.read(tmp_path / "plain.npz").times is None
    for path, words in (
        (tmp_path / "town.csv", r"ending '.csv'; expected .npz"),
        (tmp_path / "no" / "a.npz", "no fol"),
    ):
        with pytest.raises(UserError, match=words):
            series.write(path)


def test_what_is_odd_is_said_in_words() -> None:
    clean = series_of(200, values=np.cumsum(RANDOM.normal(size=(200, 4, 2)), axis=0))
    assert [line for line in clean.check() if "directed" not in line] == []
    values = np.abs(RANDOM.normal(size=(200, 4, 2)))
    values[:, 1, 0] = 7.0
    values[10:60, 2, 0] = 3.0
    values[:150, 3, 1] = 0.0
    values[5, 0, 0] = np.nan
    lone = Adjacency.from_dense(np.diag([1.0, 0.0, 0.0, 0.0]))
    odd = series_of(values=values, adjacency=lone, times=None, step_seconds=3600)
    said = " | ".join(odd.check())
    for words in ("1 of 1,600 (0.062 %) readings are missing, first at step 5, node 0, channel in",
                  "nodes never change: 1", "longest 2 for 50", "no step has a date", "no node has a neighbour",
                  ):  # fmt: skip
        assert words in said, said
    gaps = series_of(110, times=HOURS[np.r_[0:50, 60:120]]).check()
    assert any("1 gaps in the clock, the first of 11 hours before step 50" in line for line in gaps)
    assert clean.slice(0, 0).check() == ["no steps: there is nothing to learn from"]
    wide = GraphSeries(values=RANDOM.normal(size=(20, 40, 1)), adjacency=Adjacency.empty(40), step_seconds=3600)
    assert any("more nodes (40) than steps (20): are time and nodes swapped?" in line for line in wide.check())


def test_the_description_has_sizes_clock_and_graph() -> None:
    facts = series_of().describe()
    assert (facts["steps"], facts["nodes"], facts["edges"], facts["days"], facts["gaps"]) == (200, 4, 8, 9, 0)
    assert facts["step"] == "1 hours" and facts["neighbours"] == {"min": 2, "mean": 2.0, "max": 2}
    assert facts["times"] == {"first": "2024-05-01T00:00:00", "last": "2024-05-09T07:00:00"}
    assert not facts["symmetric"] and facts["missing_share"] == 0.0 and facts["values"].keys() == {"in", "out"}
