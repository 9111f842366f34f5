"""The commands end to end on a miniature world, in this process: train, evaluate, predict, sample, inspect."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from smash import rollout
from smash.cli import main
from smash.predict import Forecaster
from stcore.events import EventSequences
from stcore.generate.events import clustered_city

TINY = ["--model.width", "4", "--model.layers", "1", "--loss.perturbations", "2", "--data.batch-sequences", "4",
        "--sampler.samples", "20", "--sampler.location-steps", "4", "--fit.epochs", "2", "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> EventSequences:
    return clustered_city().simulate(20, duration=8.0, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, world: EventSequences) -> Path:
    """Train once on a CSV of the world, and once without its marks."""
    folder = tmp_path_factory.mktemp("smash")
    world.write(folder / "events.csv")
    common = ["train", "--data", str(folder / "events.csv"), *TINY]
    assert main([*common, "--run", str(folder / "run")]) == 0
    assert main([*common, "--run", str(folder / "unmarked"), "--data.mark-column", "none"]) == 0
    return folder


@pytest.mark.parametrize("name", ["run", "unmarked"])
def test_evaluate_prints_baselines_and_writes_figures(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(folder / name), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["tables"]["smash"]["rows"]}
    rivals = ["marginal", "constant rate", "inhomogeneous Poisson", "self-exciting"]
    assert list(found["tables"]) == ["smash", *rivals] and list(found["better"]) == rivals
    assert rows["gap_crps"]["low"] <= rows["gap_crps"]["value"] <= rows["gap_crps"]["high"]
    assert ("mark_log_loss" in rows) == (name == "run")
    assert "one step ahead" in found["facts"]["protocol"]
    assert found["constants"]["training median"]["mae_gap"] > 0.0
    drawn = {Path(path).name for path in found["files"] if path.endswith(".png")}
    assert {"coverage.png", "pit.png", "map.png", "gap.png", "intensity.png", "training.png"} <= drawn
    assert ("marks.png" in drawn) == (name == "run")
    assert all(Path(path).stat().st_size > 1000 for path in found["files"])


def test_evaluate_takes_other_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clustered_city().simulate(4, duration=8.0, seed=9).write(folder / "other.csv")
    capsys.readouterr()
    arguments = ["evaluate", str(folder / "run"), "--data", str(folder / "other.csv"), "--no-figures", "--json"]
    assert main([*arguments, "--no-rivals", "--out", str(folder)]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert tables["smash"]["sequences"] <= 4 and set(tables) == {"smash", "marginal", "constant rate"}


def test_predict_names_sequences_times_and_marks(folder: Path, world: EventSequences) -> None:
    out, regions = folder / "forecast.csv", folder / "regions.geojson"
    arguments = ["predict", str(folder / "run"), "--data", str(folder / "events.csv"), "--out", str(out)]
    assert main([*arguments, "--regions", str(regions), "--levels", "0.1", "0.5", "0.9"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence_id"] for row in rows] == list(world.sequence_id)
    assert [int(row["event"]) for row in rows] == world.lengths.tolist()
    for row in rows:
        times = [float(row[f"time_{level}"]) for level in ("0.1", "0.5", "0.9")]
        assert float(row["last_time"]) <= times[0] <= times[1] <= times[2]
        assert sum(float(row[f"p_{name}"]) for name in world.mark_names) == pytest.approx(1.0, abs=1e-5)
        assert 0.0 < float(row["region_area_0.5"]) < float(row["region_area_0.9"])
    shapes = json.loads(regions.read_text())["features"]
    assert len(shapes) == 2 * len(rows)
    assert all(ring[0] == ring[-1] for shape in shapes for part in shape["geometry"]["coordinates"] for ring in part)


def test_samples_are_those_of_the_python_interface(folder: Path, world: EventSequences) -> None:
    out = folder / "samples.parquet"
    assert main(["sample", str(folder / "run"), "--data", str(folder / "events.csv"), "--out", str(out)]) == 0
    table = pyarrow.parquet.read_table(out)
    forecaster = Forecaster.load(folder / "run", device="cpu")
    drawn = forecaster.sample(world, samples=20, at="last")
    np.testing.assert_allclose(table["gap"].to_numpy().reshape(-1, 20), drawn.samples.gap.numpy(), rtol=1e-6)
    assert table.num_rows == 20 * world.num_sequences


def test_samples_of_an_event_do_not_depend_on_the_others(folder: Path, world: EventSequences) -> None:
    forecaster = Forecaster.load(folder / "run", device="cpu")
    whole = forecaster.sample(world, samples=20, at="every")
    longest = int(world.lengths.argmax())
    alone = forecaster.sample(world.select([longest]), samples=20, at="every")
    mine = whole.sequence == longest
    np.testing.assert_allclose(whole.samples.gap[mine].numpy(), alone.samples.gap.numpy(), rtol=1e-5)
    np.testing.assert_allclose(whole.samples.location[mine].numpy(), alone.samples.location.numpy(), atol=1e-5)


def test_forecasts_do_not_see_the_future(folder: Path, world: EventSequences) -> None:
    forecaster = Forecaster.load(folder / "run", device="cpu")
    sequence = world.select([int(world.lengths.argmax())])
    moved = sequence.location.copy()
    moved[-1] += 3.0
    before = forecaster.sample(sequence, samples=20, at="every").samples
    after = forecaster.sample(replace(sequence, location=moved), samples=20, at="every").samples
    np.testing.assert_array_equal(before.gap.numpy(), after.gap.numpy())
    np.testing.assert_array_equal(before.location.numpy(), after.location.numpy())


def test_training_goes_on_from_the_weights_of_a_run(folder: Path) -> None:
    arguments = ["train", "--data", str(folder / "events.csv"), *TINY, "--init-from", str(folder / "run")]
    assert main([*arguments, "--run", str(folder / "again"), "--fit.max-steps", "1"]) == 0
    first, again = (
        json.loads((folder / name / "metrics.jsonl").read_text().splitlines()[-1])["val/loss"]
        for name in ("run", "again")
    )
    assert again == pytest.approx(first, rel=0.1)


def test_resume_refuses_flags_that_change_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(folder / "run"), "--noise.sigma-time", "0.3"]) == 2
    assert "noise.sigma_time differs" in capsys.readouterr().err


def test_config_of_a_run_repeats_it(folder: Path) -> None:
    arguments = ["train", "--config", str(folder / "run" / "config.toml"), "--run", str(folder / "repeated"), "--quiet"]
    assert main(arguments) == 0
    files = [(folder / name / "metrics.jsonl").read_bytes() for name in ("run", "repeated")]
    assert files[0] == files[1]


def test_speed_times_every_sampler(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    arguments = ["speed", str(folder / "run"), "--events", "2", "--repeats", "1", "--sampler.langevin-steps", "4",
                 "--sampler.refine-steps", "2", "--json"]  # fmt: skip
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["mode"] for row in rows] == ["exact", "batched", "reference"]
    assert all(row["steps_per_second"] > 0.0 for row in rows)


def test_data_and_config_commands(folder: Path, world: EventSequences, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "describe", "--data", str(folder / "events.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["events"] == world.num_events
    assert main(["data", "check", "--data", str(folder / "events.csv")]) == 0
    assert main(["data", "list"]) == 0
    assert "earthquake" in capsys.readouterr().out
    assert main(["config", "show", "--preset", "crime"]) == 0
    assert "sigma_location = 0.03" in capsys.readouterr().out
    assert main(["config", "check", str(folder / "run" / "config.toml")]) == 0


def test_predict_several_events_ahead(folder: Path, world: EventSequences) -> None:
    out = folder / "steps.csv"
    arguments = ["predict", str(folder / "run"), "--data", str(folder / "events.csv"), "--trajectories", "6"]
    assert main([*arguments, "--steps", "3", "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows[:3]] == [1, 2, 3]
    assert len(rows) == 3 * int((world.lengths > 0).sum())
    assert float(rows[0]["time_0.5"]) <= float(rows[1]["time_0.5"]) <= float(rows[2]["time_0.5"])


def test_predict_an_event_within_a_region_and_horizon(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "MOST_EVENTS", 5)
    everywhere = {"type": "Polygon", "coordinates": [[[-99, -99], [99, -99], [99, 99], [-99, 99]]]}
    (folder / "everywhere.geojson").write_text(json.dumps(everywhere))
    out = folder / "within.csv"
    arguments = ["predict", str(folder / "run"), "--data", str(folder / "events.csv"), "--trajectories", "6",
                 "--horizon", "0.3", "--out", str(out)]  # fmt: skip
    assert main([*arguments, "--within", str(folder / "everywhere.geojson")]) == 0
    inside = [row["p_event"] for row in csv.DictReader(out.read_text().splitlines())]
    assert main(arguments) == 0
    assert inside == [row["p_event"] for row in csv.DictReader(out.read_text().splitlines())]
    assert all(0.0 <= float(share) <= 1.0 for share in inside)
    capsys.readouterr()
    assert (
        main(["predict", str(folder / "run"), "--within", str(folder / "everywhere.geojson"), "--out", str(out)]) == 2
    )
    assert "expected both" in capsys.readouterr().err
