"""Weather scores by hand: weights, masks, anomalies, groups, and sums that do not depend on batches."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from stcore import baselines_grids
from stcore.errors import UserError
from stcore.metrics import weather
from stcore.metrics.weather import WeatherMetrics, latitude_weights

RNG = np.random.default_rng(5)
LAT = np.array([-75.0, -45.0, 0.0, 60.0])
SHAPE = (5, 3, 2, 4, 6)


def fields(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.normal(280.0, 5.0, shape or SHAPE).astype(np.float32))


def scored(forecast: torch.Tensor, truth: torch.Tensor, size: int = 2, **options: object) -> WeatherMetrics:
    metrics = WeatherMetrics(LAT, **options)  # type: ignore[arg-type]
    for first in range(0, len(truth), size):
        metrics.update(forecast[first : first + size], truth[first : first + size])
    return metrics


def test_weights_are_cosines_with_mean_one() -> None:
    weights = latitude_weights(LAT)
    assert weights.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(weights / weights[2], np.cos(np.deg2rad(LAT)))
    assert latitude_weights(np.array([-90.0, 0.0, 90.0]))[0] == pytest.approx(0.0, abs=1e-15)


def test_weighted_rmse_is_a_mean_of_roots_and_equals_numpy() -> None:
    forecast, truth = fields(), fields()
    found = scored(forecast, truth).compute()
    error = (forecast.double() - truth.double()).numpy() ** 2
    roots = np.sqrt((error * latitude_weights(LAT)[:, None]).mean(axis=(3, 4)))
    np.testing.assert_allclose(found["per_lead_time"]["rmse_weighted"], roots.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["per_channel"]["rmse_weighted"], roots.mean(axis=(0, 1)), rtol=1e-12)
    assert found["overall"]["rmse_weighted"] == pytest.approx(roots.mean(), rel=1e-12)
    assert found["overall"]["rmse"] == pytest.approx(np.sqrt(error.mean()), rel=1e-12)
    assert found["samples"] == 5 and found["channels"] == ["0", "1"] and "acc" not in found["overall"]


def test_correlation_of_anomalies_equals_numpy() -> None:
    forecast, truth, usual = fields(), fields(), fields(2, 4, 6)
    found = scored(forecast, truth, climatology=usual).compute()
    f, t, w = (forecast - usual).double().numpy(), (truth - usual).double().numpy(), latitude_weights(LAT)[:, None]
    top, left, right = ((w * part).sum(axis=(3, 4)) for part in (f * t, f * f, t * t))
    np.testing.assert_allclose(found["per_lead_time"]["acc"], (top / np.sqrt(left * right)).mean(axis=0), atol=1e-6)
    assert scored(truth, truth, climatology=usual).compute()["overall"]["acc"] == pytest.approx(1.0)
    opposite = scored(2.0 * usual - truth, truth, climatology=usual).compute()
    assert opposite["overall"]["acc"] == pytest.approx(-1.0, abs=1e-5)


def test_a_forecast_without_anomalies_has_no_correlation() -> None:
    truth, usual = fields(), fields(2, 4, 6)
    assert "acc" not in scored(usual.expand(SHAPE), truth, climatology=usual).compute()["overall"]


@pytest.mark.parametrize("masked", [False, True])
def test_batches_change_nothing_to_the_bit(masked: bool) -> None:
    forecast, truth, usual = fields(), fields(), fields(2, 4, 6)
    options = {"climatology": usual, "mask": torch.from_numpy(RNG.random((4, 6)) > 0.3) if masked else None}
    whole = scored(forecast, truth, 5, **options).compute()
    for size in (1, 2, 3, 4):
        assert scored(forecast, truth, size, **options).compute() == whole


def test_sums_of_parts_add_up_to_those_of_the_whole() -> None:
    forecast, truth = fields(), fields()
    first, second = scored(forecast[:2], truth[:2]), scored(forecast[2:], truth[2:])
    first.add_sums(second.sums())
    for name, value in scored(forecast, truth).compute()["overall"].items():
        assert first.compute()["overall"][name] == pytest.approx(value, rel=1e-14)
    assert first.compute()["samples"] == 5


def test_masked_cells_count_nowhere_and_weights_are_rescaled() -> None:
    forecast, truth = fields(), fields()
    mask = torch.from_numpy(RNG.random((4, 6)) > 0.4)
    hidden = torch.where(mask, truth, torch.tensor(float("nan")))
    wild = torch.where(mask, forecast, torch.tensor(1e9))
    assert scored(wild, truth, mask=mask).compute() == scored(wild, hidden).compute()
    found = scored(wild, truth, mask=mask).compute()
    weights = latitude_weights(LAT)[:, None] * mask.numpy()
    error = (forecast.double() - truth.double()).numpy() ** 2
    roots = np.sqrt((error * weights).sum(axis=(3, 4)) / weights.sum())
    np.testing.assert_allclose(found["per_lead_time"]["rmse_weighted"], roots.mean(axis=0), rtol=1e-12)
    assert found["overall"]["mse"] == pytest.approx(error[..., mask.numpy()].mean(), rel=1e-12)


def test_an_empty_field_counts_for_nothing() -> None:
    forecast, truth = fields(), fields()
    truth[0, 1] = float("nan")
    found = scored(forecast, truth).compute()
    kept = scored(forecast[1:], truth[1:]).compute()
    assert found["per_lead_time"]["rmse_weighted"][1] == pytest.approx(kept["per_lead_time"]["rmse_weighted"][1])


def test_nan_in_a_forecast_shows() -> None:
    forecast, truth = fields(), fields()
    forecast[3, 2, 1, 0, 0] = float("nan")
    found = scored(forecast, truth, climatology=fields(2, 4, 6)).compute()
    for name in ("rmse_weighted", "acc"):
        table = np.array(found["per_lead_time"][name])
        assert np.isnan(table[2, 1]) and np.isfinite(np.delete(table.reshape(-1), 5)).all()


def test_groups_are_scored_one_by_one_and_their_plain_mean_heads_the_report() -> None:
    forecast, truth = fields(4, 2, 6, 4, 6), fields(4, 2, 6, 4, 6)
    found = scored(forecast, truth, groups=("r", "t", "u")).compute()["overall"]
    error = (forecast.double() - truth.double()).numpy()
    parts = {name: error[:, :, 2 * at : 2 * at + 2] for at, name in enumerate("rtu")}
    for name, part in parts.items():
        assert found[f"mae_{name}"] == pytest.approx(np.abs(part).mean(), rel=1e-12)
        assert found[f"rmse_{name}"] == pytest.approx(np.sqrt((part**2).mean()), rel=1e-12)
    assert found["rmse"] == pytest.approx(np.mean([np.sqrt((part**2).mean()) for part in parts.values()]), rel=1e-12)


@pytest.mark.parametrize("groups", [(), ("a", "b")])
def test_without_spatial_norm_errors_are_sums_over_a_frame(groups: tuple[str, ...]) -> None:
    forecast, truth = fields(), fields()
    found = scored(forecast, truth, spatial_norm=False, groups=groups).compute()["overall"]
    error = (forecast.double() - truth.double()).numpy() ** 2
    by_frame = error.sum(axis=(2, 3, 4)).mean() / max(1, len(groups))
    assert found["mse"] == pytest.approx(by_frame, rel=1e-12)


def test_the_climatology_of_a_batch_takes_the_place_of_that_of_all() -> None:
    forecast, truth, usual = fields(), fields(), fields()
    metrics = WeatherMetrics(LAT)
    metrics.update(forecast, truth, climatology=usual)
    one_by_one = WeatherMetrics(LAT)
    for at in range(5):
        one_by_one.update(forecast[[at]], truth[[at]], climatology=usual[[at]])
    assert metrics.compute() == one_by_one.compute() and "acc" in metrics.compute()["per_channel"]


def test_without_latitudes_rows_weigh_alike() -> None:
    metrics, truth = WeatherMetrics(), fields()
    metrics.update(truth + 2.0, truth)
    assert metrics.compute()["overall"]["rmse_weighted"] == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(
    ("latitude", "options", "shape", "expected"),
    [
        (np.array([0.0, 91.0]), {}, None, "latitude: 91 at row 1; expected -90 to 90"),
        (np.array([90.0, -90.0]), {}, None, "no row away from the poles"),
        (LAT, {}, (2, 3, 1, 5, 6), "5 rows; expected 4"),
        (LAT, {"groups": ("a", "b")}, (2, 3, 3, 4, 6), "3 channels in 2 groups"),
        (LAT, {"channels": ("a",)}, SHAPE, "2 channels; expected 1"),
        (LAT, {"climatology": torch.zeros(4, 5)}, SHAPE, r"climatology: shape \(4, 5\); expected"),
        (LAT, {"mask": torch.ones(3, 4, 6, dtype=torch.bool)}, SHAPE, r"mask: shape \(3, 4, 6\)"),
        (LAT, {}, (4, 6), r"predictions of shape \(4, 6\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    latitude: np.ndarray, options: dict[str, object], shape: tuple[int, ...] | None, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        metrics = WeatherMetrics(latitude, **options)  # type: ignore[arg-type]
        metrics.update(torch.zeros(shape or SHAPE), torch.zeros(shape or SHAPE))


def test_nothing_and_another_horizon_are_refused() -> None:
    with pytest.raises(UserError, match="none was given"):
        WeatherMetrics(LAT).compute()
    metrics = scored(fields(), fields())
    with pytest.raises(UserError, match="2 lead times of 2 channels after 3 of 2"):
        metrics.update(fields(1, 2, 2, 4, 6), fields(1, 2, 2, 4, 6))


@pytest.mark.parametrize("module", [weather, baselines_grids])
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
