"""Ego graphs, channels, scales, averages and forecasts of a city."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from node_worlds import SHORT, SIZES, city

from gpd.averages import day_averages
from gpd.ego import ego_graphs, normalise_adjacency, pad_egos
from gpd.finetune import recalibrate
from gpd.models.configs import NodeModelConfig
from gpd.node_data import (
    Scales,
    few_shot_windows,
    fit_scales,
    forecast,
    gather,
    make_part,
    table_for,
)  # fmt: skip
from gpd.pretrain import pretrain
from stcore.errors import UserError
from stcore.graph_windows import window_starts
from stcore.graphs import Adjacency, GraphSeries

MODEL = NodeModelConfig(kind="mlp", **SIZES)


def ones(steps: int, **others: object) -> GraphSeries:
    return GraphSeries(values=np.ones((steps, 2, 1)), adjacency=Adjacency.empty(2), step_seconds=3600, **others)  # pyright: ignore[reportArgumentType]


def test_a_node_without_edges_is_its_own_ego_graph() -> None:
    egos = ego_graphs(city().adjacency)
    assert [ego.nodes[ego.centre] for ego in egos] == [0, 1, 2, 3, 4]
    assert egos[4].nodes.tolist() == [4] and egos[4].graph.tolist() == [[1.0]]
    assert len(egos[0].nodes) == 4


def test_normalised_adjacency_of_a_symmetric_graph_is_symmetric_to_the_bit() -> None:
    graph = normalise_adjacency(city(symmetric=True).adjacency.dense())
    assert np.array_equal(graph, graph.T) and graph.dtype == np.float32
    directed = normalise_adjacency(city().adjacency.dense())
    assert not np.array_equal(directed, directed.T)


def test_padding_adds_nothing_to_an_ego_graph() -> None:
    egos = ego_graphs(city().adjacency)
    padded = pad_egos(egos)
    for row, ego in enumerate(egos):
        size = len(ego.nodes)
        assert padded.mask[row].tolist() == [True] * size + [False] * (4 - size)
        assert np.array_equal(padded.graph[row, :size, :size].numpy(), ego.graph)
        assert float(padded.graph[row, size:].abs().sum() + padded.graph[row, :, size:].abs().sum()) == 0.0


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_scales_are_those_of_all_readings_of_an_ego_graph(missing: float) -> None:
    series = city(missing=missing)
    egos = ego_graphs(series.adjacency)
    scales = fit_scales(make_part(series, MODEL), egos)
    for row, ego in enumerate(egos):
        readings = series.values[:, ego.nodes].astype(np.float64)
        assert scales.mean[row].numpy() == pytest.approx(np.nanmean(readings, axis=(0, 1)), rel=1e-6)
        assert scales.std[row].numpy() == pytest.approx(np.nanstd(readings, axis=(0, 1)), rel=1e-6)


def test_a_constant_node_is_divided_by_one() -> None:
    series = ones(40)
    scales = fit_scales(make_part(series, MODEL), ego_graphs(series.adjacency))
    assert scales.std.tolist() == [[1.0], [1.0]] and scales.mean.tolist() == [[1.0], [1.0]]


def test_added_channels_tell_the_time() -> None:
    series = ones(48, times=np.datetime64("2024-01-01T00:00:00", "s") + 3600 * np.arange(48))
    model = replace(MODEL, time_of_day=True, calendar="week")
    values = make_part(series, model).values[:, 0]
    assert values.shape == (48, 6)
    assert values[6].tolist() == pytest.approx([1.0, 0.25, 1.0, 0.0, np.sin(np.pi / 14), np.cos(np.pi / 14)], abs=1e-6)
    assert torch.equal(values[3, :4], values[27, :4]) and not torch.equal(values[3, 4:], values[27, 4:])


@pytest.mark.parametrize("unevenness", [False, True])
def test_the_time_of_week_has_one_scale_however_few_days_are_known(unevenness: bool) -> None:
    model = replace(MODEL, calendar="week", residual="average", unevenness=unevenness)
    scales = []
    for days in (2, 7):
        series = replace(city(days=7), times=np.datetime64("2024-01-01T00:00:00", "s") + 3600 * np.arange(168))
        part = make_part(series.slice(0, 24 * days), model, day_averages(series))
        scales.append(fit_scales(part, ego_graphs(series.adjacency), model=model))
    week = slice(4, 6)
    assert all(found.mean[:, week].eq(0).all() for found in scales)
    assert scales[0].std[:, week].tolist() == pytest.approx(np.full((5, 2), np.sqrt(0.5)))
    assert torch.equal(scales[0].std[:, week], scales[1].std[:, week])
    assert not torch.equal(scales[0].std[:, :2], scales[1].std[:, :2])


def test_a_tail_is_forecast_from_what_came_before() -> None:
    series = city(days=4)
    early, late = few_shot_windows(series, MODEL, 0.25)
    assert early.max() + 15 == 72 and late.min() + 12 == 72
    assert set(early) | set(late) == set(window_starts(series, 12, 3)) - {58, 59}
    with pytest.raises(UserError, match="town: 82 windows in the few days; expected some before the last 1%"):
        few_shot_windows(series, MODEL, 0.01)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(UserError, match="expected at least 15 for a window of 12"):
        make_part(city(days=1).slice(0, 14), MODEL)


def test_windows_are_what_the_series_says() -> None:
    series = city()
    part, egos = make_part(series, MODEL), ego_graphs(series.adjacency)
    scales = Scales(torch.zeros(5, 2), torch.ones(5, 2), None)
    windows = gather(part, pad_egos(egos), scales, torch.arange(5), torch.tensor([3, 50]), MODEL)
    size = len(egos[0].nodes)
    assert np.array_equal(windows.x[0, 1, :size].transpose(0, 1).numpy(), series.values[50:62][:, egos[0].nodes])
    assert np.array_equal(windows.y[2, 0].numpy(), series.values[15:18, 2, 0])


@pytest.mark.parametrize("residual", ["none", "persistence", "average"])
def test_forecasts_are_in_native_units_and_in_the_order_of_windows(residual: str) -> None:
    """Networks whose last layer is zero forecast the mean, the last value, or the average by time of day."""
    series = city()
    model = replace(MODEL, residual=residual)  # pyright: ignore[reportArgumentType]
    table = table_for(series, torch.zeros(5, 195), model)
    found = forecast(table, series, starts=np.array([0, 30, 126]), device="cpu").numpy()
    ahead = np.array([0, 30, 126])[:, None] + np.arange(12, 15)
    if residual == "none":
        assert table.mean is not None
        expected = np.broadcast_to(table.mean[:, 0].numpy()[None, :, None], found.shape)
    elif residual == "persistence":
        expected = np.broadcast_to(series.values[ahead[:, :1] - 1, :, 0].transpose(0, 2, 1), found.shape)
    else:
        # A scaled deviation of zero is the mean deviation of the ego graph.
        assert table.mean is not None and table.averages is not None
        expected = table.averages.numpy()[:, ahead % 24].transpose(1, 0, 2) + table.mean[:, 0].numpy()[None, :, None]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_forecast_may_reach_beyond_the_end() -> None:
    series = city()
    model = replace(MODEL, residual="average")
    table = table_for(series, torch.zeros(5, 195), model)
    end = np.array([series.num_steps - 12])
    beyond, within = (
        forecast(table, series, starts=end, device="cpu"),
        forecast(table, series, starts=end - 24, device="cpu"),
    )
    assert torch.allclose(beyond, within, atol=1e-5), "the same time of day"


def test_rows_of_another_city_are_refused() -> None:
    series = city()
    table = table_for(series, torch.zeros(5, 195), MODEL)
    with pytest.raises(UserError, match="node '4' is not in town; expected rows of its nodes"):
        forecast(table, series.take_nodes([0, 1, 2, 3]))
    with pytest.raises(UserError, match="town: 1 channels; expected as many as the networks were trained on, 2"):
        forecast(table, series.take_channels(["0"]))
    with pytest.raises(UserError, match="a table without scales"):
        forecast(replace(table, mean=None), series)
    with pytest.raises(UserError, match="rows: 5 for 4 nodes of town"):
        table_for(series.take_nodes([0, 1, 2, 3]), torch.zeros(5, 195), MODEL)


def test_forecasts_of_some_nodes_are_those_of_all() -> None:
    series = city()
    model = NodeModelConfig(kind="gwn", norm="layer", **SIZES)
    table = pretrain(series, model, replace(SHORT, epochs=1, start="own"), device="cpu", quiet=True)
    every = forecast(table, series, device="cpu")
    some = forecast(table.take([3, 0]), series, device="cpu")
    assert every.shape == (226, 5, 3)
    assert torch.allclose(some, every[:, [3, 0]], atol=1e-5)


def test_recalibrated_statistics_are_those_of_the_few_days() -> None:
    series = city()
    model = NodeModelConfig(kind="gwn", norm="batch", **SIZES)
    trained = pretrain(series, model, replace(SHORT, epochs=1), device="cpu", quiet=True)
    bare = table_for(series, trained.rows, model)
    assert float(bare.params()["bn.0.running_mean"].abs().max()) == 0.0
    again = recalibrate(bare, series)
    assert set(again.states) == {f"bn.{k}.running_{name}" for k in range(3) for name in ("mean", "var")}
    # The first norm sees the same data in training; running statistics have come a fifth of the way or so.
    assert float((again.params()["bn.0.running_var"] - trained.states["bn.0.running_var"]).abs().max()) < 1.0
    assert not torch.equal(forecast(bare, series, device="cpu"), forecast(again, series, device="cpu"))
