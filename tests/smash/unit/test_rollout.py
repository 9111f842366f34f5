"""Roll-outs: sampled events join the history, probabilities are counts, regions are polygons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smash.config import PRESETS, ModelConfig
from smash.data import Features
from smash.model import Smash
from smash.predict import Forecaster
from smash.rollout import Region, RollOut, roll_out, spread
from stcore.errors import UserError
from stcore.generate.events import clustered_city

OUTER = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]
HOLE = [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]]
SQUARE = {"type": "Polygon", "coordinates": [OUTER, HOLE]}


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    events = clustered_city().simulate(6, duration=20.0, seed=1)
    features = Features.fit(events, log_gap=True)
    config = PRESETS["earthquake"]
    sizes = ModelConfig(width=8, layers=1, heads=2, key_width=4, value_width=4, recurrent_width=8, units=8)
    torch.manual_seed(0)
    model = Smash(sizes, num_marks=features.num_marks)
    config = replace(config, model=sizes, sampler=replace(config.sampler, location_steps=3))
    return Forecaster(model, features, config, {})


def test_first_step_of_a_roll_out_is_the_forecast_of_the_next_event(forecaster: Forecaster) -> None:
    events = clustered_city().simulate(2, duration=20.0, seed=2)
    rolled = list(roll_out(forecaster, events, trajectories=5, steps=3, seed=4))
    assert [one.sequence_id for one in rolled] == list(events.sequence_id)
    assert rolled[0].time.shape == (5, 3) and rolled[0].location.shape == (5, 3, 2)
    assert (np.diff(rolled[0].time, axis=1) >= 0.0).all() and (rolled[0].time[:, 0] >= rolled[0].last_time).all()


def test_futures_of_a_sequence_do_not_depend_on_the_others(forecaster: Forecaster) -> None:
    events = clustered_city().simulate(3, duration=20.0, seed=2)
    together = list(roll_out(forecaster, events, trajectories=4, steps=2, seed=4))
    alone = next(roll_out(forecaster, events.select([1]), trajectories=4, steps=2, seed=4))
    np.testing.assert_array_equal(together[1].time, alone.time)
    np.testing.assert_array_equal(together[1].location, alone.location)


def test_horizon_ends_a_future(forecaster: Forecaster) -> None:
    events = clustered_city().simulate(1, duration=20.0, seed=2)
    rolled = next(roll_out(forecaster, events, trajectories=6, horizon=0.5, seed=4))
    known = np.isfinite(rolled.time)
    assert (rolled.time[known] <= rolled.last_time + 0.5).all()
    assert not known[:, -1].any()
    assert rolled.probability_within(None, 0.5) == known.any(axis=1).mean()


def test_probabilities_are_counts() -> None:
    time = np.array([[1.0, 3.0], [2.5, np.inf], [1.5, 1.6], [9.0, np.inf]])
    location = np.array([[[1.5, 1.5], [9, 9]], [[1.5, 1.5], [np.nan] * 2], [[0.7, 0.7], [1.9, 0.1]], [[1.5, 1.5]] * 2])
    rolled = RollOut("a", 0.0, time, location, None)
    region = Region((np.array(OUTER), np.array(HOLE)))
    assert rolled.probability_within(None, 2.0) == 0.5
    assert rolled.expected_events(None, 2.0) == 0.75
    assert rolled.probability_within(region, 2.0) == 0.5, "the hole is outside, the second event inside"
    assert rolled.expected_events(region, 3.0) == 0.75


def test_spread_of_one_step_is_that_of_its_samples() -> None:
    rng = np.random.default_rng(0)
    rolled = RollOut("a", 0.0, rng.exponential(size=(1000, 1)), rng.normal(size=(1000, 1, 2)),
                     rng.integers(0, 2, (1000, 1)))  # fmt: skip
    columns = spread(rolled, (0.5,), ("u", "v"))
    assert abs(columns["time_0.5"][0] - np.median(rolled.time)) < 1e-2
    assert abs(columns["radius_50"][0] - 1.1774) < 0.1
    assert columns["p_u"][0] + columns["p_v"][0] == 1.0


def test_region_is_read_from_features(tmp_path: Path) -> None:
    path = tmp_path / "region.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": SQUARE}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    inside = Region.read(path).contains(np.array([[0.2, 0.2], [0.7, 0.7], [3.0, 1.0]]))
    assert inside.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("content", "fragment"),
    [("{", "expected a GeoJSON file"), ('{"type": "Point", "coordinates": [0, 0]}', "no polygon"),
     ('{"type": "Polygon", "coordinates": [[[0, 0], [1]]]}', "broken coordinates"),
     ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "at least 3")],
)  # fmt: skip
def test_wrong_regions_are_refused(tmp_path: Path, content: str, fragment: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_text(content)
    with pytest.raises(UserError, match=fragment):
        Region.read(path)
