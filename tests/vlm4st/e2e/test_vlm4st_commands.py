"""The command line on small generated flows: train, go on, evaluate, test, few-shot, predict, export, convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_runs import LORA, SMALL, answer, flow_file, refused, run
from flow_worlds import flows, write_unist
from safetensors.torch import load_file

from stcore.configuration import from_plain, read_toml
from stcore.grids import GridSeries
from stcore.training.checkpoint import load_checkpoint
from vlm4st.config import TrainConfig
from vlm4st.predict import Forecaster
from vlm4st.timestamps import as_clock


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flow_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    folder = tmp_path_factory.mktemp("vlm4st") / "run"
    assert run("train", *SMALL, *LORA, "--data", source, "--run", folder) == 0
    return folder


def test_train_leaves_a_run_directory(trained: Path) -> None:
    assert {entry.name for entry in trained.iterdir()} >= {"config.toml", "metrics.jsonl", "checkpoints"}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert lines[-1]["val/loss"] == pytest.approx(lines[-1]["val/mse"] + 0.5 * lines[-1]["val/mae"])
    assert lines[0]["train/loss"] == pytest.approx(lines[0]["train/mse"] + 0.5 * lines[0]["train/mae"])
    assert lines[-1]["val/real_rmse"] >= lines[-1]["val/real_mae"] > 0
    resolved = read_toml(trained / "config.toml")
    assert (resolved["model"]["H"], resolved["model"]["W"], resolved["fit_grid"]) == (4, 6, False)


def test_checkpoints_hold_what_is_trained_and_the_run_the_frozen_backbone_once(trained: Path) -> None:
    best = load_file(trained / "checkpoints/best.safetensors")
    last = load_file(trained / "checkpoints/step-4.safetensors")
    frozen = load_file(trained / "backbone.safetensors")
    names = {name.removeprefix("model/") for name in best if name.startswith("model/")}
    kept = {name.removeprefix("frozen/") for name in frozen}
    assert any("lora_A" in name for name in names)
    assert {"vlm_module.visual.patch_embed.proj.weight"} <= kept
    assert not names & kept
    assert not any("patch_embed" in name for name in last)


def test_config_of_a_run_repeats_it(trained: Path, tmp_path: Path) -> None:
    words = ("train", "--config", trained / "config.toml", "--run", tmp_path / "again", "--device", "cpu", "--quiet")
    assert run(*words) == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_resumed_run_equals_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from vlm4st.train import Step, train

    values = {key: value for key, value in read_toml(trained / "config.toml").items() if key != "preset"}
    config = from_plain(TrainConfig, values, where="config.toml")

    class Killed(Exception):
        pass

    usual = Step.__call__

    def killed_at_the_fourth(self: Any, model: Any, batch: Any, context: Any) -> Any:
        if context.step == 3:
            raise Killed
        return usual(self, model, batch, context)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Step, "__call__", killed_at_the_fourth)
        train(config, run=tmp_path / "run", device="cpu", quiet=True)
    assert run("train", "--resume", tmp_path / "run", "--device", "cpu", "--quiet") == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    ours, whole = (load_file(folder / "checkpoints/step-4.safetensors") for folder in (tmp_path / "run", trained))
    assert set(ours) == set(whole)
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_evaluate_scores_beside_naive_forecasts(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "evaluate", trained)
    table = found["data_sets"]["flows"]
    assert list(table["errors"])[:3] == ["vlm4st", "persistence", "input mean"]
    mine = table["errors"]["vlm4st"]
    assert len(mine["per_lead_time"]["rmse"]) == 2
    assert table["Real_MAE"] == mine["overall"]["mae"] == pytest.approx(np.mean(mine["per_lead_time"]["mae"]))
    assert sum(table["gate_weights"].values()) == pytest.approx(1.0)
    assert "on the grid of the data" in found["facts"]["protocol"]
    names = {Path(file).name for file in found["files"]}
    assert names == {"evaluation-test.json", "forecast.png", "forecast.gif", "lead-time-mae.png", "lead-time-rmse.png",
                     "gates.png", "prototypes.png", "training.png"}  # fmt: skip
    assert all(Path(file).stat().st_size > 100 for file in found["files"])


def test_evaluate_takes_other_data_and_says_how_they_are_scaled(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = flow_file(tmp_path, "elsewhere.npz", seed=5)
    words = ("evaluate", trained, "--data", other, "--no-figures", "--out", tmp_path)
    assert answer(capsys, *words)["remarks"] == []
    wide = flow_file(tmp_path, "wide.npz", width=8)
    said = answer(capsys, *words[:2], "--data", wide, *words[4:])
    assert said["remarks"] == ["wide: not of the training; scaled by its own training part"]
    line = refused(capsys, "evaluate", trained, "--data", wide, "--dataset", "flows", "--no-figures")
    assert "4 x 8 (rows x columns); expected 4 x 6, the grid of flows" in line


@pytest.mark.parametrize("ending", ["npz", "nc"])
def test_predict_writes_fields_with_times(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out = tmp_path / f"forecast.{ending}"
    found = answer(capsys, "predict", trained, "--data", source, "--out", out, "--no-figures")
    assert (found["forecasts"], found["data_set"]) == (1, "flows")
    forecast = GridSeries.read(out)
    assert forecast.shape == (2, 1, 4, 6)
    assert forecast.times is not None
    assert forecast.times[0] == np.datetime64("2024-01-03T00:00")
    assert forecast.units == ("people",)
    series = GridSeries.read(source)
    assert series.times is not None
    forecaster = Forecaster.load(trained, device="cpu")
    expected = forecaster.predict(series.frames(range(96))[:, 0], series.times)
    np.testing.assert_allclose(forecast.frames(range(2))[:, 0], expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(forecaster.predict(series)[:, 0], expected, rtol=1e-5, atol=1e-4)


def test_predict_draws_and_takes_every_window(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.npz"
    found = answer(capsys, "predict", trained, "--data", source, "--out", out, "--at", "every", "--data.stride", 31)
    assert found["forecasts"] == 4
    assert [Path(file).name for file in found["files"]] == ["all.npz", "all.png", "all.gif"]


def test_forecaster_says_what_it_lacks(trained: Path) -> None:
    forecaster = Forecaster.load(trained, device="cpu")
    frames = np.ones((3, 4, 6))
    for values, moments, message in (
        (frames, None, "timestamps: none"),
        (frames[:2], ["2024-01-01T00:00"] * 2, "2 of them; expected at least 3"),
        (frames[:, :3], None, "3 x 6"),
        (np.full((3, 4, 6), np.nan), ["2024-01-01T00:00"] * 3, "not finite"),
        (frames, ["2024-01-01T00:00"] * 2, r"timestamps: of shape \(1, 2\); expected \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            forecaster.predict(values, moments)
    with pytest.raises(ValueError, match=r"data set: 'x'; expected one of those of the training, flows"):
        forecaster.predict(frames, dataset="x")
    batch = np.stack([frames, 2 * frames])
    times = np.datetime64("2024-01-01T00:00") + np.arange(3) * np.timedelta64(30, "m")
    both = forecaster.predict(batch, times)
    np.testing.assert_allclose(both[1], forecaster.predict(torch.tensor(batch[1]), times), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_export_is_checked_against_eager(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    found = answer(capsys, "export", trained, "--out", tmp_path / f"model.{ending}")
    assert found["inputs"] == ["history", "low", "high", "timestamps"]
    assert found["difference"] < 1e-5
    assert [entry.name for entry in tmp_path.iterdir()] == [f"model.{ending}"]


def test_anomalies_are_forecast_as_they_are_scored(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data.anomalies", "day", "--model.prediction-head.residual", "linear")
    assert run("train", *SMALL, *words, "--data", source, "--run", tmp_path / "run") == 0
    found = answer(capsys, "evaluate", tmp_path / "run", "--no-figures")["data_sets"]["flows"]
    out = tmp_path / "all.npz"
    words = ("--data", source, "--at", "every", "--data.stride", 2, "--no-figures")
    answer(capsys, "predict", tmp_path / "run", *words, "--out", out)
    forecast, series = GridSeries.read(out), GridSeries.read(source)
    assert forecast.times is not None and series.times is not None
    ahead = forecast.frames(range(forecast.num_frames))
    first = len(series.times) - round(0.15 * len(series.times)) + 3  # of the test part, three frames are known
    of_test = np.flatnonzero((forecast.times >= series.times[first]) & (forecast.times <= series.times[-1]))
    truth = series.frames(np.searchsorted(series.times, forecast.times[of_test]))
    mae = float(np.abs(ahead[of_test] - truth).mean())
    assert mae == pytest.approx(found["Real_MAE"], rel=0.5)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_a_model_of_anomalies_is_exported_with_what_is_usual(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    words = ("--data.anomalies", "week", "--model.prediction-head.residual", "linear")
    other = flow_file(tmp_path, "other.npz", seed=5)
    assert run("train", *SMALL, *words, "--data", source, other, "--run", tmp_path / "run") == 0
    file = tmp_path / f"model.{ending}"
    line = refused(capsys, "export", tmp_path / "run", "--out", file)
    assert "data set: none named; expected one of those of the training, flows, other" in line
    found = answer(capsys, "export", tmp_path / "run", "--out", file, "--dataset", "flows")
    assert found["inputs"] == ["history", "channel", "clock"] and found["difference"] < 1e-5
    forecaster, series = Forecaster.load(tmp_path / "run", device="cpu"), GridSeries.read(source)
    assert series.times is not None
    frames, times = series.frames(range(3)), series.times[:5]
    expected = forecaster.predict(series.select(slice(0, 3)), dataset="flows")
    clock = torch.from_numpy(as_clock(times))[None]
    for channel in range(frames.shape[1]):
        given = torch.from_numpy(frames[None, :, channel]).float(), torch.tensor([channel]), clock
        if ending == "pt2":
            made = torch.export.load(file).module()(*given).detach().numpy()
        else:
            onnxruntime = pytest.importorskip("onnxruntime")
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            made = session.run(None, dict(zip(found["inputs"], (part.numpy() for part in given), strict=True)))[0]
        np.testing.assert_allclose(made[0], expected[:, channel], rtol=1e-4, atol=1e-3)


def test_detail_that_the_model_cannot_see_persists(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On frames that are shrunk for the model, forecasts begin as the last frame, in all of its cells."""
    size = ("--no-fit-grid", "--model.H", "2", "--model.W", "3", "--fit.max-steps", "1", "--optimiser.learning-rate",
            "1e-12")  # fmt: skip
    assert run("train", *SMALL, *size, "--data", source, "--run", tmp_path / "run") == 0
    forecaster, series = Forecaster.load(tmp_path / "run", device="cpu"), GridSeries.read(source)
    assert series.times is not None
    frames = series.frames(range(3))[:, 0]
    forecast = forecaster.predict(frames, series.times[:3])
    np.testing.assert_allclose(forecast, np.stack([frames[-1]] * 2), rtol=1e-4, atol=1e-3)
    found = answer(capsys, "evaluate", tmp_path / "run", "--no-figures")["data_sets"]["flows"]
    assert found["Real_MAE"] == pytest.approx(found["errors"]["persistence"]["overall"]["mae"], rel=1e-4)
    assert answer(capsys, "export", tmp_path / "run", "--out", tmp_path / "model.pt2")["difference"] < 1e-5


def test_medians_of_near_moments_are_a_rival_too_and_come_back_with_a_run(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data.anomalies", "day", "--data.usual", "median", "--data.usual-around", 2)
    assert run("train", *SMALL, *words, "--data", source, "--run", tmp_path / "run") == 0
    found = answer(capsys, "evaluate", tmp_path / "run", "--no-figures")["data_sets"]["flows"]
    assert found["errors"]["usual (median of 5 moments)"]["overall"]["mae"] > 0
    restored = Forecaster.load(tmp_path / "run", device="cpu").known["flows"].space.usual
    assert restored is not None and (restored.average, restored.around, restored.by_weekday) == ("median", 2, False)


def test_a_run_may_take_all_but_the_head_of_another(source: Path, tmp_path: Path) -> None:
    assert run("train", *SMALL, "--data", source, "--run", tmp_path / "first") == 0
    still = ("--fit.max-steps", "1", "--optimiser.learning-rate", "1e-12", "--data", source)
    assert run("train", *SMALL, *still, "--run", tmp_path / "fresh") == 0
    start = ("--init-from", tmp_path / "first", "--fresh-head")
    assert run("train", *SMALL, *still, *start, "--run", tmp_path / "second") == 0
    first, fresh, second = (load_file(tmp_path / name / "checkpoints/best.safetensors") for name in
                            ("first", "fresh", "second"))  # fmt: skip
    for name in [name for name in second if name.startswith("model/")]:
        expected = fresh if name.startswith("model/prediction_head.") else first
        torch.testing.assert_close(second[name], expected[name], rtol=0.0, atol=1e-10)
    assert any(not torch.equal(first[name], fresh[name]) for name in first if "prediction_head" in name)


def test_weights_of_a_run_on_other_data_start_from_what_lasts_in_these(source: Path, tmp_path: Path) -> None:
    """A run on the same data goes on with the shares that were learnt, one on others with those that fit them, or with
    what was learnt beside these, as if it came from some samples more."""
    shares = "model/prediction_head.shares"
    words = (*SMALL, "--model.prediction-head.residual", "damped")
    assert run("train", *words, "--data", source, "--run", tmp_path / "first") == 0
    learnt = load_file(tmp_path / "first/checkpoints/best.safetensors")[shares]
    still = (*words, "--fit.max-steps", "1", "--optimiser.learning-rate", "1e-12", "--init-from", tmp_path / "first")
    other = flow_file(tmp_path, "other.npz", seed=5)
    for name, data in (("same", source), ("other", other)):
        assert run("train", *still, "--data", data, "--run", tmp_path / name) == 0
    assert run("train", *still[:-2], "--data", other, "--run", tmp_path / "fresh") == 0
    same, others, fresh = (load_file(tmp_path / name / "checkpoints/best.safetensors") for name in
                           ("same", "other", "fresh"))  # fmt: skip
    torch.testing.assert_close(same[shares], learnt)
    torch.testing.assert_close(others[shares], fresh[shares])
    assert float((others[shares] - learnt).abs().max()) > 1e-4
    queries = "model/prediction_head.horizon_queries"
    torch.testing.assert_close(others[queries], same[queries])
    assert run("train", *still, "--data", other, "--taught-samples", 50, "--run", tmp_path / "beside") == 0
    beside = load_checkpoint(tmp_path / "beside/checkpoints/best.safetensors")
    samples = beside.metadata["sources"][0]["trained"]
    expected = (samples * fresh[shares] + 50 * learnt) / (samples + 50)
    torch.testing.assert_close(beside.tensors[shares], expected, atol=1e-6, rtol=1e-4)


def test_few_shot_over_all_targets_and_its_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [flow_file(tmp_path, f"{name}.npz", seed=seed) for seed, name in enumerate("ab")]
    words = ("few-shot", *SMALL, "--data", *files, "--fit.max-steps", 2, "--limit", 4)
    found = answer(capsys, *words, "--target_ratio", 0.1, "--run", tmp_path / "run")
    assert found["mode"] == "few_shot_10pct"
    assert list(found["targets"]) == ["a", "b"]
    average = np.mean([row["vlm4st"]["mae"] for row in found["targets"].values()])
    assert found["Average"]["vlm4st"]["mae"] == pytest.approx(average)
    result = json.loads((tmp_path / "run/few_shot_10pct/a_results.json").read_text())
    assert {"target_dataset", "mode", "target_ratio", "best_epoch", "best_val_loss", "test_metrics"} <= set(result)
    assert result["target_ratio"] == 0.1
    (tmp_path / "run/few_shot_10pct/b_results.json").unlink()
    again = answer(capsys, "few-shot", "--resume", tmp_path / "run", "--limit", 4, "--device", "cpu")
    assert again["targets"] == found["targets"]
    line = refused(capsys, "few-shot", "--resume", tmp_path / "run", "--ratio", 0.2)
    assert "few_shot.ratio differs" in line


def test_zero_shot_of_one_named_target_chosen_on_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [flow_file(tmp_path, f"{name}.npz", seed=seed) for seed, name in enumerate("ab")]
    words = ("few-shot", *SMALL, "--data", files[0], "--target_dataset", files[1], "--fit.max-steps", 1, "--limit", 2,
             "--few-shot.select-on", "sources", "--run", tmp_path / "run")  # fmt: skip
    found = answer(capsys, *words)
    assert (found["mode"], found["select_on"], list(found["targets"])) == ("zero_shot", "sources", ["b"])
    config = read_toml(tmp_path / "run/zero_shot/b/config.toml")
    assert config["few_shot"]["target"] == "b"
    checkpoint = Forecaster.load(tmp_path / "run/zero_shot/b", device="cpu")
    trained = {one["name"]: one["trained"] for one in checkpoint.facts["sources"]}
    assert trained["b"] == 0 < trained["a"]


def test_windows_of_unist_are_trained_and_tested_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_unist(tmp_path / "BikeNYC_short.json")
    cache = ("--data.cache", tmp_path / "cache")
    words = ("train", *SMALL, *cache, "--data", file, "--fit.max-steps", 2, "--fit.tensorboard")
    assert run(*words, "--run", tmp_path / "run") == 0
    assert list((tmp_path / "run/tensorboard").glob("events.*"))
    out = ("--output_dir", tmp_path / "results")
    found = answer(capsys, "test", "--checkpoint", tmp_path / "run", *out, "--save_predictions", "--device", "cpu")
    names = sorted(Path(file).name for file in found["files"])
    assert names[0].startswith("BikeNYC_predictions_")
    assert names[1].startswith("BikeNYC_test_results_")
    errors = found["data_sets"]["BikeNYC"]["errors"]["vlm4st"]
    assert found["results"]["BikeNYC"]["Real_MAE"] == errors["overall"]["mae"]
    with np.load(next((tmp_path / "results").glob("*.npz"))) as saved:
        error = np.abs(saved["predictions"] - saved["targets"]).mean()
    assert error == pytest.approx(found["results"]["BikeNYC"]["Real_MAE"], rel=1e-4)
    assert "windows of UniST" in refused(capsys, "predict", tmp_path / "run", "--out", tmp_path / "x.npz")
    described = answer(capsys, "data", "describe", "--data", file, *cache)
    assert described["train"]["windows"] == 20
    converted = answer(capsys, "convert", file, "--out", tmp_path / "windows.npz")
    assert converted["windows"] == {"train": 20, "val": 5, "test": 6}


def test_data_and_config_commands(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "data", "describe", "--data", source)["all"]["frames"] == 96
    assert list(answer(capsys, "data", "check", "--data", source)) == ["all"]
    assert "nyc_bike_grid" in answer(capsys, "data", "list")
    assert answer(capsys, "config", "list")["presets"] == ["default", "no_pretrain", "small", "tiny"]
    assert answer(capsys, "config", "show", "--preset", "tiny", "--seed", 7)["seed"] == 7
    file = tmp_path / "mine.toml"
    file.write_text('[model.vlm]\nlora_type = "moe"\n')
    assert answer(capsys, "config", "check", file) == {"valid": True}
    assert answer(capsys, "config", "show", file)["model"]["vlm"]["lora_type"] == "moe"
    theirs = tmp_path / "config.yaml"
    theirs.write_text("model:\n  d_model: 64\ntraining:\n  num_epochs: 3\n  weight_decay: 0.01\n")
    shown = answer(capsys, "config", "show", theirs)
    assert (shown["model"]["d_model"], shown["fit"]["epochs"]) == (64, 3)
    assert (shown["optimiser"]["decay"], shown["model"]["prediction_head"]["output_refine"]) == ("all", "reference")
    theirs.write_text("model:\n  d_modle: 64\n")
    assert "did you mean 'd_model'" in refused(capsys, "config", "check", theirs)


@pytest.mark.parametrize(("words", "message"), [
    (("--preset", "tny"), "no preset 'tny'; did you mean 'tiny'"),
    (("--preset", "default"), "no such file; expected weights of ALBEF"),
    (("--preset", "tiny", "--gpu", "-1"), "--gpu: -1; expected the number of a GPU"),
    (("--preset", "tiny", "--init-from", "x.pth"), "a checkpoint of the original; expected a run"),
    (("--preset", "tiny", "--model.d-model", "12"), "model.d-model: 12; expected a multiple of 8"),
    (("--preset", "tiny", "--model.vlm.use-lora"), "model.vlm.pretrained-path: none"),
    (("--preset", "tiny", "--backbone.storage", "bf16"), "backbone.storage: bf16 with fit.precision fp32"),
    (("--preset", "tiny", "--backbone.shard", "--fit.ema-decay", "0.9"), "fit.ema-decay: 0.9; expected 0"),
    (("--preset", "tiny", "--few-shot.target", "nobody"), "few-shot.target: 'nobody'; expected one of"),
])  # fmt: skip
def test_wrong_words_are_refused_with_nothing_left_behind(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    line = refused(capsys, "train", "--data", source, "--device", "cpu", *words, "--run", tmp_path / "run")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_frozen_weights_that_are_others_are_refused(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from stcore.training.checkpoint import save_checkpoint

    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    held = load_checkpoint(copy / "backbone.safetensors")
    name = "frozen/vlm_module.visual.norm.weight"
    save_checkpoint(held.path, held.tensors | {name: held.tensors[name] + 1}, held.metadata)
    line = refused(capsys, "evaluate", copy, "--no-figures")
    assert "frozen weights with hash" in line
    assert "those of the training" in line
    held.path.unlink()
    assert "expected the frozen weights of this run" in refused(capsys, "evaluate", copy, "--no-figures")


def test_backbone_and_adapters_of_a_run_serve_others(
    trained: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "backbone.safetensors"
    assert answer(capsys, "convert", trained, "--out", out)["tensors"] > 10
    words = ("--model.vlm.use-lora", "--model.vlm.lora-type", "moe", "--model.vlm.pretrained-path", out)
    assert run("train", *SMALL, *words, "--fit.max-steps", 1, "--data", source, "--run", tmp_path / "moe") == 0
    assert not (tmp_path / "moe/backbone.safetensors").exists()
    forecaster = Forecaster.load(tmp_path / "moe", device="cpu")
    assert forecaster.facts["backbone"]["file"] == str(out)
    moved = tmp_path / "elsewhere.safetensors"
    out.rename(moved)
    assert "no such file" in refused(capsys, "evaluate", tmp_path / "moe", "--no-figures")
    found = answer(capsys, "evaluate", tmp_path / "moe", "--backbone", moved, "--no-figures", "--limit", 2)
    assert found["data_sets"]["flows"]["windows"] == 2
    answer(capsys, "convert", trained, "--out", tmp_path / "peft")
    adapters = load_file(tmp_path / "peft/adapter_model.safetensors")
    assert all(".lora_A." in name or ".lora_B." in name for name in adapters)
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["r"] == 2


def test_run_of_several_data_sets_needs_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [flow_file(tmp_path, f"{name}.npz", seed=seed, width=width)
             for seed, (name, width) in enumerate((("a", 6), ("b", 4)))]  # fmt: skip
    assert run("train", *SMALL, "--fit.max-steps", 1, "--data", *files, "--run", tmp_path / "run") == 0
    forecaster = Forecaster.load(tmp_path / "run", device="cpu")
    assert {name: known.native for name, known in forecaster.known.items()} == {"a": (4, 6), "b": (4, 4)}
    series = flows(3, height=4, width=4)
    assert series.times is not None
    with pytest.raises(ValueError, match="none named; expected one of those of the training, a, b"):
        forecaster.predict(series.frames(range(3))[:, 0], series.times)
    ahead = forecaster.predict(series.frames(range(3))[:, 0], series.times, dataset="b")
    assert ahead.shape == (2, 4, 4)
    found = answer(capsys, "evaluate", tmp_path / "run", "--limit", 3)
    assert set(found["data_sets"]) == {"a", "b"}
    average = np.mean([one["Real_MAE"] for one in found["data_sets"].values()])
    assert found["Average"]["Real_MAE"] == pytest.approx(average)
    assert any(Path(file).name == "forecast-b.png" for file in found["files"])
    export = ("export", tmp_path / "run", "--out", tmp_path / "x.pt2")
    assert "none named; expected one of those of the training, a, b" in refused(capsys, *export)
    assert not (tmp_path / "x.pt2").exists()
    assert answer(capsys, *export, "--dataset", "b")["difference"] < 1e-5
    exported = torch.export.load(tmp_path / "x.pt2").module()
    low, high = torch.zeros(1), torch.full((1,), 9.0)
    assert exported(torch.ones(1, 3, 4, 4), low, high, torch.zeros(1, 3, 2, dtype=torch.long)).shape == (1, 2, 4, 4)


def test_backbone_may_be_kept_in_half_and_computed_twice(source: Path, tmp_path: Path) -> None:
    words = ("--fit.precision", "bf16", "--backbone.storage", "bf16", "--backbone.checkpointing", "--fit.accumulate", 2)
    command = ("train", *SMALL, *LORA, *words, "--fit.max-steps", 1, "--data", source, "--run", tmp_path / "run")
    assert run(*command) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["train/loss"] > 0
    series = GridSeries.read(source)
    assert series.times is not None
    ahead = Forecaster.load(tmp_path / "run", device="cpu").predict(series)
    assert ahead.shape == (2, 1, 4, 6)
    assert np.isfinite(ahead).all()
