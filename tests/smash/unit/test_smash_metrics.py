"""The table of scores: chunks, floors, batches, bootstrap, missing parts, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smash.metrics import event_scores, join, summarise
from stcore.errors import UserError

EVENTS, SAMPLES, MARKS = 90, 25, 3
SEQUENCE = torch.arange(EVENTS) // 10


def _forecast(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    probability = torch.from_numpy(rng.dirichlet(np.ones(MARKS), size=EVENTS))
    draw = torch.from_numpy(rng.random((EVENTS, SAMPLES + 1)))
    marks = torch.searchsorted(probability.cumsum(1), draw).clamp_max(MARKS - 1)
    return {
        "gap_samples": torch.from_numpy(rng.exponential(2.0, size=(EVENTS, SAMPLES))),
        "location_samples": torch.from_numpy(rng.normal(size=(EVENTS, SAMPLES, 2))),
        "gap": torch.from_numpy(rng.exponential(2.0, size=EVENTS)),
        "location": torch.from_numpy(rng.normal(size=(EVENTS, 2))),
        "mark": marks[:, 0],
        "mark_probability": probability,
        "mark_samples": marks[:, 1:],
    }


def _rows(scored: dict[str, torch.Tensor], **options) -> dict[str, dict]:
    return {row["name"]: row for row in summarise(scored, sequence_index=SEQUENCE, **options)["rows"]}


def test_chunks_do_not_change_a_score():
    forecast = _forecast()
    whole = event_scores(**forecast)
    parts = [event_scores(**{name: value[part] for name, value in forecast.items()})
             for part in (slice(0, 1), slice(1, 40), slice(40, None))]  # fmt: skip
    joined = join(parts)
    assert joined.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(joined[name].double(), value.double(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_honest_rows_come_first_and_legacy_last_each_with_floor_and_interval():
    rows = summarise(event_scores(**_forecast()), sequence_index=SEQUENCE)["rows"]
    legacy = [row["name"].startswith("legacy_") for row in rows]
    assert legacy == sorted(legacy) and sum(legacy) == 8
    assert [row["name"] for row in rows[:3]] == ["gap_crps", "location_energy", "mark_log_loss"]
    for row in rows:
        assert row["floor"] is not None, row["name"]
        if not row["name"].endswith("_batched"):
            assert row["low"] <= row["high"], row["name"]
        if row["unit"] not in ("%", "gap", "location"):
            assert row["low"] <= row["value"] <= row["high"], row["name"]


def test_floor_of_a_perfect_forecaster_is_near_its_score():
    rows = _rows(event_scores(**_forecast()))
    for name in ("gap_crps", "location_energy", "mark_log_loss", "mark_brier", "mae_gap", "distance_location"):
        np.testing.assert_allclose(rows[name]["floor"], rows[name]["value"], rtol=0.45, err_msg=name)


def test_pooled_rows_do_not_depend_on_batches_and_legacy_ones_grow_as_batches_shrink():
    scored = event_scores(**_forecast())
    one, many = _rows(scored, batch_size=1000), _rows(scored, batch_size=1)
    for name, row in one.items():
        if name.endswith("_batched"):
            assert many[name]["value"] >= row["value"] - 1e-9
        else:
            assert many[name] == row
    for name in ("cs_gap", "cs_location"):
        same = "legacy_" + name
        np.testing.assert_allclose(one[same]["value"], one[f"{same}_batched"]["value"])
    np.testing.assert_allclose(one["ece"]["value"], one["legacy_ece_batched"]["value"])
    assert many["legacy_cs_location_batched"]["value"] > one["legacy_cs_location_batched"]["value"] + 1.0


def test_bootstrap_interval_is_that_of_drawing_whole_sequences():
    scored = event_scores(**_forecast(), legacy=False, floor=False)
    row = _rows(scored, replicates=4000, seed=3)["gap_crps"]
    means = scored["gap_crps"].reshape(9, 10).mean(1)  # sequences of equal length: the mean of sequence means
    spread = float(means.std(correction=0)) / 3.0
    np.testing.assert_allclose(row["high"] - row["low"], 2 * 1.96 * spread, rtol=0.08)
    assert row == _rows(scored, replicates=4000, seed=3)["gap_crps"]
    assert _rows(scored, replicates=0)["gap_crps"]["low"] is None


def test_curves_and_mark_table_add_up():
    forecast = _forecast()
    summary = summarise(event_scores(**forecast), sequence_index=SEQUENCE)
    curves, counts = summary["curves"], torch.bincount(forecast["mark"], minlength=MARKS)
    np.testing.assert_allclose(sum(curves["pit_gap"]), EVENTS)
    np.testing.assert_allclose(sum(curves["floor_count"]), EVENTS)
    assert all(later >= earlier for earlier, later in zip(curves["gap"], curves["gap"][1:], strict=False))
    np.testing.assert_allclose(curves["location"], curves["levels"], atol=0.2)
    assert [line["events"] for line in summary["marks"]] == counts.tolist()
    np.testing.assert_allclose(sum(line["probability"] for line in summary["marks"]), 1.0)
    accuracy = next(row["value"] for row in summary["rows"] if row["name"] == "accuracy")
    hits = sum(line["recall"] * line["events"] for line in summary["marks"])
    np.testing.assert_allclose(accuracy, 100 * hits / EVENTS)


def test_location_curve_agrees_with_the_calibration_row():
    summary = summarise(event_scores(**_forecast()), sequence_index=SEQUENCE)
    at = [summary["curves"]["levels"].index(level) for level in (0.5, 0.6, 0.7, 0.8, 0.9)]
    error = np.mean([abs(summary["curves"]["location"][i] - summary["curves"]["levels"][i]) for i in at])
    row = next(row for row in summary["rows"] if row["name"] == "cs_location")
    np.testing.assert_allclose(100 * error, row["value"], atol=2.0)


def test_unmarked_events_have_no_mark_rows():
    forecast = {name: value for name, value in _forecast().items() if not name.startswith("mark")}
    summary = summarise(event_scores(**forecast), sequence_index=SEQUENCE)
    assert summary["marks"] == [] and "confidence" not in summary["curves"]
    assert not any("mark" in row["name"] or "ece" in row["name"] for row in summary["rows"])


def test_probabilities_per_sample_are_averaged_and_samples_alone_are_counted():
    forecast = _forecast()
    spread = torch.distributions.Dirichlet(torch.ones(MARKS)).sample((EVENTS, SAMPLES)).double()
    scored = event_scores(**{**forecast, "mark_probability": spread, "mark_samples": None})
    np.testing.assert_allclose(scored["mark_probability"], spread.mean(1))
    assert "floor/mark_correct" not in scored and "floor/mark_log_loss" in scored
    alone = event_scores(**{**forecast, "mark_probability": None}, num_marks=MARKS)
    counts = torch.nn.functional.one_hot(forecast["mark_samples"], MARKS).sum(1)
    np.testing.assert_allclose(alone["mark_probability"], (counts + 0.5) / (SAMPLES + 1.5))


def test_extra_columns_become_rows():
    scored = event_scores(**_forecast(), extra={"gap_log_density": torch.full((EVENTS,), -1.25)})
    row = _rows(scored)["gap_log_density"]
    assert (row["value"], row["better"], row["floor"]) == (-1.25, "higher", None)


def test_degenerate_samples_are_scored_and_counted():
    forecast = _forecast()
    forecast["gap_samples"][3] = 1e-4
    forecast["location_samples"][5, :, 1] = 22.0
    scored = event_scores(**forecast)
    summary = summarise(scored, sequence_index=SEQUENCE)
    assert (summary["degenerate_gap"], summary["degenerate_location"]) == (1, 1)
    assert all(bool(torch.isfinite(value).all()) for value in scored.values())


def test_an_impossible_mark_gives_an_infinite_loss_and_no_interval():
    forecast = _forecast()
    forecast["mark_probability"] = torch.tensor([1.0, 0.0, 0.0]).expand(EVENTS, -1)
    row = _rows(event_scores(**forecast))["mark_log_loss"]
    assert math.isinf(row["value"]) and row["low"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gap_samples": torch.full((EVENTS, SAMPLES), torch.nan)}, "gap samples: 90 events with non-finite values"),
        ({"location": torch.full((EVENTS, 2), torch.inf)}, "locations: 90 events with non-finite values"),
        ({"mark": torch.full((EVENTS,), 3)}, "marks: from 3 to 3; expected 0 to 2"),
        ({"mark_samples": torch.full((EVENTS, SAMPLES), -1)}, "sampled marks: from -1 to -1; expected 0 to 2"),
        ({"mark_samples": None, "mark_probability": None}, "mark forecast: neither probabilities nor samples"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, said):
    with pytest.raises(UserError, match=said):
        event_scores(**{**_forecast(), **change})


def test_shapes_that_do_not_fit_are_refused_with_and_without_shape_checks():
    with pytest.raises((UserError, TypeError), match=r"gaps: shape \(3,\); expected \(90,\)|parameter 'gap'"):
        event_scores(**{**_forecast(), "gap": torch.zeros(3)})


def test_two_samples_and_no_events_are_refused():
    forecast = _forecast()
    few = {name: forecast[name][:, :2] for name in ("gap_samples", "location_samples")}
    with pytest.raises(UserError, match="samples: 2 per event; expected at least 3"):
        event_scores(**few, gap=forecast["gap"], location=forecast["location"])
    with pytest.raises(UserError, match="no events to predict"):
        summarise({}, sequence_index=torch.zeros(0, dtype=torch.long))
