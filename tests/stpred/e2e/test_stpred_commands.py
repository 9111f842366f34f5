"""The command line on small generated data: train, go on, evaluate, predict, export, convert, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stcore.grids import GridSeries
from stpred.cli import main
from stpred.config import PRESETS, TrainConfig

SMALL = ["--preset", "demo", "--data.generate.sequences", "20", "--data.history", "4", "--data.horizon", "3",
         "--model.hidden", "4", "--model.kernels", "3", "--fit.epochs", "2", "--device", "cpu", "--quiet"]  # fmt: skip


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
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stpred") / "run"
    assert run("train", *SMALL, "--run", folder) == 0
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of frames with times, 8-bit."""
    path = tmp_path_factory.mktemp("data") / "clips.npz"
    rng = np.random.default_rng(1)
    times = np.datetime64("2020-01-01T00:00", "us") + np.arange(9) * np.timedelta64(30, "m")
    series = GridSeries(values=rng.integers(0, 255, (18, 1, 32, 32)).astype(np.uint8), clip=np.repeat([0, 1], 9),
                        times=np.concatenate([times, times]), value_range=(0, 255), channels=("grey",))  # fmt: skip
    series.write(path)
    return path


def test_train_leaves_a_run_directory(trained: Path) -> None:
    assert {entry.name for entry in trained.iterdir()} >= {"config.toml", "metrics.jsonl", "checkpoints"}
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4
    assert last["val/mse"] > 0


def test_config_of_a_run_repeats_it(trained: Path, tmp_path: Path) -> None:
    assert (
        run("train", "--config", trained / "config.toml", "--run", tmp_path / "again", "--device", "cpu", "--quiet")
        == 0
    )
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_resumed_run_equals_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    from stcore.cli import run_config
    from stpred.train import train

    config = run_config(TrainConfig, trained)

    class Killed(Exception):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    from dataclasses import replace

    dense = replace(config, fit=replace(config.fit, checkpoint_every=1))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        from stpred.train import Step

        usual = Step.__call__
        patch.setattr(Step, "__call__", lambda self, model, batch, context: kill() if context.step == 3 else usual(
            self, model, batch, context))  # fmt: skip
        train(dense, run=tmp_path / "run", device="cpu", quiet=True)
    assert run("train", "--resume", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_evaluate_scores_beside_naive_forecasts(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", trained, "--no-figures")
    assert list(found["tables"]) == ["stpred", "persistence", "mean frame"]
    table = found["tables"]["persistence"]
    assert len(table["per_lead_time"]["mse"]) == 3
    assert table["overall"]["mse"] == pytest.approx(np.mean(table["per_lead_time"]["mse"]))
    assert found["in_units"]["persistence"]["rmse"] == pytest.approx(
        255 * (table["overall"]["mse_spatial_norm"] ** 0.5), rel=1e-6
    )
    assert "from the true 4 before them" in found["facts"]["protocol"]
    assert json.loads(Path(found["files"][0]).read_text())["tables"] == found["tables"]


def test_evaluate_draws(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", trained, "--out", tmp_path, "--evaluate.horizon", 2, "--limit", 3)
    assert found["facts"]["windows"] == 3
    names = {Path(file).name for file in found["files"]}
    assert names >= {"evaluation-test.json", "forecast.png", "forecast.gif", "lead-time-mse.png", "training.png"}
    assert all(Path(file).stat().st_size > 100 for file in found["files"])


@pytest.mark.parametrize("ending", ["npz", "zarr"])
def test_predict_writes_frames_with_times(
    trained: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out = tmp_path / f"forecast.{ending}"
    found = answer(capsys, "predict", trained, "--data", clips, "--out", out, "--evaluate.horizon", 5, "--no-figures")
    assert found["forecasts"] == 2
    forecast = GridSeries.read(out)
    assert forecast.shape == (10, 1, 32, 32)
    assert forecast.times is not None
    assert forecast.times[0] == np.datetime64("2020-01-01T04:30")
    assert forecast.times[4] == np.datetime64("2020-01-01T06:30")
    from stpred import Forecaster

    frames = GridSeries.read(clips).frames(range(9))
    expected = Forecaster.load(trained, device="cpu").predict(frames, 5)
    np.testing.assert_allclose(forecast.frames(range(5)), expected, atol=1e-3)


def test_predict_of_every_window_draws_the_first(
    trained: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.npz"
    found = answer(capsys, "predict", trained, "--data", clips, "--out", out, "--at", "every", "--evaluate.stride", 2)
    assert found["forecasts"] == 2 * 3
    assert [Path(file).name for file in found["files"]] == ["all.npz", "all.png", "all.gif"]


def test_forecaster_takes_what_people_have(trained: Path) -> None:
    from stpred import Forecaster

    forecaster = Forecaster.load(trained, device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32)).astype(np.uint8)
    plain = forecaster.predict(frames)
    assert plain.shape == (3, 32, 32)
    assert plain.min() >= 0
    assert plain.max() <= 255
    np.testing.assert_array_equal(forecaster.predict(frames[:, None])[:, 0], plain)
    np.testing.assert_array_equal(forecaster.predict(torch.tensor(frames)[None, :, None])[0, :, 0], plain)
    assert forecaster.predict(frames, 11).shape == (11, 32, 32)


@pytest.mark.parametrize(("frames", "message"), [
    (np.zeros((2, 32, 32)), "frames: 2 of them; expected at least 4"),
    (np.zeros((6, 1, 16, 32)), "expected numbers (time, channel, height, width) with 1 x 32 x 32 at the end"),
    (np.full((6, 32, 32), np.nan), "frames: values that are not finite"),
])  # fmt: skip
def test_forecaster_refuses_frames_of_another_kind(trained: Path, frames: Any, message: str) -> None:
    from stcore.errors import UserError
    from stpred import Forecaster

    with pytest.raises(UserError) as error:
        Forecaster.load(trained, device="cpu").predict(frames)
    assert message in str(error.value)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_export_is_checked_against_eager(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    found = answer(capsys, "export", trained, "--out", tmp_path / f"model.{ending}")
    assert found["format"] == ending
    assert found["difference"] < 1e-5
    assert [entry.name for entry in tmp_path.iterdir()] == [f"model.{ending}"]


def test_convert_makes_a_run_of_an_original_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stpred import ConvLSTM_MovingMNIST, Forecaster

    torch.manual_seed(0)
    original = ConvLSTM_MovingMNIST(hidden_channels_list=[4, 4], kernel_size_list=[3, 3])
    kept = {"epoch": 3, "state_dict": original.state_dict(), "optimizer": {}}
    torch.save(kept, tmp_path / "checkpoint_000003_0.1_temp.pth")
    found = answer(capsys, "convert", tmp_path / "checkpoint_000003_0.1_temp.pth", "--out", tmp_path / "run")
    assert found["kind"] == "convlstm"
    forecaster = Forecaster.load(tmp_path / "run", device="cpu")
    frames = torch.rand(1, 10, 1, 64, 64)
    with torch.no_grad():
        expected = original.predict_step(frames, None)
    np.testing.assert_allclose(forecaster.predict(frames * 255) / 255, expected.numpy(), atol=1e-5)


def test_convert_makes_a_run_of_an_openstl_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stpred import Forecaster, FrameShape, build
    from stpred.convert.openstl import to_openstl
    from stpred.models.configs import PredRNNConfig

    torch.manual_seed(0)
    ours = build(PredRNNConfig(hidden=(4, 4), kernel=3, patch=4), FrameShape(1, 64, 64)).eval()
    theirs = {f"model.{name}": value for name, value in to_openstl(ours.state_dict(), "predrnn").items()}
    torch.save({"state_dict": theirs, "epoch": 5, "optimizer_states": []}, tmp_path / "best.ckpt")
    found = answer(capsys, "convert", tmp_path / "best.ckpt", "--out", tmp_path / "run")
    assert found["kind"] == "predrnn"
    frames = torch.rand(1, 10, 1, 64, 64)
    with torch.no_grad():
        expected = ours(frames, 10)
    forecast = Forecaster.load(tmp_path / "run", device="cpu").predict(frames * 255, 10) / 255
    np.testing.assert_allclose(forecast, expected.numpy(), atol=1e-5)


def test_moving_mnist_file_is_read_as_the_standard_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mnist_test_seq.npy"
    answer(capsys, "moving-mnist", "--out", out, "--sequences", 3, "--length", 6, "--canvas", 32, "--digits", 1)
    frames = np.load(out)
    assert frames.shape == (6, 3, 32, 32)
    assert frames.dtype == np.uint8
    assert frames.max() > 200
    answer(capsys, "moving-mnist", "--out", tmp_path / "again.npy", "--sequences", 3, "--length", 6, "--canvas", 32,
           "--digits", 1)  # fmt: skip
    assert (tmp_path / "again.npy").read_bytes() == out.read_bytes()
    answer(capsys, "moving-mnist", "--out", tmp_path / "clips.npz", "--sequences", 3, "--length", 6, "--canvas", 32,
           "--digits", 1)  # fmt: skip
    series = GridSeries.read(tmp_path / "clips.npz")
    np.testing.assert_array_equal(series.frames(range(6))[:, 0], frames[:, 0])


def test_data_and_config_commands(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "data", "describe", "--data", clips)["all"]["frames"] == 18
    assert answer(capsys, "data", "check", "--data", clips) == {
        "all": answer(capsys, "data", "check", "--data", clips)["all"]
    }
    assert "kth_clips_32" in answer(capsys, "data", "list")
    assert answer(capsys, "config", "list")["presets"] == list(PRESETS)
    shown = answer(capsys, "config", "show", "--preset", "kth/mau", "--seed", 7)
    assert shown["model"]["kind"] == "mau"
    assert shown["seed"] == 7
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nkind = "predrnn"\nhidden = [8, 8]\n')
    assert answer(capsys, "config", "check", file) == {"valid": True}
    assert answer(capsys, "config", "show", file)["model"]["hidden"] == [8, 8]


@pytest.mark.parametrize(("text", "message"), [
    ('[model]\nkind = "predrn"', "model.kind is 'predrn'; expected one of convlstm"),
    ('[model]\nkind = "predrnn"\nhiden = [8]', "unknown key 'model.hiden'; did you mean 'hidden'?"),
    ('[model]\nkind = "predrnn"\nhidden = [8, 4]', "model.hidden: (8, 4); expected equal widths"),
    ("[data]\nhistory = 0", "data.history: 0; expected at least 1"),
    ("[schedule]\nkind = 'linear'", "schedule.kind is 'linear'; expected one of 'constant', 'one-cycle', 'cosine'"),
])  # fmt: skip
def test_wrong_configurations_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    for command in (("config", "check", file), ("train", "--config", file, "--run", tmp_path / "run")):
        assert message in refused(capsys, *command)
    assert not (tmp_path / "run").exists()


def test_wrong_uses_are_refused_in_one_line(trained: Path, clips: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    out = tmp_path / "x.npz"
    small = tmp_path / "small.npy"
    np.save(small, np.zeros((3, 1, 32, 32), np.float32) + np.arange(3)[:, None, None, None])
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", *SMALL, "--run", trained), "exists already"),
        (("train", "--preset", "mnist/convlstm"), "did you mean 'moving-mnist/convlstm'?"),
        (("train", "--model.kind", "lstm"), "--model.kind: 'lstm'; expected one of convlstm, trajgru"),
        (("train", "--model.links", "3", "3", "3"), "--model.links: a field of kind trajgru; expected one of convlstm"),
        (("train", "--model.kind", "mau", "--model.window", "0"), "model.window: 0; expected 1 or more"),
        (("train", "--resume", trained, "--seed", "3"), "--resume: seed differs"),
        (("train", *SMALL, "--data", "nowhere", "--run", out), "nowhere: no such file"),
        (("train", *SMALL, "--model.patch", "5", "--run", out), "model.patch: 5; expected a divisor"),
        (("predict", trained, "--data", clips, "--out", tmp_path / "x.csv"), "x.csv: ending '.csv'"),
        (("predict", trained, "--data", small, "--out", out), "expected at least 4"),
        (("predict", tmp_path / "no", "--data", clips, "--out", out), "no such folder; expected the folder of a run"),
        (("evaluate", trained, "--out", tmp_path / "no"), "no such folder"),
        (("export", trained, "--out", tmp_path / "x.h5"), "expected .pt2 or .onnx"),
        (("convert", clips, "--out", tmp_path / "converted"), "cannot be read as a checkpoint of torch"),
        (("moving-mnist", "--out", out, "--sequences", "0"), "--sequences: 0; expected at least 1"),
    ]  # fmt: skip
    for words, message in cases:
        assert message in refused(capsys, *words), words
    assert not out.exists()
    assert not (tmp_path / "converted").exists()


def test_help_imports_no_torch_and_is_fast() -> None:
    code = ("import sys, time; from stpred.cli import main; main(['--help']); main(['train', '--help']); "
            "print('torch' in sys.modules, 'numpy' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert "moving-mnist" in done.stdout
