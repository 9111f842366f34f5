"""Data sets, their windows and scales, batches of several of them, few shots, and the way back to units and cells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_worlds import flows, unist_tree, write_unist

from stcore.errors import UserError
from stcore.splits import Parts
from vlm4st.averages import median
from vlm4st.baselines import CellRegression, Persistence, fit_baselines, score_baselines
from vlm4st.config import FewShotConfig
from vlm4st.data import Source, find_target, largest_grid, part_batches, read_datasets, read_sources, training_batches
from vlm4st.data_options import DataConfig, WindowShape, dataset_name
from vlm4st.few_shot_selection import by_days
from vlm4st.resizing import Resizing
from vlm4st.scores import ErrorSums
from vlm4st.space import Space
from vlm4st.timestamps import as_clock, clock_of_stamps, extended, slots_of
from vlm4st.usual import HistoricalAverage

SHAPE = WindowShape(height=8, width=8)
CLOCK: dict[str, Any] = {"start": "2024-01-01T00:00", "step": "30 minutes"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The same flows as windows of UniST in three forms, and as a series of another grid."""
    found = {form: str(write_unist(tmp_path / f"{form}_short.json", form=form)) for form in ("text", "index", "pair")}
    series = tmp_path / "series.npz"
    np.savez(series, frames=flows(300, height=6, width=5, seed=1).raw(range(300)))
    return {**found, "series": str(series), "cache": str(tmp_path / "cache")}


def sources_of(files: dict[str, str], *names: str, **options: Any) -> list[Source]:
    shape = options.pop("shape", SHAPE)
    few = {key: options.pop(key) for key in ("target", "few_shot") if key in options}
    data = DataConfig(source=tuple(files[name] for name in names), cache=files["cache"], **options)
    return read_sources(data, shape, **few)


def test_three_forms_of_timestamps_say_the_same(files: dict[str, str]) -> None:
    clocks = [source.windows.val.clock(np.arange(5)) for source in sources_of(files, "text", "index", "pair")]
    assert clocks[0] is not None and clocks[0].shape == (5, 12, 2)
    assert np.array_equal(clocks[0], clocks[1]) and np.array_equal(clocks[0], clocks[2])
    assert clocks[0][0, 0].tolist() == [0, 20 * 1800]  # 20 half hours after Monday began


@pytest.mark.parametrize(
    ("slots", "pair", "expected"), [(48, [6, 47], [6, 47]), (24, [6, 23], [6, 46]), (288, [2, 11], [2, 1])]
)
def test_slots_of_any_day_become_half_hours(slots: int, pair: list[int], expected: list[int]) -> None:
    clock = clock_of_stamps(np.array([[pair]]), "pair", slots=slots, where="a")
    assert slots_of(clock)[0, 0].tolist() == expected
    number = ((pair[0] - 2) % 7) * slots + pair[1]
    assert np.array_equal(clock_of_stamps(np.array([[number]]), "index", slots=slots, where="a"), clock)


def test_slots_may_be_said_for_one_data_set_or_all() -> None:
    data = DataConfig(slots_per_day=("24", "B=288"), timestamps=("B=pair",))
    assert [data.slots(name) for name in "AB"] == [24, 288]
    assert [data.stamp_form(name) for name in "AB"] == ["auto", "pair"]


def test_stamps_of_the_history_alone_go_on_through_midnight() -> None:
    clock = np.array([[[6, 82_800], [6, 84_600]]])
    assert slots_of(extended(clock, 4))[0].tolist() == [[6, 46], [6, 47], [0, 0], [0, 1]]


def test_moments_of_a_forecast_may_have_any_form() -> None:
    texts = ["2024-05-05T23:30", "2024-05-06T00:00"]
    expected = [[6, 84_600], [0, 0]]
    assert as_clock(texts).tolist() == as_clock(np.array(texts, "M8[us]")).tolist() == expected
    assert as_clock(torch.tensor([[6, 47], [0, 0]])).tolist() == expected
    for wrong, message in (
        (["soon"], "expected moments"),
        ([1.5], "expected moments, or pairs"),
        ([[7, 0]], "weekday 7"),
    ):
        with pytest.raises(UserError, match=message):
            as_clock(wrong)


def test_a_series_is_cut_in_time_and_never_across(files: dict[str, str]) -> None:
    (source,) = sources_of(files, "series", split=(0.5, 0.2, 0.3), **CLOCK)
    sizes = [windows.windows for windows in source.windows.named().values()]
    assert sizes == [150 - 11, 60 - 11, 90 - 11]
    frames = flows(300, height=6, width=5, seed=1).raw(range(300))[:, 0]
    assert np.array_equal(source.windows.test.load(np.array([0]))[0], frames[210:222])
    assert source.step_seconds == 1800 and source.windows.test.names(np.array([3])) == ["0@3"]


def test_the_scale_comes_from_the_training_part_unless_asked_otherwise(files: dict[str, str], tmp_path: Path) -> None:
    rising = tmp_path / "rising.npz"
    np.savez(rising, frames=np.arange(200.0, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32))
    options: dict[str, Any] = {"source": (str(rising),), "split": (0.5, 0.2, 0.3), **CLOCK}
    (mine,) = read_sources(DataConfig(**options), SHAPE)
    (leaky,) = read_sources(DataConfig(**options, scaler_fit="all"), SHAPE)
    assert (mine.space.low[0], mine.space.high[0], mine.space.fit) == (0.0, 99.0, "train")
    assert (leaky.space.low[0], leaky.space.high[0], leaky.space.fit) == (0.0, 199.0, "all")
    batch = part_batches(mine, "test", size=4).load(0, np.array([0]))
    assert float(batch["x"].min()) > 1.0  # beyond the scale, and not cut


def test_constant_data_may_be_let_in() -> None:
    still = [np.full((3, 1, 2, 2), 5.0, np.float32)]
    grid = Resizing(kind="bilinear", native=(2, 2), model=(2, 2))
    space = Space.fit_range(still, grid, part="train", constant="span")
    assert space.transform(still[0]).max() == -1.0 and space.inverse(space.transform(still[0])).max() == 5.0
    with pytest.raises(UserError, match="constant at 5"):
        Space.fit_range(still, grid, part="train")


@pytest.mark.parametrize("kind", ["bilinear", "pad"])
def test_forecasts_come_back_to_the_grid_and_units_of_the_data(files: dict[str, str], kind: str) -> None:
    (source,) = sources_of(files, "series", resize=kind, **CLOCK)
    batches = part_batches(source, "val", size=16)
    (ids, *_), batch = batches.order(), batches.load(0, batches.order()[0])
    assert batch["x"].shape == (16, 6, 8, 8) and batch["timestamps"].shape == (16, 6, 2)
    back = source.space.to_native(batch["target"], batches.channel(ids))
    truth = batches.truth(ids)
    assert back.shape == truth.shape == (16, 6, 6, 5)
    if kind == "pad":
        torch.testing.assert_close(back, truth, atol=1e-4, rtol=0.0)
        assert (
            batch["mask"][:, :, :6, :5].all() and not batch["mask"][:, :, 6:].any() and not batch["mask"][..., 5:].any()
        )
        assert batch["x"][:, :, 7, 7].max() == -1.0
    else:
        assert "mask" not in batch and float((back - truth).abs().mean()) < 0.4 * float(truth.std())


@pytest.mark.parametrize(("name", "options"), [("series", CLOCK), ("pair", {})])
@pytest.mark.parametrize("by", ["day", "week"])
def test_anomalies_lack_what_is_usual_and_get_it_back(
    files: dict[str, str], name: str, options: dict[str, Any], by: str
) -> None:
    (source,) = sources_of(files, name, anomalies=by, resize="pad", **options)
    batches = part_batches(source, "test", size=16)
    (ids, *_), batch = batches.order(), batches.load(0, batches.order()[0])
    clock, channel = batches.ahead(ids), batches.channel(ids)
    back = source.space.to_native(batch["target"], channel, clock)
    torch.testing.assert_close(back, batches.truth(ids), atol=1e-3, rtol=0.0)
    usual = HistoricalAverage.fit(source.windows.train, None, by_weekday=by == "week", at_least=3)
    assert clock is not None
    nothing = source.space.to_native(torch.zeros_like(batch["target"]), channel, clock)
    assert np.allclose(nothing, usual.at(clock, channel.numpy()), atol=1e-3)
    on_model = source.space.to_native(batch["target"], channel, clock, native=False)
    rows, columns = source.native
    assert torch.equal(on_model[..., :rows, :columns], back)
    with pytest.raises(UserError, match="frames without times"):
        source.space.to_native(batch["target"], channel)
    again = Space.restore(source.space.constants("0"), "0", source.space.facts())
    assert torch.equal(again.to_native(batch["target"], channel, clock), back)


def test_anomalies_of_few_shots_know_only_these(files: dict[str, str]) -> None:
    few = FewShotConfig(target=files["series"], days=1.0)
    (source,) = sources_of(files, "series", anomalies="day", target=files["series"], few_shot=few, **CLOCK)
    known = HistoricalAverage.fit(source.windows.train, source.training_windows, by_weekday=False, at_least=3)
    assert source.space.usual is not None
    assert np.array_equal(source.space.usual.table, known.table, equal_nan=True)
    assert np.isnan(known.table[:-1]).all()  # one day has every time of it once: what is usual is one frame


def test_anomalies_need_times() -> None:
    with pytest.raises(UserError, match=r"data\.anomalies: 'week'; expected none with data\.timestamps none"):
        DataConfig(anomalies="week", timestamps=("none",))


def test_stretching_is_without_smoothing_and_keeps_corners() -> None:
    grid = Resizing(kind="bilinear", native=(2, 2), model=(4, 4))
    frame = torch.tensor([[0.0, 4.0], [8.0, 12.0]])
    assert grid.to_model(frame)[0].tolist() == [0.0, 1.0, 3.0, 4.0]
    valid = torch.tensor([[True, True], [True, False]])
    assert grid.mask_to_model(valid).sum() == 7 and not grid.mask_to_model(valid)[1:, 1:].any()
    with pytest.raises(UserError, match="pad, frames of 4 x 4"):
        Resizing(kind="pad", native=(4, 4), model=(4, 3))


def test_clamped_forecasts_stay_within_what_was_seen() -> None:
    space = Space(
        low=np.array([10.0]), high=np.array([20.0]), resizing=Resizing(kind="pad", native=(1, 2), model=(1, 2))
    )
    scaled, channel = torch.tensor([[[[-3.0, 1.5]]]]), torch.zeros(1, dtype=torch.int64)
    assert space.to_native(scaled, channel).tolist() == [[[[0.0, 22.5]]]]
    assert space.to_native(scaled, channel, clamp=True).tolist() == [[[[10.0, 20.0]]]]


def test_channels_are_scaled_apart_and_become_samples(tmp_path: Path) -> None:
    first = flows(200).raw(range(200))
    both = np.concatenate([first, 1000.0 + 3.0 * first], axis=1)
    both[40, 1, 2, 3] = np.nan
    np.savez(tmp_path / "two.npz", frames=both)
    data = DataConfig(source=(str(tmp_path / "two.npz"),), missing="mask", **CLOCK)
    (source,) = read_sources(data, WindowShape(height=4, width=6))
    batch = source.samples("train").load(np.array([0, 1, 80, 81]))
    assert batch["channel"].tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(batch["x"][0], batch["x"][1], atol=1e-3, rtol=0.0)
    assert source.windows.train.names(np.array([1])) == ["0@0 1"]
    # Window 40 begins at the frame that lacks a cell, window 34 forecasts it.
    (hole,) = (batch["x"][3] == 0.0).nonzero().tolist()
    assert hole == [0, 2, 3] and "mask" in batch and batch["mask"].all()
    ahead = source.samples("train").load(np.array([2 * 34 + 1]))
    assert (~ahead["mask"]).nonzero().tolist() == [[0, 0, 2, 3]]


def test_a_space_survives_a_checkpoint() -> None:
    grid = Resizing(kind="pad", native=(2, 3), model=(4, 4))
    space = Space(low=np.array([1.0, 2.0]), high=np.array([3.0, 9.0]), resizing=grid, fit="all")
    again = Space.restore(space.constants("scale/a"), "scale/a", space.facts())
    assert again.resizing == grid and again.fit == "all"
    assert np.array_equal(again.low, space.low) and np.array_equal(again.high, space.high)


@pytest.mark.parametrize("mixing", ["concat", "temperature", "balanced", "homogeneous"])
def test_order_is_a_function_of_seed_and_epoch(files: dict[str, str], mixing: Any) -> None:
    data = DataConfig(source=(files["pair"], files["series"]), cache=files["cache"], mixing=mixing, batch=8, **CLOCK)
    mixture = training_batches(read_sources(data, SHAPE), data, seed=3)
    total = 20 + 210 - 11
    for epoch in (0, 1):
        first, again = mixture.order(epoch), mixture.order(epoch)
        assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
        assert sum(map(len, first)) == total
    assert not np.array_equal(np.concatenate(mixture.order(0)), np.concatenate(mixture.order(1)))
    small = [float((np.concatenate(mixture.order(epoch)) < 20).mean()) for epoch in range(20)]
    share = {
        "concat": 20 / total,
        "homogeneous": 20 / total,
        "balanced": 0.5,
        "temperature": 20**0.5 / (20**0.5 + 199**0.5),
    }
    assert np.mean(small) == pytest.approx(share[mixing], abs=0.03)
    alone = all(len(set((ids < 20).tolist())) == 1 for ids in mixture.order(0))
    assert alone == (mixing == "homogeneous")


def test_a_batch_holds_its_samples_in_order_whatever_they_come_from(files: dict[str, str]) -> None:
    data = DataConfig(source=(files["pair"], files["series"]), cache=files["cache"], resize="pad", **CLOCK)
    sources = read_sources(data, SHAPE)
    mixture = training_batches(sources, data, seed=0)
    ids = np.array([25, 3, 40, 19])
    batch = mixture.load(0, ids)
    assert batch["dataset"].tolist() == [1, 0, 1, 0]
    single = mixture.load(0, ids[2:3])
    for key in batch:
        assert torch.equal(batch[key][2:3], single[key]), key
    assert batch["mask"][0, 0].sum() == 30 and batch["mask"][1, 0].sum() == 24
    assert mixture.names(ids)[:2] == ["series: 0@5", "pair: train@3"]


def test_timestamps_may_be_left_out(files: dict[str, str]) -> None:
    (source,) = sources_of(files, "series", timestamps=("none",))
    assert not source.timed and "timestamps" not in source.samples("train").load(np.array([0]))
    assert set(fit_baselines(source)) == {"persistence", "input mean", "per-cell regression"}


def test_a_start_is_for_data_sets_without_times_alone(files: dict[str, str], tmp_path: Path) -> None:
    flows(120).write(tmp_path / "timed.npz")
    data = DataConfig(source=(str(tmp_path / "timed.npz"), files["series"]), start="2030-05-05T00:00", step="1 hour")
    timed, other = read_sources(data, SHAPE)
    assert (timed.step_seconds, other.step_seconds) == (1800, 3600)


def test_few_shots_of_a_target_and_everything_of_the_others(files: dict[str, str]) -> None:
    few = FewShotConfig(ratio=0.25, selection="prefix")
    target, other = sources_of(files, "pair", "series", target="pair", few_shot=few, **CLOCK)
    assert target.training.tolist() == [0, 1, 2, 3, 4] and len(other.training) == len(other.windows.train)
    assert (target.evaluated, other.evaluated) == (True, False)
    seen = target.windows.train.load(np.arange(5))
    assert target.space.high[0] == pytest.approx(float(Resizing(kind="bilinear", native=(4, 6), model=(8, 8)).to_model(
        torch.from_numpy(seen)).max()))  # fmt: skip
    alone = sources_of(
        files, "pair", "series", target="pair", few_shot=FewShotConfig(ratio=0.25, others=False), **CLOCK
    )
    assert [len(source.training) for source in alone] == [5, 0]


def test_zero_shot_trains_on_the_others_and_is_scaled_by_the_targets_training_part(files: dict[str, str]) -> None:
    target, other = sources_of(files, "pair", "series", target=files["pair"], few_shot=FewShotConfig(), **CLOCK)
    whole, _ = sources_of(files, "pair", "series", **CLOCK)
    assert len(target.training) == 0 and target.space.high[0] == whole.space.high[0]
    data = DataConfig(batch=8)
    assert len(training_batches([target, other], data, seed=0).parts) == 1
    assert set(fit_baselines(target)) == {"persistence", "input mean"}


@pytest.mark.parametrize("form", ["text", "index", "pair"])
def test_days_are_the_last_ones_of_the_training_part(tmp_path: Path, form: Any) -> None:
    path = write_unist(tmp_path / "days_short.json", unist_tree(flows(400), form=form, windows=(300, 20, 20)))
    data = DataConfig(source=(str(path),), cache=str(tmp_path / "cache"))
    (source,) = read_sources(data, SHAPE)
    chosen = by_days(source.windows.train, 2.0, source.step_seconds, where="a")
    assert chosen.tolist() == list(range(300 - (96 - 11), 300))  # a window is 12 half hours long
    with pytest.raises(UserError, match=r"few-shot\.days 0\.2; expected at least 0\.25"):
        by_days(source.windows.train, 0.2, source.step_seconds, where="a")


def test_a_target_is_found_by_name_or_by_any_path_to_it(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(files["pair"]).parent
    monkeypatch.chdir(folder)
    names, sources = ["pair", "series"], [files["pair"], files["series"]]
    for target in ("pair", files["pair"], "pair_short.json", "./pair_short.json", f"../{folder.name}/pair_short.json"):
        assert find_target(names, sources, target) == 0
    with pytest.raises(UserError, match="'nowhere'; expected one of the data sets pair, series"):
        find_target(names, sources, "nowhere")


def test_files_called_alike_get_different_names(tmp_path: Path) -> None:
    paths = []
    for city in ("north", "south"):
        (tmp_path / city).mkdir()
        paths.append(str(write_unist(tmp_path / city / "flow_short.json")))
    data = DataConfig(source=tuple(paths), cache=str(tmp_path / "cache"))
    assert [dataset.name for dataset in read_datasets(data)] == ["north/flow", "south/flow"]
    with pytest.raises(UserError, match="is named twice"):
        read_datasets(DataConfig(source=(paths[0], os.path.relpath(paths[0])), cache=str(tmp_path / "cache")))
    assert dataset_name("TaxiBJ_long.json") == "TaxiBJ"


def test_the_largest_grid_holds_all(files: dict[str, str]) -> None:
    data = DataConfig(source=(files["pair"], files["series"]), cache=files["cache"], **CLOCK)
    assert largest_grid(read_datasets(data)) == (6, 6)


def test_the_world_of_the_demo_is_a_data_set() -> None:
    (source,) = read_sources(DataConfig(source=("crowd-flow",)), SHAPE, seed=1)
    assert source.native == (8, 8) and source.units == ("people",) and source.step_seconds == 1800


def test_the_historical_average_falls_back_to_the_time_of_day_and_then_to_everything(files: dict[str, str]) -> None:
    (source,) = sources_of(files, "series", split=(0.3, 0.3, 0.4), **CLOCK)  # not two days to learn from
    usual = HistoricalAverage.fit(source.windows.train, None)
    frames = flows(300, height=6, width=5, seed=1).raw(range(90))[:, 0]
    clock = np.array([[[0, 7200], [3, 7200], [0, 7201]]])
    found = usual.at(clock, np.zeros(1, np.int64))[0]
    assert np.allclose(found[0], frames[4])
    assert np.allclose(found[1], (frames[4] + frames[52]) / 2)
    assert np.allclose(found[2], frames.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("average", ["mean", "median"])
@pytest.mark.parametrize("by_weekday", [True, False])
def test_neighbouring_moments_count_for_what_is_usual(files: dict[str, str], average: str, by_weekday: bool) -> None:
    (source,) = sources_of(files, "series", **CLOCK)
    windows = source.windows.train
    usual = HistoricalAverage.fit(windows, None, by_weekday=by_weekday, average=average, around=1)  # type: ignore[arg-type]
    frames, clock = (np.concatenate(found) for found in zip(*windows.frames(None), strict=True))
    count = len(usual.moments)
    step, cycle = int(np.diff(usual.moments)[0]), 7 if by_weekday else 1
    assert step * count == 86400
    wanted = np.array([[[0, 0], [6, 86400 - step], [2, 3 * step]]])
    found = usual.at(wanted, np.zeros(1, np.int64))[0]
    moment = (clock[:, 0] % cycle) * count + clock[:, 1] // step
    for (weekday, second), mine in zip(wanted[0], found, strict=True):
        apart = (moment - (weekday % cycle) * count - second // step) % (cycle * count)
        near = frames[(apart <= 1) | (apart == cycle * count - 1)][:, 0]
        assert len(near) < len(frames) / 2
        assert np.allclose(mine, getattr(np, average)(near, axis=0), atol=1e-3)


def test_weekdays_are_drawn_to_their_kind_of_day_as_far_as_frames_left_out_ask_for_it() -> None:
    from stcore.grids import GridSeries
    from vlm4st.windows import series_windows

    rng = np.random.default_rng(3)
    times = np.datetime64("2024-01-01T00", "s") + np.arange(4 * 30) * np.timedelta64(6 * 3600, "s")
    days = np.arange(len(times)) // 4 % 7
    values = rng.normal(size=(len(times), 2, 2, 3)) + 3.0 * (days >= 5)[:, None, None, None]
    values[:, 1] += 2.0 * rng.normal(size=7)[days][:, None, None]  # weekdays differ in the second channel alone
    values[rng.random(values.shape) < 0.1] = np.nan
    series = GridSeries(values=values.astype(np.float32), times=times)
    windows = series_windows(series, WindowShape(history=2, horizon=2), stride=1, where="a", timed=True)
    usual = HistoricalAverage.fit(windows, None, at_least=3, pooled=True)
    slots, kinds = np.arange(len(times)) % 4, days >= 5
    told: list[list[list[float]]] = [[], []]
    for at in np.ndindex(values.shape):
        others = (slots == slots[at[0]]) & (np.arange(len(times)) != at[0])
        own, kind, every = (
            values[others & mine][:, *at[1:]] for mine in (days == days[at[0]], kinds == kinds[at[0]], others)
        )
        if np.isfinite(values[at]):
            day, kind = np.nanmean(every), np.nanmean(kind)
            apart = np.nanmean(own) - kind if np.isfinite(own).sum() >= 2 else 0.0
            told[at[1]].append([kind - day, apart, values[at] - day])
    expected = [np.linalg.lstsq(np.array(rows)[:, :2], np.array(rows)[:, 2], rcond=None)[0] for rows in told]
    found = np.array(usual.pooled)
    assert found == pytest.approx(np.clip(expected, 0.0, 1.0), abs=1e-5)
    assert (found[:, 0] > 0.9).all() and found[0, 1] < 0.3 < 0.7 < found[1, 1] < 1.0
    wednesday, workday = (days == 2) & (slots == 1), ~kinds & (slots == 1)
    own, kind, day = (np.nanmean(values[chosen], axis=0) for chosen in (wednesday, workday, slots == 1))
    for channel in (0, 1):
        of_kind, of_day = found[channel]
        frame = day + of_kind * (kind - day) + of_day * (own - kind)
        assert np.allclose(usual.at(np.array([[[2, 6 * 3600]]]), np.array([channel]))[0, 0], frame[channel], atol=1e-5)
    again = HistoricalAverage.restore(usual.constants("u"), "u", usual.facts())
    assert again is not None and again.pooled == usual.pooled and again.words == "usual (pooled weekdays)"
    for same in ({"by_weekday": False}, {"around": 1}, {"average": "median"}):
        assert not HistoricalAverage.fit(windows, None, at_least=3, pooled=True, **same).pooled  # type: ignore[arg-type]


def test_a_few_days_tell_workdays_from_a_weekend() -> None:
    from stcore.grids import GridSeries
    from vlm4st.windows import series_windows

    times = np.datetime64("2024-01-04T00", "s") + np.arange(72) * np.timedelta64(3600, "s")  # Thursday to Saturday
    noise = np.random.default_rng(0).normal(size=(72, 1, 4, 4))
    values = 10.0 - 5.0 * (np.arange(72) >= 48)[:, None, None, None] + 0.1 * noise
    windows = series_windows(GridSeries(values=values.astype(np.float32), times=times),
                             WindowShape(history=2, horizon=2), stride=1, where="a", timed=True)  # fmt: skip
    usual = HistoricalAverage.fit(windows, None, at_least=3, pooled=True)
    monday, sunday = usual.at(np.array([[[0, 3600], [6, 3600]]]), np.zeros(1, np.int64))[0].mean(axis=(1, 2))
    assert monday == pytest.approx(10.0, abs=0.1) and sunday == pytest.approx(5.0, abs=0.1)


def test_medians_leave_out_what_is_missing() -> None:
    frames = np.array([1.0, np.nan, 5.0, 2.0], np.float32).reshape(4, 1, 1, 1)
    assert float(median(frames, 1)[0, 0, 0]) == 2.0 and float(median(frames[:3], 1)[0, 0, 0]) == 3.0
    assert np.isnan(median(frames, 4)).all() and np.isnan(median(frames[1:2], 1)).all()


def test_regression_finds_what_is_linear_and_damping_what_is_left() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 1, 2, 3)).astype(np.float32)
    for at in range(2, 400):
        values[at] = 5.0 + 0.5 * (values[at - 1] - 5.0) - 0.3 * (values[at - 2] - 5.0)
    from stcore.grids import GridSeries
    from vlm4st.windows import series_windows

    windows = series_windows(GridSeries(values=values[:40]), WindowShape(horizon=2), stride=1, where="a", timed=False)
    linear = CellRegression.fit(windows, None, horizon=2)
    ids = np.arange(20)
    found = linear.predict(windows.load(ids)[:, :6], None, np.zeros(20, np.int64), 2)
    assert np.abs(found - windows.load(ids)[:, 6:]).max() < 2e-3


def test_naive_forecasts_bridge_missing_cells() -> None:
    history = np.array([1.0, 2.0, np.nan], np.float32).reshape(1, 3, 1, 1)
    assert Persistence().predict(history, None, np.zeros(1, np.int64), 2).reshape(-1).tolist() == [2.0, 2.0]


def test_errors_do_not_depend_on_how_batches_are_cut(files: dict[str, str]) -> None:
    (source,) = sources_of(files, "series", **CLOCK)
    baselines = fit_baselines(source)
    assert set(baselines) == {"persistence", "input mean", "historical average", "time-of-day average",
                              "damped persistence", "per-cell regression"}  # fmt: skip
    whole, cut = (score_baselines(baselines, part_batches(source, "test", size=size), horizon=6) for size in (100, 7))
    for name in baselines:
        assert whole[name].table() == pytest.approx(cut[name].table(), rel=1e-9)
        assert np.isfinite(list(whole[name].table().values())).all()


def test_errors_without_any_cell_are_refused() -> None:
    sums = ErrorSums()
    sums.add(torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), float("nan")))
    with pytest.raises(UserError, match="no cell with data"):
        sums.table()


def test_windows_of_a_part_may_be_spread_evenly(files: dict[str, str]) -> None:
    (source,) = sources_of(files, "series", **CLOCK)
    assert isinstance(source.windows, Parts)
    batches = part_batches(source, "train", size=4, limit=5)
    assert batches.samples.ids.tolist() == [0, 50, 99, 148, 198] and len(batches) == 2


def test_what_the_grid_of_the_model_cannot_hold_is_known() -> None:
    frames = torch.randn(3, 2, 9, 7)
    frames[0, 0, 4, 4] = torch.nan
    low, high = np.array([-2.0, -4.0]), np.array([2.0, 4.0])
    channel = torch.tensor([0, 1, 0])
    stretched = Space(low=low, high=high, resizing=Resizing(kind="bilinear", native=(9, 7), model=(4, 4)))
    scaled, _ = stretched.to_model(frames, channel)
    finer = stretched.finer(frames, channel)
    assert finer is not None and finer[0, 0, 4, 4] == 0.0
    whole = stretched.to_native(scaled, channel, finer=finer)
    known = frames.isfinite()
    torch.testing.assert_close(whole[known], frames[known])
    for kind, size in (("bilinear", (9, 7)), ("pad", (12, 8))):
        fits = Space(low=low, high=high, resizing=Resizing(kind=kind, native=(9, 7), model=size))  # pyright: ignore[reportArgumentType]
        assert fits.finer(frames, channel) is None
