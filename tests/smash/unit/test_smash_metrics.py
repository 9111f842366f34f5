"""The table of scores: chunks, floors, batches, bootstrap, missing parts, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smash import table
from smash.metrics import ScoreTable, event_scores, join, summarise
from stcore.errors import UserError
from stcore.metrics import calibration
from stcore.metrics.calibration import LevelMap

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


def _uneven(seed: int = 0) -> torch.Tensor:
    """Sequences of unequal length, some without a predicted event."""
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(np.arange(40), EVENTS)))


def _in_chunks(scored: dict[str, torch.Tensor], sequence: torch.Tensor, cuts: list[int], **options) -> ScoreTable:
    whole = ScoreTable(**options)
    for start, stop in zip([0, *cuts], [*cuts, len(sequence)], strict=True):
        whole.update({name: value[start:stop] for name, value in scored.items()}, sequence[start:stop])
    return whole


def _assert_equal(found, expected, where: str = "") -> None:
    """Compare tables to 1e-12, names and order included."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for name in expected:
            _assert_equal(found[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, pair in enumerate(zip(found, expected, strict=True)):
            _assert_equal(*pair, f"{where}/{place}")
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=where)
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    ("cuts", "batch_size"), [([45], 64), ([0, 90], 7), ([*range(1, 12), 60], 7), ([3, 4, 50, 51, 77], 1)]
)
def test_any_split_into_chunks_gives_the_same_table(cuts, batch_size):
    scored = event_scores(**_forecast(), extra={"gap_log_density": torch.linspace(-3.0, 1.0, EVENTS)})
    for sequence in (_uneven(), _uneven()[torch.randperm(EVENTS, generator=torch.Generator().manual_seed(1))]):
        whole = summarise(scored, sequence_index=sequence, batch_size=batch_size, replicates=50, seed=2)
        _assert_equal(_in_chunks(scored, sequence, cuts, batch_size=batch_size).summary(replicates=50, seed=2), whole)


def test_table_of_chunks_is_that_of_whole_columns():
    scored, sequence, replicates = event_scores(**_forecast()), _uneven(), 100
    summary = _in_chunks(scored, sequence, list(range(5, 90, 11)), batch_size=8).summary(replicates=replicates, seed=4)
    rows = {row["name"]: row for row in summary["rows"]}
    crps, ids = scored["gap_crps"].numpy(), sequence.numpy()
    present = np.unique(ids)
    assert (summary["events"], summary["sequences"]) == (EVENTS, len(present))
    draws = np.random.default_rng(4).multinomial(len(present), np.full(len(present), 1 / len(present)), replicates)
    means = [np.average(crps, weights=draw[np.searchsorted(present, ids)]) for draw in draws]
    expected = (crps.mean(), scored["floor/gap_crps"].mean(), *np.quantile(means, (0.025, 0.975)))
    found = rows["gap_crps"]
    np.testing.assert_allclose([found[name] for name in ("value", "floor", "low", "high")], expected, rtol=1e-12)
    levels = np.array(calibration.LEVELS)
    for prefix, name in (("", "value"), ("floor/", "floor")):
        covered = scored[f"{prefix}legacy_gap_covered"].double().numpy()
        error = lambda part, covered=covered: 100 * np.abs(covered[part].mean(0) - levels).mean()  # noqa: E731
        np.testing.assert_allclose(rows["legacy_cs_gap"][name], error(slice(None)), rtol=1e-12)
        batches = [ids // 8 == batch for batch in np.unique(ids // 8)]
        batched = sum(error(batch) * batch.sum() for batch in batches) / EVENTS
        np.testing.assert_allclose(rows["legacy_cs_gap_batched"][name], batched, rtol=1e-12)
        bins = calibration.reliability(scored[f"{prefix}mark_confidence"], scored[f"{prefix}mark_correct"])
        np.testing.assert_allclose(rows["ece"][name], 100 * bins.ece, rtol=1e-12)
        curves = {key: summary["curves"][f"{prefix.replace('/', '_')}{key}"] for key in ("gap", "pit_gap", "accuracy")}
        pit = scored[f"{prefix}gap_pit_low"], scored[f"{prefix}gap_pit_high"]
        coverage = calibration.pit_coverage(*pit, torch.tensor(table.CURVE_LEVELS, dtype=torch.float64))
        np.testing.assert_allclose(curves["gap"], coverage, rtol=1e-12)
        np.testing.assert_allclose(curves["pit_gap"], calibration.pit_histogram(*pit), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(curves["accuracy"], bins.accuracy.nan_to_num(), rtol=1e-12)
    for line in summary["marks"]:
        came, said = scored["mark"] == line["mark"], scored["mark_predicted"] == line["mark"]
        shares = [(came & said).sum() / came.sum(), (came & said).sum() / said.sum()]
        np.testing.assert_allclose([line["recall"], line["precision"]], shares, rtol=1e-6)
        probability = scored["mark_probability"][:, line["mark"]].mean()
        np.testing.assert_allclose(line["probability"], probability, rtol=1e-12)


def _held(value: object) -> int:
    """Bytes of all tensors that an object keeps."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    inside = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return sum(_held(part) for part in inside)


def test_memory_of_a_table_does_not_grow_with_its_events():
    scored, sequence = event_scores(**_forecast()), _uneven()
    whole = _in_chunks(scored, sequence, [])
    once = _held(whole)
    for _ in range(9):
        whole.update(scored, sequence)
    assert 0 < once == _held(whole)
    assert whole.summary(replicates=0)["events"] == 10 * EVENTS


def test_bootstrap_does_not_depend_on_how_many_weights_are_drawn_at_once(monkeypatch):
    scored = _in_chunks(event_scores(**_forecast()), _uneven(), [])
    whole = scored.summary(replicates=100, seed=5)
    for weights in (1, 250):
        monkeypatch.setattr(table, "BOOTSTRAP_WEIGHTS", weights)
        _assert_equal(scored.summary(replicates=100, seed=5), whole)


def test_rows_in_which_another_forecaster_is_better_are_found_and_only_large_gains_are_sure():
    forecast = _forecast()
    blurred = {**forecast, "gap_samples": forecast["gap_samples"] + 3.0}
    moved = {**forecast, "location_samples": forecast["location_samples"] + 5.0}
    good, late, lost = (_in_chunks(event_scores(**given, legacy=False, floor=False), SEQUENCE, [])
                        for given in (forecast, blurred, moved))  # fmt: skip
    assert good.advantage(good) == {}
    better = late.advantage(good)
    assert better["gap_crps"] and better["mae_gap"] and "location_energy" not in better
    assert "gap_crps" not in good.advantage(late)
    found = lost.advantage(late)
    assert found["location_energy"] and found["distance_location"] and "gap_crps" not in found
    assert not late.advantage(good, replicates=0)["gap_crps"], "without replicates nothing is sure"
    rows = {table: {row["name"]: row["value"] for row in table.summary(replicates=0)["rows"]} for table in (good, late)}
    assert set(better) == {name for name in rows[good] if rows[good][name] < rows[late][name]}


def test_regions_of_mapped_levels_are_those_levels():
    forecast, levels = _forecast(), torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    plain = event_scores(**forecast, legacy=False)
    same = event_scores(**forecast, legacy=False, regions=LevelMap(levels, levels))
    for name in ("location_covered", "location_pit_low", "location_pit_high"):
        np.testing.assert_allclose(same[name].double(), plain[name].double(), atol=1e-12)
    wider = LevelMap(levels, levels.sqrt())
    mapped = event_scores(**forecast, legacy=False, regions=wider)
    asked = tuple(wider(torch.tensor(calibration.LEVELS, dtype=torch.float64)).tolist())
    assert torch.equal(
        mapped["location_covered"], event_scores(**forecast, legacy=False, levels=asked)["location_covered"]
    )
    assert torch.equal(mapped["floor/location_covered"], plain["floor/location_covered"])
    # The smallest level whose region holds the truth is where coverage begins.
    begins = plain["location_covering"][:, None] <= torch.tensor(calibration.LEVELS, dtype=torch.float64)
    assert torch.equal(begins, plain["location_covered"])


def test_chunks_of_other_columns_are_refused():
    forecast, scored = _forecast(), ScoreTable()
    scored.update(event_scores(**forecast), SEQUENCE)
    with pytest.raises(UserError, match="scores: 'floor/gap_covered' in some chunks; expected the same columns in all"):
        scored.update(event_scores(**forecast, floor=False), SEQUENCE)


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
