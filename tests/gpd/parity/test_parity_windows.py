"""Ego graphs, scaling, windows and splits against recordings of the original's data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpd_recordings import Recording, named, open_recording

from gpd.ego import ego_graphs, pad_egos
from gpd.models.configs import NodeModelConfig
from gpd.node_data import fit_scales, gather, make_part
from stcore.graph_windows import split_graph
from stcore.graphs import Adjacency, GraphSeries
from stcore.metrics.horizons import HorizonErrors

WINDOWS = named("data_windows")


def city(recording: Recording) -> GraphSeries:
    return GraphSeries(values=recording.input("series").numpy(), step_seconds=3600,
                       adjacency=Adjacency.from_dense(recording.input("adj").numpy()))  # fmt: skip


def stage(recording: Recording, series: GraphSeries, name: str) -> GraphSeries:
    """What of the timeline the original takes in a stage; its target days are of 24 steps, whatever the step."""
    parts = split_graph(series, "legacy")
    return {"singlePretrain": parts.train, "test": parts.test,
            "target": series.slice(-24 * recording.meta["target_days"], None)}[name]  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_ego_graphs(name: str) -> None:
    recording = open_recording(name)
    series = city(recording)
    dense = series.adjacency.dense()
    for node in recording.meta["nodes"]:
        (ego,) = ego_graphs(series.adjacency, [node])
        assert torch.equal(torch.from_numpy(ego.nodes), recording.expect(f"node{node}.ego_nodes"))
        assert ego.nodes[ego.centre] == node
        weights = torch.from_numpy(dense[np.ix_(ego.nodes, ego.nodes)]).float()
        recording.check(f"node{node}.ego_adj", weights)
        recording.check(f"node{node}.a_hat", torch.from_numpy(ego.graph), atol=1e-7)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_every_stage(name: str) -> None:
    recording = open_recording(name)
    series, meta = city(recording), recording.meta
    model = NodeModelConfig(kind="gwn", history=meta["his_num"], horizon=meta["pred_num"])
    for node in meta["nodes"]:
        egos = ego_graphs(series.adjacency, [node])
        # The original scales by the whole timeline.
        scales = fit_scales(make_part(series, model), egos)
        recording.check(f"node{node}.mean_std_channel0", torch.stack([scales.mean[0, 0], scales.std[0, 0]]), rtol=1e-6)
        for one in meta["stages"]:
            part = make_part(stage(recording, series, one), model)
            windows = gather(part, pad_egos(egos), scales, torch.tensor([0]), part.starts, model)
            recording.check(f"node{node}.{one}.x", windows.x[0], atol=5e-6)
            # The original keeps the futures of all nodes of the ego graph, we that of the centre.
            expected = recording.expect(f"node{node}.{one}.y")[:, egos[0].centre]
            found = (windows.y[0] - scales.mean[0, 0]) / scales.std[0, 0]
            assert float((found - expected).abs().max()) <= 5e-6


@pytest.mark.parametrize("name", WINDOWS)
def test_metrics_per_horizon(name: str) -> None:
    recording = open_recording(name)
    errors = HorizonErrors()
    errors.add(recording.input("metric.pred").numpy(), recording.input("metric.true").numpy())
    for key, found in (("MSE", errors.mse()), ("RMSE", errors.rmse()), ("MAE", errors.mae())):
        recording.check(f"metric.{key}", torch.from_numpy(found), rtol=1e-6)
