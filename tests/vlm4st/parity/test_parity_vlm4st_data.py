"""What the original's loader made of three small files, and what it drew, against ours; numbers of a known series."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from vlm4st_recordings import Recording, folder, open_recording

from stcore.splits import Parts
from vlm4st.baselines import Baseline, CellRegression, HistoricalAverage, InputMean, Persistence, score_baselines
from vlm4st.config import LossConfig, ScheduleConfig
from vlm4st.data import batch_size, evaluation_size, part_batches, read_sources, training_batches
from vlm4st.data_options import DataConfig, WindowShape
from vlm4st.few_shot_selection import by_ratio
from vlm4st.mixing import PartBatches, Samples
from vlm4st.objective import error_sums, means_of, total_loss
from vlm4st.resizing import Resizing
from vlm4st.schedules import epoch_rate
from vlm4st.space import Space
from vlm4st.timestamps import slots_of
from vlm4st.windows import ArrayWindows

NAMES = ("BikeNYC", "Crowd", "TaxiBJ")


@pytest.fixture(scope="module")
def recording() -> Recording:
    return open_recording("data_pipeline")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def config_of(name: str, cache: str) -> DataConfig:
    file = Path(os.environ["STCORE_REFERENCE"]) / "vlm4st" / "json" / f"{name}_short.json"
    return DataConfig(source=(str(file),), scaler_fit="all", batch_rule="adaptive", cache=cache)


@pytest.mark.parametrize("name", NAMES)
def test_windows_timestamps_and_scale_are_those_of_the_original(recording: Recording, cache: str, name: str) -> None:
    data, shape = config_of(name, cache), WindowShape(height=8, width=8)
    (source,) = read_sources(data, shape)
    assert source.name == name
    expected = recording.expect(f"extra/{name}.min_max")
    assert [source.space.low[0], source.space.high[0]] == pytest.approx(expected.tolist(), abs=1e-4)
    sizes = [batch_size(data, shape, sources=1), evaluation_size(data, shape, sources=1)]
    assert sizes == recording.expect(f"extra/{name}.batch_sizes_train_val").tolist()
    for part, windows in source.windows.named().items():
        ids = np.arange(len(windows))
        clock = windows.clock(ids)
        assert clock is not None
        assert np.array_equal(slots_of(clock), recording.expect(f"extra/{name}.{part}.timestamps").numpy())
        batch = source.samples(part, ids).load(ids)
        made = torch.cat([batch["x"], batch["target"]], dim=1)
        recorded = recording.expect(f"extra/{name}.{part}.x")
        assert made.dtype == recorded.dtype
        torch.testing.assert_close(made, recorded, atol=recording.meta["tolerance"], rtol=0.0)


def test_files_on_the_grid_of_the_model_are_not_resized(recording: Recording, cache: str) -> None:
    data, shape = config_of("BikeNYC", cache), WindowShape(height=4, width=6)
    (source,) = read_sources(data, shape)
    batch = source.samples("train").load(np.arange(5))
    made = torch.cat([batch["x"], batch["target"]], dim=1)
    torch.testing.assert_close(made, recording.expect("extra/native.train.x"), atol=1e-5, rtol=0.0)
    sizes = [batch_size(data, shape, sources=1), evaluation_size(data, shape, sources=1)]
    assert sizes == recording.expect("extra/native.batch_sizes_train_val").tolist()


def test_scale_and_its_inverse(recording: Recording) -> None:
    x = recording.input("extra/norm.x")
    space = Space.fit_range([x.numpy().reshape(-1, 1, 4, 6)], Resizing(kind="bilinear", native=(4, 6), model=(4, 6)),
                            part="train")  # fmt: skip
    scaled = space.transform(x)
    torch.testing.assert_close(scaled, recording.expect("extra/norm.y"), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(space.inverse(scaled), recording.expect("extra/norm.inv"), atol=1e-5, rtol=0.0)
    assert np.allclose(space.transform(x.numpy()), scaled.numpy(), atol=1e-6)


def test_few_shot_windows_are_the_originals(recording: Recording) -> None:
    found = [re.fullmatch(r"extra/fewshot\.(\d+)\.([\d.]+)", key) for key in recording.tensors]
    matches = [match for match in found if match]
    assert len(matches) == 4
    for match in matches:
        drawn = by_ratio(int(match[1]), float(match[2]))
        assert drawn.tolist() == recording.expect(match[0]).tolist()


def test_learning_rates_of_epochs_are_the_originals(recording: Recording) -> None:
    found = [re.fullmatch(r"extra/lr\.(\d+)\.(\d+)", key) for key in recording.tensors]
    matches = [match for match in found if match]
    assert len(matches) == 2
    for match in matches:
        epochs, warmup = int(match[1]), int(match[2])
        schedule = ScheduleConfig(kind="cosine", warmup_epochs=warmup)
        rates = [epoch_rate(epoch, rate=1e-4, epochs=epochs, schedule=schedule) for epoch in range(epochs)]
        assert rates == pytest.approx(recording.expect(match[0]).tolist(), rel=1e-9)


def test_loss_is_the_originals(recording: Recording) -> None:
    forecast, target = recording.input("extra/loss.pred"), recording.input("extra/loss.target")
    mse, mae = means_of(error_sums(forecast.squeeze(-1), target, None))
    total = total_loss(mse, mae, LossConfig())
    for name, value in {"total": total, "mse": mse, "mae": mae}.items():
        torch.testing.assert_close(value.float(), recording.expect(f"extra/loss.{name}"), atol=1e-6, rtol=0.0)


def windows_of(series: np.ndarray, part: range) -> ArrayWindows:
    """Windows of the recorded series: half hours from a Monday on."""
    rows = np.array(part)[:, None] + np.arange(12)
    clock = np.stack([rows // 48 % 7, rows % 48 * 1800], axis=-1)
    return ArrayWindows(series[rows].astype(np.float32), clock, name="part")


def test_naive_forecasts_of_the_known_series_have_the_recorded_errors() -> None:
    recording = open_recording("synthetic_series")
    series, meta = recording.input("series").numpy(), recording.meta
    parts = Parts(*(windows_of(series, range(*meta[f"{part}_windows"])) for part in ("train", "val", "test")))
    grid = (series.shape[1], series.shape[2])
    frames = series[: meta["train_windows"][1], None]
    space = Space.fit_range([frames], Resizing(kind="bilinear", native=grid, model=grid), part="train")
    assert [space.low[0], space.high[0]] == meta["train_min_max"]
    assert sum(map(len, (parts.train, parts.val, parts.test))) == recording.fact("windows")
    baselines: dict[str, Baseline] = {
        "persistence": Persistence(),
        "input_mean": InputMean(),
        "historical_average_weekday_slot_fallback_slot": HistoricalAverage.fit(parts.train, None),
        "per_cell_linear_regression": CellRegression.fit(parts.train, None, horizon=6),
    }
    samples = Samples(parts.test, space, 6, True, np.arange(len(parts.test)))
    found = score_baselines(baselines, PartBatches(samples, 64), horizon=6)
    for name, errors in recording.fact("baselines_test").items():
        table = found[name].table()
        assert table["mae"] == pytest.approx(errors["mae"], abs=6e-5), name
        assert table["rmse"] == pytest.approx(errors["rmse"], abs=6e-5), name


@pytest.mark.skipif(folder() is None, reason="STCORE_REFERENCE is not set: no recordings")
def test_batches_of_the_recorded_files_together_hold_every_window_once(cache: str) -> None:
    files = tuple(config_of(name, cache).source[0] for name in NAMES)
    data = DataConfig(source=files, batch=4, cache=cache)
    sources = read_sources(data, WindowShape(height=8, width=8))
    mixture = training_batches(sources, data, seed=0)
    orders = mixture.order(0)
    assert sorted(np.concatenate(orders).tolist()) == list(range(15)) and [len(ids) for ids in orders] == [4, 4, 4, 3]
    batches = [mixture.load(0, ids) for ids in orders]
    assert torch.cat([batch["dataset"] for batch in batches]).bincount().tolist() == [5, 5, 5]
    assert {tuple(batch["x"].shape[1:]) for batch in batches} == {(6, 8, 8)}
    assert [len(part_batches(source, "val", size=4)) for source in sources] == [2, 2, 2]
