"""Averages by time of day: of other days, of few days, and how uneven they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from node_worlds import SHORT, SIZES, city

from gpd.averages import BESIDE, at_steps, believed, day_averages, num_days, other_days, unevenness
from gpd.finetune import finetune
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, input_features, row_size
from gpd.node_data import forecast, make_part, table_for
from stcore.errors import UserError

MODEL = NodeModelConfig(kind="mlp", **SIZES)


def test_averages_leave_out_the_day_itself_in_training() -> None:
    """On three days the deviation from the other two is one and a half times that from all three."""
    series = city(days=3)
    averages = day_averages(series)
    model = replace(MODEL, residual="average")
    with_own = make_part(series, model, averages).values[..., 0]
    without = make_part(series, model, averages, leave_out=True).values[..., 0]
    assert torch.allclose(without, 1.5 * with_own, atol=1e-5)
    assert float(with_own.reshape(3, 24, 5).sum(dim=0).abs().max()) < 1e-4
    assert averages[2, 7].item() == pytest.approx(series.values[7::24, 2, 0].mean(dtype=np.float64))


def test_averages_may_be_of_as_few_days_as_are_known_of_a_target() -> None:
    series = city(days=5)
    model = replace(MODEL, residual="average")
    found = make_part(series, model, day_averages(series), leave_out=True, average_days=2).values[..., 0]
    days = torch.from_numpy(series.values[:, :, 0].copy()).reshape(5, 24, -1)
    expected = days - (days.roll(-1, 0) + days.roll(-2, 0)) / 2
    assert torch.allclose(found.reshape(expected.shape), expected, atol=1e-4)
    whole = make_part(series, model, day_averages(series), leave_out=True).values
    more = make_part(series, model, day_averages(series), leave_out=True, average_days=9).values
    assert torch.equal(whole, more)


@pytest.mark.parametrize("gone", [[3, 4], [23], [22, 23, 0, 1]])
def test_a_time_of_day_that_never_occurs_lies_between_those_around_it(gone: list[int]) -> None:
    series = city(days=4)
    values = series.values.copy()
    values.reshape(4, 24, 5, 2)[:, gone, 2, 0] = np.nan
    found = day_averages(replace(series, values=values)).numpy()
    whole = day_averages(series).numpy()
    assert np.array_equal(np.delete(found, 2, axis=0), np.delete(whole, 2, axis=0))
    kept = [slot for slot in range(24) if slot not in gone]
    assert np.array_equal(found[2, kept], whole[2, kept])
    before, after = whole[2, (gone[0] - 1) % 24], whole[2, (gone[-1] + 1) % 24]
    assert found[2, gone] == pytest.approx(np.linspace(before, after, len(gone) + 2)[1:-1])


def test_a_share_of_the_daily_course_may_be_believed() -> None:
    """The rest is the mean over the times of day that occur: nights that are cut out count for nothing."""
    series = city(days=4)
    hours = np.arange(series.num_steps)
    kept = hours % 24 >= 6
    times = np.datetime64("2024-05-01T00", "s") + hours[kept] * np.timedelta64(3600, "s")
    opened = replace(series, values=series.values[kept], times=times)
    averages = day_averages(opened).numpy().T[None]
    assert believed(averages, opened, 1.0) is averages
    half = believed(averages, opened, 0.5)
    mean = opened.values[:, :, 0].mean(axis=0)
    assert np.allclose(half, 0.5 * (averages + mean), atol=1e-5)
    model = replace(MODEL, residual="average", history=6)
    part = make_part(opened, model, day_averages(opened), course=0.0)
    assert np.allclose(part.values[..., 0].numpy(), opened.values[:, :, 0] - mean, atol=1e-4)
    size = row_size(build_node_model(model, input_features(model, 2)).spec)
    table = table_for(opened, torch.zeros(5, size), model, course=0.5)
    assert table.averages is not None and np.allclose(table.averages.numpy().T, half[0], atol=1e-4)


@pytest.mark.parametrize("begin", [0, 9])
def test_a_single_day_is_compared_with_the_readings_beside_each(begin: int) -> None:
    """Also where it goes on after midnight: then two dates have no time of day in common."""
    series = city(days=2).slice(begin, begin + 24)
    assert num_days(series) == 1 and num_days(city(days=2)) == 2
    beside = series.values[[3, 4, 6, 7], 1, 0]
    assert other_days(series)[0, (5 + begin) % 24, 1] == pytest.approx(beside.mean())
    part = make_part(series, replace(MODEL, residual="average"), day_averages(series), leave_out=True)
    assert float(part.values[5, 1, 0]) == pytest.approx(series.values[5, 1, 0] - beside.mean(), abs=1e-5)


@pytest.mark.parametrize("begin", [0, 9])
def test_networks_are_not_tuned_on_a_single_day(begin: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its scales are those of chance, which the averages of one day are full of."""
    model = replace(MODEL, residual="average", unevenness=True, linear=True)
    series = city(days=2).slice(begin, begin + 24)
    size = row_size(build_node_model(model, input_features(model, 2)).spec)
    rows = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    training = replace(SHORT, select_on="tail")
    assert torch.equal(finetune(series, rows, model, training, device="cpu", quiet=True).rows, rows)
    assert "a single day" in caplog.text
    scratch = finetune(series, None, model, training, device="cpu", quiet=True)
    assert len(scratch) == 5 and scratch.metadata["best_loss"] == [None] * 5
    assert scratch.std is not None
    uneven = unevenness(day_averages(series).numpy().T[None])[0]
    assert scratch.std[4, -1].item() == pytest.approx(uneven[:, 4].std(), rel=1e-4)


def test_unevenness_is_what_an_average_has_over_those_beside_it() -> None:
    averages = np.zeros((1, 24, 2))
    averages[0, :, 0] = np.arange(24.0)
    averages[0, 10, 1] = 5.0
    found = unevenness(averages)[0]
    inside = slice(BESIDE, 24 - BESIDE)
    assert found[inside, 0] == pytest.approx(0.0, abs=1e-12) and found[0, 0] == pytest.approx(
        -(22 + 23 + 0 + 1 + 2) / 5
    )
    assert found[10, 1] == pytest.approx(4.0) and found[[8, 9, 11, 12], 1] == pytest.approx(-1.0)


def test_what_comes_after_midnight_is_of_the_next_day() -> None:
    series = city(days=2)
    averages = np.arange(48.0).reshape(2, 24, 1)
    assert at_steps(averages, series)[:, 0].tolist() == list(range(48))
    assert at_steps(averages, series, 3)[:, 0].tolist() == [*range(3, 48), 24, 25, 26]
    assert at_steps(averages[:1], series, 3)[22, 0] == 1.0


def test_a_network_reads_how_uneven_the_averages_ahead_are() -> None:
    """The steps that are forecast, and as many beside them as averages are compared with, lie within a history."""
    model = replace(MODEL, residual="average", unevenness=True, calendar="day")
    series = city(days=6)
    averages = day_averages(series)
    part = make_part(series, model, averages)
    assert part.values.shape[2] == 2 + model.added_channels == 5
    expected = np.roll(unevenness(averages.numpy().T[None])[0], -(model.horizon + BESIDE), axis=0)
    assert part.values[:24, :, 4].numpy() == pytest.approx(expected, abs=1e-5)
    last = model.history - 1 + model.horizon + BESIDE
    assert last == model.history + model.horizon - 1 + BESIDE and last - model.history + 1 <= model.history


def test_forecasts_do_not_depend_on_how_much_of_the_past_is_given() -> None:
    """Also not through averages of hours that the given stretch does not reach."""
    model = replace(MODEL, residual="average", unevenness=True, linear=True)
    series = city(days=6)
    size = row_size(build_node_model(model, input_features(model, 2)).spec)
    table = table_for(series, 0.1 * torch.randn(5, size, generator=torch.Generator().manual_seed(0)), model)
    long = forecast(table, series, starts=np.array([30]))
    short = forecast(table, series.slice(30, 30 + model.history), starts=np.array([0]))
    assert torch.allclose(long, short, atol=1e-4)


def test_without_averages_nothing_is_uneven() -> None:
    with pytest.raises(UserError, match=r"model\.unevenness: True; expected false without residual average"):
        NodeModelConfig(unevenness=True)
