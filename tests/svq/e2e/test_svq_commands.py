"""The command line on small generated data: train, go on, evaluate, predict, codebook, export, convert, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from svq_worlds import SMALL, WORLD, weather_file

from stcore.configuration import from_plain, read_toml
from stcore.grids import GridSeries
from svq.cli import main
from svq.config import TrainConfig
from svq.presets import PRESETS


def run(*words: object) -> int:
    return main([str(word) for word in words])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Run a command with --json and return what it says."""
    capsys.readouterr()
    assert run(*words, "--json", "--quiet") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must fail with exit code 2 and one line, and return the line."""
    capsys.readouterr()
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weather_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    folder = tmp_path_factory.mktemp("svq") / "run"
    assert run("train", *SMALL, "--data", source, "--data.split", "0.6", "0.2", "0.2", "--run", folder) == 0
    return folder


def test_train_leaves_a_run_directory(trained: Path) -> None:
    assert {entry.name for entry in trained.iterdir()} >= {"config.toml", "metrics.jsonl", "checkpoints"}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert lines[-1]["val/loss"] == lines[-1]["val/mae"] > 0
    assert lines[0]["train/auxiliary"] == 0.0
    assert lines[0]["train/loss"] == lines[0]["train/error"] > 0


def test_config_of_a_run_repeats_it(trained: Path, tmp_path: Path) -> None:
    words = ("train", "--config", trained / "config.toml", "--run", tmp_path / "again", "--device", "cpu", "--quiet")
    assert run(*words) == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_resumed_run_equals_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from svq.train import Step, train

    values = {key: value for key, value in read_toml(trained / "config.toml").items() if key != "preset"}
    config = from_plain(TrainConfig, values, where="config.toml")

    class Killed(Exception):
        pass

    usual = Step.__call__

    def killed_at_the_third(self: Any, model: Any, batch: Any, context: Any) -> Any:
        if context.step == 2:
            raise Killed
        return usual(self, model, batch, context)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Step, "__call__", killed_at_the_third)
        train(config, run=tmp_path / "run", device="cpu", quiet=True)
    assert run("train", "--resume", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    ours, whole = (load_file(folder / "checkpoints/step-4.safetensors") for folder in (tmp_path / "run", trained))
    assert set(ours) == set(whole)
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_evaluate_scores_beside_naive_forecasts(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", trained, "--no-figures")
    assert list(found["tables"]) == ["svq", "persistence", "damped persistence", "climatology"]
    table, leads = found["tables"]["persistence"], found["by_lead"]["persistence"]
    assert len(table["per_lead_time"]["mse"]) == len(leads["rmse"]) == 2
    assert found["in_units"]["persistence"]["mae"] == pytest.approx(np.mean(leads["mae"]))
    assert leads["rmse_weighted"][0] > 0
    assert -1.0 <= found["more"]["svq"]["acc"] <= 1.0
    assert found["by_channel"]["svq"]["field"]["rmse"] == pytest.approx(found["in_units"]["svq"]["rmse"])
    assert found["facts"]["protocol"].startswith("protocol strict. ")
    assert found["facts"]["protocol_name"] == "strict"
    assert any(remark.startswith("lpips: empty") for remark in found["remarks"])
    assert json.loads(Path(found["files"][0]).read_text())["tables"] == found["tables"]


def test_evaluate_draws(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", trained, "--out", tmp_path, "--evaluate.horizon", 3, "--limit", 2)
    assert found["facts"]["windows"] == 1
    names = {Path(file).name for file in found["files"]}
    assert names >= {"evaluation-test.json", "forecast.png", "forecast.gif", "lead-time-rmse.png", "training.png",
                     "map.png", "spectrum.png"}  # fmt: skip
    assert all(Path(file).stat().st_size > 100 for file in found["files"])


@pytest.mark.parametrize("ending", ["npz", "zarr", "nc"])
def test_predict_writes_fields_with_times_and_places(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out = tmp_path / f"forecast.{ending}"
    found = answer(capsys, "predict", trained, "--data", source, "--out", out, "--evaluate.horizon", 5, "--no-figures")
    assert found["forecasts"] == 1
    forecast = GridSeries.read(out)
    assert forecast.shape == (5, 1, 8, 16)
    assert forecast.times is not None
    assert forecast.times[0] == np.datetime64("2000-01-02T06")
    assert forecast.units == ("K",)
    np.testing.assert_allclose(forecast.y, WORLD.latitude)
    np.testing.assert_allclose(forecast.x, WORLD.longitude)
    from svq import Forecaster

    expected = Forecaster.load(trained, device="cpu").predict(GridSeries.read(source).frames(range(30)), 5)
    np.testing.assert_allclose(forecast.frames(range(5)), expected, rtol=1e-5)


def test_predict_needs_no_more_than_a_history(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "past.npy", np.full((3, 1, 8, 16), 280.0, np.float32) + np.arange(16))
    found = answer(capsys, "predict", trained, "--data", tmp_path / "past.npy", "--data.layout", "TCHW", "--out",
                   tmp_path / "future.nc", "--at", "every")  # fmt: skip
    assert found["forecasts"] == 1
    assert [Path(file).name for file in found["files"]] == ["future.nc", "future.png", "future.gif"]
    import xarray as xr

    with xr.open_dataset(tmp_path / "future.nc") as written:
        assert dict(written.sizes) == {"time": 2, "y": 8, "x": 16}


def test_several_forecasts_in_one_netcdf_file(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import xarray as xr

    out = tmp_path / "all.nc"
    answer(capsys, "predict", trained, "--data", source, "--out", out, "--at", "every", "--evaluate.stride", 9,
           "--no-figures")  # fmt: skip
    with xr.open_dataset(out) as written:
        assert dict(written.sizes) == {"forecast": 4, "lead": 2, "latitude": 8, "longitude": 16}
        assert written["field"].attrs["units"] == "K"
        assert written["latitude"].attrs["units"] == "degrees_north"
        assert written["time"].values[1, 0] == np.datetime64("2000-01-01T12")


def test_forecaster_takes_what_people_have(trained: Path) -> None:
    from svq import Forecaster

    forecaster = Forecaster.load(trained, device="cpu")
    frames = np.random.default_rng(0).normal(280.0, 10.0, (6, 8, 16))
    plain = forecaster.predict(frames)
    assert plain.shape == (2, 8, 16)
    np.testing.assert_array_equal(forecaster.predict(frames[:, None])[:, 0], plain)
    np.testing.assert_array_equal(forecaster.predict(torch.tensor(frames)[None, :, None])[0, :, 0], plain)
    assert forecaster.predict(frames, 7).shape == (7, 8, 16)


def test_codebook_tells_of_the_codes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "codebook", trained, "--limit", 2)
    assert (found["kind"], found["codes"]) == ("svq", 20)
    assert found["tokens"] == 2 * 3 * 4 * 8
    assert sum(found["counts"]) == found["tokens"] * 20
    assert 0 <= found["dead"] <= 20
    assert found["active"] == pytest.approx(sum(found["usage"]))
    assert [Path(file).name for file in found["files"]] == ["codebook-test.json", "codebook.png"]
    chunked = answer(capsys, "codebook", trained, "--limit", 2, "--chunk", 7, "--no-figures")
    assert chunked["counts"] == found["counts"]
    assert chunked["kurtosis"] == pytest.approx(found["kurtosis"], rel=1e-9)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_export_is_checked_against_eager(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    found = answer(capsys, "export", trained, "--out", tmp_path / f"model.{ending}")
    assert found["format"] == ending
    assert found["difference"] < 1e-5
    assert [entry.name for entry in tmp_path.iterdir()] == [f"model.{ending}"]


@pytest.mark.parametrize("wrapped", ["bare", "latest", "distributed"])
def test_convert_makes_a_run_of_an_original_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrapped: str
) -> None:
    from svq import Forecaster, FrameShape, build
    from svq.convert import to_original

    preset = PRESETS["t2m/svq-gsta"]
    simvp = replace(preset.model, hid_spatial=4, hid_temporal=8, depth_temporal=2)
    quantizer = replace(preset.quantizer, codebook_size=12, middle=5)
    torch.manual_seed(0)
    ours = build(simvp, quantizer, FrameShape(1, 8, 16), 3).eval()
    theirs: dict[str, Any] = dict(to_original(ours.state_dict(), "gsta"))
    if wrapped == "latest":
        theirs = {"epoch": 3, "state_dict": theirs, "optimizer": {}, "scheduler": {}}
    if wrapped == "distributed":
        theirs = {f"module.{name}": value for name, value in theirs.items()}
    torch.save(theirs, tmp_path / "checkpoint.pth")
    found = answer(capsys, "convert", tmp_path / "checkpoint.pth", "--preset", "t2m/svq-gsta", "--out",
                   tmp_path / "run", "--size", 8, 16, "--mean", 280, "--std", 10)  # fmt: skip
    assert (found["translator"], found["quantizer"], found["dropped"]) == ("gsta", "svq", [])
    frames = torch.randn(2, 3, 1, 8, 16)
    with torch.no_grad():
        expected = 280 + 10 * ours(frames, 4)
    forecast = Forecaster.load(tmp_path / "run", device="cpu").predict(280 + 10 * frames, 4)
    np.testing.assert_allclose(forecast, expected.numpy(), rtol=1e-5)


def test_convert_makes_a_store_of_data(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "convert", source, "--out", tmp_path / "weather.zarr")
    assert found["frames"] == 30
    stored, given = GridSeries.read(tmp_path / "weather.zarr"), GridSeries.read(source)
    np.testing.assert_array_equal(stored.frames(range(30)), given.frames(range(30)))
    assert stored.times is not None
    np.testing.assert_array_equal(stored.times, given.times)
    assert "or for data a name that ends in .zarr" in refused(capsys, "convert", source, "--out", tmp_path / "x.nc")


def test_data_with_gaps_is_trained_on_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = weather_file(tmp_path, "holes.npz", gaps=True)
    folder = tmp_path / "run"
    assert run("train", *SMALL, "--data", source, "--data.split", 0.6, 0.2, 0.2, "--run", folder) == 0
    found = answer(capsys, "evaluate", folder, "--no-figures")
    assert np.isfinite(found["in_units"]["svq"]["rmse"])
    assert np.isfinite(found["in_units"]["persistence"]["rmse"])


def test_comparison_quantisers_are_examined_too(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quantizer.kind", "residual-vq", "--quantizer.quantizers", 2, "--fit.epochs", 1)
    split = ("--data.split", 0.6, 0.2, 0.2)
    assert run("train", *SMALL, *words, "--data", source, *split, "--run", tmp_path / "run") == 0
    found = answer(capsys, "codebook", tmp_path / "run", "--limit", 2)
    assert found["kind"] == "residual-vq"
    assert len(found["perplexity"]) == len(found["used"]) == 2
    assert all(1.0 <= value <= 20.0 for value in found["perplexity"])


def test_new_run_starts_from_the_weights_of_another(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--optimiser.learning-rate", 1e-9, "--fit.epochs", 1, "--data.split", 0.6, 0.2, 0.2)
    found = answer(capsys, "train", *SMALL, *words, "--data", source, "--init-from", trained, "--run", tmp_path / "run")
    before = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = min(line["val/loss"] for line in before if "val/loss" in line)
    assert found["best"] == pytest.approx(best, rel=0.2)
    assert found["protocol"] == "strict"


def test_data_and_config_commands(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "data", "describe", "--data", source)["all"]["frames"] == 30
    assert list(answer(capsys, "data", "check", "--data", source)) == ["all"]
    assert "era5_t2m_uk" in answer(capsys, "data", "list")
    listed = answer(capsys, "config", "list")
    assert listed["presets"] == list(PRESETS)
    assert listed["short"]["weather/t2m_5_625/SimVPVQ_gSTA_learnable"] == "t2m/svq-gsta"
    shown = answer(capsys, "config", "show", "--preset", "weather/r_5_625/SimVPVQ_Swin_frozen", "--seed", 7)
    assert shown["quantizer"]["freeze_codebook"] is True
    assert shown["seed"] == 7
    file = tmp_path / "mine.toml"
    file.write_text('[model]\ntranslator = "vit"\n[quantizer]\nkind = "none"\n')
    assert answer(capsys, "config", "check", file) == {"valid": True}
    assert answer(capsys, "config", "show", file)["model"]["translator"] == "vit"


@pytest.mark.parametrize(("text", "message"), [
    ('[model]\ntranslator = "gst"', "model.translator is 'gst'; expected one of"),
    ("[model]\nhid_spatial = 3", "model.hid-spatial: 3; expected an even number"),
    ("[model]\ndepth_spatal = 2", "unknown key 'model.depth_spatal'; did you mean 'depth_spatial'?"),
    ('[quantizer]\nkind = "lfq"', "quantizer.codebook-size: 10000; expected a power of two for lfq"),
    ("[data]\nhistory = 0", "data.history: 0; expected at least 1"),
    ("[loss]\nkind = 'l1'", "loss.kind is 'l1'; expected one of 'mae', 'mse', 'huber'"),
    ("[loss]\ndelta = 0.0", "loss.delta: 0.0; expected a number above 0"),
    ("[schedule]\nkind = 'linear'", "schedule.kind is 'linear'; expected one of 'cosine', 'one-cycle', 'constant'"),
])  # fmt: skip
def test_wrong_configurations_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    for command in (("config", "check", file), ("train", "--config", file, "--run", tmp_path / "run")):
        assert message in refused(capsys, *command)
    assert not (tmp_path / "run").exists()


def test_wrong_uses_are_refused_in_one_line(trained: Path, source: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("STCORE_DATA", str(tmp_path))
    out = tmp_path / "x.npz"
    small = tmp_path / "small.npy"
    np.save(small, np.zeros((2, 1, 8, 16), np.float32) + np.arange(2)[:, None, None, None])
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", *SMALL, "--run", trained), "exists already"),
        (("train", "--preset", "t2m/svq-gstb"), "did you mean 't2m/svq-gsta'?"),
        (("train", "--preset", "t2m/svq-gsta", "--run", out), "weather: not found under STCORE_DATA="),
        (("train", "--resume", trained, "--seed", "3"), "--resume: seed differs"),
        (("train", *SMALL, "--data", "nowhere", "--run", out), "nowhere: no such file"),
        (("train", *SMALL, "--data", small, "--run", out), "small.npy"),
        (("predict", trained, "--data", source, "--out", tmp_path / "x.csv"), "expected .nc, .npz, .zarr"),
        (("predict", trained, "--data", small, "--data.layout", "TCHW", "--out", out), "expected at least 3"),
        (("predict", tmp_path / "no", "--data", source, "--out", out), "no such folder; expected the folder of a run"),
        (("evaluate", trained, "--out", tmp_path / "no"), "no such folder"),
        (("evaluate", trained, "--lpips", tmp_path / "other.pth"), "no net.slice1.0.weight; expected the weights of"),
        (("export", trained, "--out", tmp_path / "x.h5"), "expected .pt2 or .onnx"),
        (("codebook", trained, "--threshold", 0), "--threshold: 0; expected more than 0"),
        (("convert", source, "--out", tmp_path / "converted"), "cannot be read as a checkpoint of torch"),
        (("convert", tmp_path / "other.pth", "--out", tmp_path / "converted"), "other.pth: "),
    ]  # fmt: skip
    for words, message in cases:
        assert message in refused(capsys, *words), words
    assert not out.exists()
    assert not (tmp_path / "converted").exists()


def test_help_imports_no_torch_and_is_fast() -> None:
    code = ("import sys, time; from svq.cli import main; main(['--help']); main(['train', '--help']); "
            "print('torch' in sys.modules, 'numpy' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert "codebook" in done.stdout
