"""Calibrated variants, rivals, futures and rates through the commands, beside what evaluation and prediction print."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from smash import rollout
from smash.calibrated import Calibration
from smash.cli import main
from smash.predict import Columns, Forecaster
from smash.rollout import Region, predict_steps, predict_within
from stcore.catalog import find, is_here
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import clustered_city

TINY = ["--model.width", "4", "--model.layers", "1", "--loss.perturbations", "2", "--data.batch-sequences", "4",
        "--sampler.samples", "20", "--sampler.location-steps", "4", "--fit.epochs", "2", "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in miniature on a simulated city, with dates, and calibrate."""
    folder = tmp_path_factory.mktemp("products")
    events = clustered_city().simulate(24, duration=16.0, seed=1)
    origin = np.datetime64("2024-03-01T06:00", "us") + np.arange(24) * np.timedelta64(20, "D")
    EventSequences(events.time, events.location, events.offsets, events.mark, events.mark_names, events.sequence_id,
                   time_unit="days", origin=origin).write(folder / "events.parquet")  # fmt: skip
    assert main(["train", "--data", str(folder / "events.parquet"), *TINY, "--run", str(folder / "run")]) == 0
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> dict[str, object]:
    assert main(["evaluate", str(folder / "run"), "--calibrate", "--no-figures", "--no-legacy", "--quiet"]) == 0
    return json.loads((folder / "run/evaluation-test.json").read_text())


def test_calibration_is_reported_beside_the_raw_figures(evaluated: dict[str, dict[str, object]], folder: Path) -> None:
    assert list(evaluated["tables"]) == ["smash", "calibrated", "marginal", "constant rate", "inhomogeneous Poisson",
                                         "self-exciting"]  # fmt: skip
    assert str(evaluated["facts"]["calibrated_on"]).endswith("events of the val part")
    forecaster = Forecaster.load(folder / "run", device="cpu")
    found = forecaster.calibration()
    assert found.mark is not None and len(found.mark.bias) == 3 and found.events >= 20
    assert Calibration.load(folder / "run", model=forecaster.fingerprint) is not None


def test_rows_in_which_a_rival_does_better_are_named(evaluated: dict[str, dict[str, object]], folder: Path) -> None:
    rows = {name: {row["name"]: row for row in table["rows"]} for name, table in evaluated["tables"].items()}  # pyright: ignore[reportIndexIssue, reportCallIssue, reportArgumentType]
    for rival, better in evaluated["better"].items():
        for name, row in rows[rival].items():
            sign = 1.0 if row["better"] == "lower" else -1.0
            if "legacy" not in name:
                assert (name in better) == (sign * row["value"] < sign * rows["smash"][name]["value"]), (rival, name)  # pyright: ignore[reportOperatorIssue]


def test_calibrated_forecasts_differ_in_gap_and_mark_and_not_in_place(folder: Path, evaluated: object) -> None:
    tables = {}
    for name, more in (("raw", []), ("mended", ["--calibrated"])):
        arguments = ["predict", str(folder / "run"), "--out", str(folder / f"{name}.csv"), "--intervals", "0.8"]
        assert main([*arguments, *more]) == 0
        with (folder / f"{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    for raw, mended in zip(tables["raw"], tables["mended"], strict=True):
        assert (raw["x"], raw["y"], raw["sequence_id"]) == (mended["x"], mended["y"], mended["sequence_id"])
        assert raw["p_theft"] != mended["p_theft"]
        assert sum(float(mended[f"p_{name}"]) for name in ("theft", "assault", "fire")) == pytest.approx(1.0)
        assert float(mended["gap_0.05"]) <= float(mended["gap_0.5"]) <= float(mended["gap_0.95"])
        assert 0.0 < float(mended["gap_low_0.8"]) < float(mended["gap_high_0.8"])
        start, then = (np.datetime64(raw[f"timestamp_{level}"]) for level in ("0.25", "0.75"))
        apart = float(raw["time_0.75"]) - float(raw["time_0.25"])
        assert (then - start) / np.timedelta64(1, "D") == pytest.approx(apart, abs=1e-9)
    assert any(raw["gap_0.5"] != mended["gap_0.5"] for raw, mended in zip(*tables.values(), strict=True))
    assert any(
        raw["region_area_0.9"] != mended["region_area_0.9"] for raw, mended in zip(*tables.values(), strict=True)
    )


def test_calibrated_asks_for_a_calibration_of_these_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--data", str(folder / "events.parquet"), *TINY, "--run", str(folder / "other")]
    assert main([*arguments, "--seed", "5"]) == 0
    predict = ["predict", str(folder / "other"), "--out", str(folder / "other.csv"), "--calibrated"]
    assert main(predict) == 2
    assert "no calibration; expected one; fit it with smash evaluate RUN --calibrate" in capsys.readouterr().err
    (folder / "other/calibration.json").write_text((folder / "run/calibration.json").read_text())
    assert main(predict) == 2
    assert "fitted to other weights" in capsys.readouterr().err
    assert main([*predict, "--steps", "3"]) == 2
    assert "--calibrated: with --steps" in capsys.readouterr().err


def test_steps_and_chances_in_python_have_dates_and_intervals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "MOST_EVENTS", 5)
    forecaster = Forecaster.load(folder / "run", device="cpu")
    events = EventSequences.read(folder / "events.parquet").select([0, 5])
    table = predict_steps(forecaster, events, steps=3, trajectories=8, seed=2)
    assert table["sequence_id"].tolist() == ["0"] * 3 + ["5"] * 3 and table["step"].tolist() == [1, 2, 3] * 2
    assert events.origin is not None
    elapsed = (table["timestamp_0.5"] - np.repeat(events.origin, 3)) / np.timedelta64(1, "D")
    np.testing.assert_allclose(elapsed, table["time_0.5"], atol=1e-9)
    everywhere = Region((np.array([[-99.0, -99.0], [99.0, -99.0], [99.0, 99.0], [-99.0, 99.0]]),))
    chance = predict_within(forecaster, events, horizon=0.1, region=everywhere, trajectories=8, seed=2)
    assert (
        chance["p_event"].tolist()
        == predict_within(forecaster, events, horizon=0.1, trajectories=8, seed=2)["p_event"].tolist()
    )
    assert (chance["p_event_low"] <= chance["p_event"]).all() and (chance["p_event"] <= chance["p_event_high"]).all()


def test_rates_are_written_with_kinds_and_dates(folder: Path) -> None:
    arguments = ["intensity", str(folder / "run"), "--out", str(folder / "rate.csv"), "--points", "20", "--ahead", "1"]
    assert main([*arguments, "--figure", str(folder / "rate.pdf")]) == 0
    with (folder / "rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sequence_id", "time", "timestamp", "rate", "rate_theft", "rate_assault", "rate_fire"]
    for row in rows:
        kinds = sum(float(row[f"rate_{name}"]) for name in ("theft", "assault", "fire"))
        assert float(row["rate"]) == pytest.approx(kinds) and float(row["rate"]) > 0.0
    assert (folder / "rate.pdf").stat().st_size > 1000
    assert main([*arguments[:-2], "--ahead", "-1"]) == 2


def test_columns_become_a_frame_where_pandas_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    columns = Columns.joined([{"a": np.array([1, 2])}, {"a": np.array([3])}])
    assert isinstance(columns.frame(), pandas.DataFrame) and columns.frame()["a"].tolist() == [1, 2, 3]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pandas is not installed"):
        columns.frame()


@pytest.mark.skipif(not os.environ.get("STCORE_DATA") or not is_here(find("citibike")),
                    reason="needs citibike under STCORE_DATA")  # fmt: skip
def test_unmarked_events_of_a_city_go_all_the_way(tmp_path: Path) -> None:
    events = EventSequences.read("citibike").select(range(0, 620, 62))
    short = [int(index) for index in np.argsort(events.lengths)[:8]]
    events.select(short).write(tmp_path / "rides.parquet")
    rides, run, out = str(tmp_path / "rides.parquet"), str(tmp_path / "run"), tmp_path / "next.csv"
    assert main(["train", "--data", rides, *TINY, "--run", run]) == 0
    assert main(["evaluate", run, "--no-figures", "--no-legacy", "--calibrate", "--quiet"]) == 0
    tables = json.loads((tmp_path / "run/evaluation-test.json").read_text())["tables"]
    names = {row["name"] for row in tables["calibrated"]["rows"]}
    assert {"gap_crps", "location_energy", "cs_location"} <= names and not any("mark" in name for name in names)
    assert all(np.isfinite(row["value"]) for table in tables.values() for row in table["rows"])
    assert (
        main(["predict", run, "--out", str(out), "--calibrated", "--regions", str(tmp_path / "regions.geojson")]) == 0
    )
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert rows and not any(name.startswith("p_") for name in rows[0])
    assert main(["predict", run, "--out", str(out), "--steps", "2", "--trajectories", "3"]) == 0


def test_fingerprints_follow_the_weights(folder: Path) -> None:
    first, again = (Forecaster.load(folder / "run", device="cpu") for _ in range(2))
    assert first.fingerprint == again.fingerprint
    other = Forecaster.load(folder / "run", device="cpu")
    with torch.no_grad():
        next(iter(other.model.parameters())).mul_(1.5)
    assert other.fingerprint != first.fingerprint
