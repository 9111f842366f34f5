"""The command line on small cities: every stage, going on after a kill, scores, forecasts, refusals."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpd_worlds import FLAGS, cities, city, files

import gpd.evaluate
import gpd.node_training
import gpd.pipeline
import gpd.train
from gpd.cli import main
from gpd.options import STAGES
from gpd.predict import Forecaster
from gpd.report import FINETUNED, GENERATED, MEAN, NAIVE, NEAREST, RANDOM, SCRATCH, SCRATCH_CLOSED, TUNED
from gpd.rows import RowTable
from stcore.graphs import GraphSeries


def run(*words: object) -> int:
    return main([str(word) for word in words])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Run a command with --json and return what it says."""
    capsys.readouterr()
    assert run(*words, "--json", "--quiet", "--device", "cpu") == 0
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
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    return files(tmp_path_factory.mktemp("cities"))


def whole(world: tuple[list[Path], Path]) -> tuple[object, ...]:
    return ("--data", *world[0], "--target", world[1], "--days", 3, *FLAGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: tuple[list[Path], Path]) -> Path:
    """One run of all stages, which tests only read."""
    folder = tmp_path_factory.mktemp("gpd") / "run"
    assert run("run", *whole(world), "--run", folder) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_has_a_folder_for_each_stage_that_says_what_it_was_made_from(trained: Path) -> None:
    made = {stage: json.loads((trained / stage / "made.json").read_text()) for stage in STAGES}
    assert set(made["pretrain"]["inputs"]) == {"city ash", "city birch"}
    assert set(made["prompts"]["inputs"]) == {"city ash", "city birch", "days of cedar"}
    assert set(made["train"]["inputs"]) == {"rows", "prompts"}
    assert set(made["generate"]["inputs"]) == {"diffusion model", "prompts", "days"}
    assert set(made["finetune"]["inputs"]) == {"rows", "days"}
    assert made["generate"]["config"]["days"] == 3
    assert made["generate"]["inputs"]["days"] == made["finetune"]["inputs"]["days"]
    assert {len(digest) for stage in made.values() for digest in stage["inputs"].values()} == {64}
    assert len(RowTable.read(trained / "pretrain/rows.safetensors")) == 11
    generated = RowTable.read(trained / "generate/rows.safetensors")
    tuned = RowTable.read(trained / "finetune/rows.safetensors")
    assert generated.nodes == tuned.nodes == ("cedar0", "cedar1", "cedar2", "cedar3")
    assert not torch.equal(generated.rows, tuned.rows)
    names = {entry.name for entry in (trained / "figures").iterdir()}
    assert names == {"error-by-horizon.png", "error-per-node.png", "forecasts.png", "gain-per-node.png",
                     "memorisation.png", "training.png"}  # fmt: skip


def test_every_stage_goes_on_after_a_kill_and_ends_in_the_same_bytes(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(patch: pytest.MonkeyPatch, kind: type, city: str, at: int) -> None:
        """Fail in the step `at` of a training whose run has `city` in its path."""
        usual = kind.__call__

        def step(self: Any, model: Any, batch: Any, context: Any) -> Any:
            if context.step == at and any(tmp_path.glob(f"run/{city}/config.toml")):
                raise Killed
            return usual(self, model, batch, context)

        patch.setattr(kind, "__call__", step)

    begin = ("run", *whole(world), "--run", tmp_path / "run")
    go_on = ("run", "--resume", tmp_path / "run", "--device", "cpu", "--quiet")
    stages = [(gpd.node_training.Step, "pretrain/ash/training"), (gpd.node_training.Step, "pretrain/birch/training"),
              (gpd.train.TrainStep, "."), (gpd.node_training.Step, "finetune/training")]  # fmt: skip
    for number, (kind, folder) in enumerate(stages):
        with pytest.MonkeyPatch.context() as patch:
            kill(patch, kind, folder, 1)
            assert run(*(begin if number == 0 else go_on)) == 1
    assert not (tmp_path / "run/evaluate").exists()
    assert run(*go_on) == 0
    for name in ("pretrain/rows.safetensors", "prompts/prompts.safetensors", "checkpoints/best.safetensors",
                 "metrics.jsonl", "generate/rows.safetensors", "finetune/rows.safetensors", "config.toml"):  # fmt: skip
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name
    found, wanted = (json.loads((folder / "evaluate/evaluation.json").read_text())
                     for folder in (tmp_path / "run", trained))  # fmt: skip
    assert found["tables"] == wanted["tables"]


def test_a_finished_run_does_nothing_again(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("done already")

    for name in ("pretrain", "compute_prompts", "generate", "finetune"):
        monkeypatch.setattr(gpd.pipeline, name, never)
    found = answer(capsys, "finetune", copied)
    assert found["rows"] == {"cedar": 4}
    assert answer(capsys, "train", "--resume", copied)["step"] == 4
    assert answer(capsys, "pretrain", "--resume", copied)["rows"] == {"ash": 6, "birch": 5}


def test_evaluate_shows_all_rivals_on_the_same_windows(trained: Path) -> None:
    found = json.loads((trained / "evaluate/evaluation.json").read_text())
    assert list(found["tables"]) == [FINETUNED, GENERATED, SCRATCH, NEAREST + TUNED, MEAN + TUNED, NEAREST, MEAN,
                                     RANDOM, *NAIVE]  # fmt: skip
    assert len({table["targets"] for table in found["tables"].values()}) == 1
    assert all(len(table["mae_per_horizon"]) == 2 for table in found["tables"].values())
    assert found["unit"] == "km/h"
    assert found["facts"]["windows"] == 9
    assert [pair["other"] for pair in found["pairs"]][:2] == [GENERATED, SCRATCH]
    assert all(0.0 <= pair["p"] <= 1.0 and len(pair["p_per_horizon"]) == 2 for pair in found["pairs"])
    # By hand: persistence on every sixth window of the last fifth of twelve days.
    test = cities()[1].values[-58:, :, 0] if found["facts"]["split"] == "chronological" else None
    assert test is not None
    starts = np.arange(0, len(test) - 7, 6)
    errors = [np.abs(test[start + 6 : start + 8] - test[start + 5]).mean() for start in starts]
    assert found["tables"]["persistence"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_mean_row_is_the_mean_of_the_sources(trained: Path) -> None:
    config = gpd.pipeline.run_config(gpd.pipeline.RunConfig, trained)
    pipeline = gpd.pipeline.Pipeline.open(trained, config, device="cpu", quiet=True)
    rows = gpd.evaluate.gather(pipeline)
    sources = RowTable.read(trained / "pretrain/rows.safetensors").rows
    assert torch.equal(rows.tables[MEAN].rows, sources.mean(0).expand(4, -1))
    assert all(any(torch.equal(row, source) for source in sources) for row in rows.tables[NEAREST].rows)
    far = torch.cdist(rows.tables[GENERATED].rows.double(), sources.double()).min(1).values / sources.shape[1] ** 0.5
    np.testing.assert_allclose(rows.memorised.generated, far.numpy(), rtol=1e-3)


def test_the_closed_form_is_tried_beside_rates_or_alone(
    world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "closed"
    assert run("run", *whole(world), "--model.linear", "--finetune.closed-form", "--finetune.rates", 1e-3,
               "--evaluate.scratch-rates", 1e-3, "--device", "cpu", "--quiet", "--run", place) == 0  # fmt: skip
    kept = RowTable.read(place / "finetune/rows.safetensors").metadata
    by_rate = mean_loss(place / "finetune/training-0.001")
    assert (place / "evaluate/scratch-closed/rows.safetensors").exists()
    assert float(np.mean(kept["best_loss"])) <= by_rate
    assert kept["training"]["closed_form"] == (float(np.mean(kept["best_loss"])) < by_rate)
    assert run("finetune", place, "--redo", "--finetune.closed-form", "--finetune.rates", "--device", "cpu") == 0
    alone = RowTable.read(place / "finetune/rows.safetensors")
    assert alone.metadata["strengths"].keys() == {"city", "node"}
    assert not (place / "finetune/training-0.001").exists()
    assert {SCRATCH, SCRATCH_CLOSED, MEAN + TUNED} <= answer(capsys, "evaluate", place)["tables"].keys()


def test_the_closed_form_needs_a_linear_map(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "finetune", copied, "--redo", "--finetune.closed-form", "--device", "cpu", "--quiet")
    assert "finetune.closed-form: true without model.linear; expected a linear map" in said


def test_of_several_rates_the_best_at_the_end_of_the_days_is_kept_also_after_a_kill(
    copied: Path, tmp_path: Path
) -> None:
    rates = (1e-4, 1e-2)
    words = ("finetune", copied, "--redo", "--device", "cpu", "--quiet",
             "--finetune.rates", *rates)  # fmt: skip
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    assert run(*words) == 0
    kept = RowTable.read(copied / "finetune/rows.safetensors")
    held = {rate: mean_loss(copied / f"finetune/training-{rate:g}") for rate in rates}
    assert held[1e-4] != held[1e-2]
    assert kept.metadata["training"]["learning_rate"] == min(held, key=lambda rate: held[rate])
    assert float(np.mean(kept.metadata["best_loss"])) == pytest.approx(min(held.values()))

    class Killed(Exception):
        pass

    usual = gpd.node_training.Step.__call__

    def step(self: Any, model: Any, batch: Any, context: Any) -> Any:
        if context.step == 1 and any(again.glob("finetune/training-0.01/config.toml")):
            raise Killed
        return usual(self, model, batch, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpd.node_training.Step, "__call__", step)
        assert run(words[0], again, *words[2:]) == 1
    begun = (again / "finetune/training-0.0001/metrics.jsonl").stat().st_mtime_ns
    assert run(words[0], again, *words[2:]) == 0
    assert (again / "finetune/training-0.0001/metrics.jsonl").stat().st_mtime_ns == begun
    assert (again / "finetune/rows.safetensors").read_bytes() == (copied / "finetune/rows.safetensors").read_bytes()


def mean_loss(training: Path) -> float:
    """Return the mean of the nodes' best losses, which the last checkpoint of a training keeps."""
    from safetensors.torch import load_file

    last = max(training.glob("checkpoints/step-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))
    (found,) = [value for name, value in load_file(last).items() if name.endswith("best_loss")]
    return float(found.double().mean())


def test_other_days_ask_for_redo(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "generate", copied, "--days", 2, "--device", "cpu")
    assert "days 3, now 2" in line
    assert "pass --redo" in line
    before = RowTable.read(copied / "generate/rows.safetensors")
    assert answer(capsys, "generate", copied, "--days", 2, "--redo")["rows"] == {"cedar": 4}
    after = RowTable.read(copied / "generate/rows.safetensors")
    assert not torch.equal(before.rows, after.rows)
    # What came after is made anew from them, with the days of the generation.
    assert not (copied / "finetune/made.json").exists()
    assert answer(capsys, "finetune", copied)["rows"] == {"cedar": 4}
    assert json.loads((copied / "finetune/made.json").read_text())["config"]["days"] == 2


def test_another_target_after_training_gets_rows_of_its_own(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city("dogwood", nodes=7, seed=9).write(tmp_path / "dogwood.npz")
    weights = (copied / "checkpoints/best.safetensors").read_bytes()
    found = answer(capsys, "generate", copied, "--target", tmp_path / "dogwood.npz", "--redo")
    assert found["rows"] == {"dogwood": 7}
    assert (copied / "checkpoints/best.safetensors").read_bytes() == weights
    scored = answer(capsys, "evaluate", copied, "--evaluate.rivals", "naive", "--no-figures")
    assert scored["facts"]["target"] == "dogwood"
    assert list(scored["tables"]) == [FINETUNED, GENERATED, *NAIVE]


def test_stages_one_by_one_give_what_run_gives(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert answer(capsys, "pretrain", "--data", *world[0], *FLAGS, "--run", folder)["numbers"] == 78
    assert answer(capsys, "prompts", folder)["nodes"] == {"ash": 6, "birch": 5}
    assert answer(capsys, "train", "--resume", folder)["step"] == 4
    assert answer(capsys, "generate", folder, "--target", world[1])["rows"] == {"cedar": 4}
    assert answer(capsys, "finetune", folder)["numbers"] == 78
    for name in ("checkpoints/best.safetensors", "metrics.jsonl", "finetune/rows.safetensors"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_new_run_takes_over_node_models(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trained_here: list[str] = []
    usual = gpd.pipeline.pretrain

    def noted(series: GraphSeries, *rest: Any, **options: Any) -> RowTable:
        trained_here.append(series.name)
        return usual(series, *rest, **options)

    monkeypatch.setattr(gpd.pipeline, "pretrain", noted)
    city("elm", nodes=4, seed=5).write(tmp_path / "elm.npz")
    found = answer(capsys, "pretrain", "--data", *world[0], tmp_path / "elm.npz", *FLAGS, "--init-from", trained,
                   "--run", tmp_path / "run")  # fmt: skip
    assert found["rows"] == {"ash": 6, "birch": 5, "elm": 4}
    assert trained_here == ["elm"]
    assert torch.equal(RowTable.read(tmp_path / "run/pretrain/rows.safetensors").of("ash").rows,
                       RowTable.read(trained / "pretrain/rows.safetensors").of("ash").rows)  # fmt: skip


def test_a_table_of_rows_stands_in_for_training(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whatever its nodes are called, and whatever the options of training are."""
    table = RowTable.read(trained / "pretrain/rows.safetensors")
    file = tmp_path / "rows.safetensors"
    replace(table, nodes=tuple(map(str, range(len(table)))), mean=None, std=None).write(file)
    monkeypatch.setattr(gpd.pipeline, "pretrain", None)
    answer(capsys, "train", *whole(world), "--pretrain.epochs", 9, "--init-from", file, "--run", tmp_path / "run")
    found = RowTable.read(tmp_path / "run/pretrain/rows.safetensors")
    assert torch.equal(found.rows, table.rows) and found.nodes == table.nodes
    made = json.loads((tmp_path / "run/pretrain/ash/made.json").read_text())
    assert made["facts"]["file"] == "rows.safetensors"
    refusals = (
        (replace(table, cities=("oak",) * len(table)), (), "rows of oak; expected some of ash, birch"),
        (table.take(range(1, len(table))), (), "5 rows of ash; expected 6, one for each node"),
        (table, ("--model.channels", 5), "expected those of the configuration, mlp; pass --preset or --model options"),
    )
    for number, (rows, words, said) in enumerate(refusals):
        rows.write(tmp_path / f"{number}.safetensors")
        line = refused(capsys, "train", *whole(world), *words, "--init-from", tmp_path / f"{number}.safetensors",
                       "--run", tmp_path / f"refused-{number}")  # fmt: skip
        assert f"{number}.safetensors: " in line and said in line
        assert not (tmp_path / f"refused-{number}").exists()


def test_predict_writes_names_times_and_units(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "predict", trained, "--out", tmp_path / "next.csv")
    assert [Path(file).name for file in found["files"]] == ["next.csv", "next.png"]
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4
    assert [row["node"] for row in rows[:4]] == ["cedar0", "cedar1", "cedar2", "cedar3"]
    assert rows[0]["time"].startswith("2020-01-18 00:00")
    assert rows[4]["time"].startswith("2020-01-18 01:00")
    assert {row["unit"] for row in rows} == {"km/h"}
    series = GraphSeries.read(world[1])
    expected = Forecaster.load(trained, device="cpu").predict(series)
    assert float(rows[5]["value"]) == pytest.approx(float(expected.values[0, 1, 1]), rel=1e-5)
    every = answer(capsys, "predict", trained, "--data", world[1], "--out", tmp_path / "all.npz", "--at", "every",
                   "--no-figures")  # fmt: skip
    assert every["forecasts"] == 288 - 6 + 1
    with np.load(tmp_path / "all.npz") as written:
        assert written["values"].shape == (283, 2, 4)
        np.testing.assert_allclose(written["values"][-1], expected.values[0], rtol=1e-5)


def test_predict_finds_nodes_by_name_and_needs_no_more_than_a_history(trained: Path) -> None:
    target = cities()[1]
    forecaster = Forecaster.load(trained, device="cpu")
    whole = forecaster.predict(target)
    turned = forecaster.predict(target.take_nodes([3, 1, 0, 2]).slice(-6, None))
    assert turned.nodes == whole.nodes
    np.testing.assert_allclose(turned.values, whole.values, rtol=1e-4)


def test_predict_uses_models_of_a_source_or_generates_for_a_city_never_seen(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in trained.rglob("*") if path.is_file())
    found = answer(capsys, "predict", trained, "--data", world[0][0], "--out", tmp_path / "a.csv", "--no-figures")
    assert found["nodes"] == 6
    series = city("fir", nodes=5, days=3, seed=6)
    series.write(tmp_path / "fir.npz")
    found = answer(capsys, "predict", trained, "--data", tmp_path / "fir.npz", "--out", tmp_path / "b.npz",
                   "--no-figures")  # fmt: skip
    assert found["nodes"] == 5
    with np.load(tmp_path / "b.npz") as written:
        assert np.isfinite(written["values"]).all()
        same = Forecaster.for_city(trained, series, device="cpu").predict(series).values
        np.testing.assert_allclose(written["values"], same, rtol=1e-5)
    assert sorted(path for path in trained.rglob("*") if path.is_file()) == before


def test_convert_makes_a_file_of_data(
    world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = cities()[1]
    folder = tmp_path / "cedar"
    folder.mkdir()
    np.save(folder / "dataset.npy", series.values)
    np.save(folder / "matrix.npy", series.adjacency.dense())
    answer(capsys, "convert", folder, "--data.step", "1 hour", "--out", tmp_path / "cedar.npz")
    found = GraphSeries.read(tmp_path / "cedar.npz")
    np.testing.assert_array_equal(found.values, series.values)
    assert found.step_seconds == 3600
    assert found.name == "cedar"


def test_data_and_config_commands(
    world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(capsys, "data", "describe", "--data", *world[0])["ash"]["nodes"] == 6
    assert list(answer(capsys, "data", "check", "--data", world[1])) == ["cedar"]
    assert "metr_la_week" in answer(capsys, "data", "list")
    shown = answer(capsys, "config", "show", "--preset", "pemes-bay/v_GWN/Trans1", "--seed", 7)
    assert shown["data"]["target"] == "pems-bay"
    assert shown["seed"] == 7
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nkind = "gwn"\n')
    assert answer(capsys, "config", "check", file) == {"valid": True}
    assert len(answer(capsys, "config", "list")["presets"]) == 144


def test_wrong_uses_are_refused_in_one_line(
    trained: Path, world: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    short, wide = city("short", days=3), city("wide", channels=2)
    for one in (short, wide, replace(short, name="ash")):
        one.write(tmp_path / f"{one.name}.npz")
    begin = ("--run", out, *FLAGS)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", *begin), "--data: no source city"),
        (("run", "--data", *world[0], *begin), "--target: no target city"),
        (("train", "--data", world[0][0], world[0][0], *begin[:2], "--target", tmp_path / "no.npz", *FLAGS), "no.npz"),
        (("run", "--data", *world[0], "--target", world[0][1], *begin), "birch is a source city too"),
        (("run", "--data", *world[0], "--target", world[1], "--days", 30, *begin), "expected at least 30"),
        (("run", "--data", *world[0], "--target", tmp_path / "wide.npz", *begin), "wide: 2 channels"),
        (("train", "--data", *world[0], "--run", trained, *FLAGS), "exists already"),
        (("train", "--preset", "metr-la/gwn/pre-inductiv"), "did you mean 'metr-la/gwn/pre-inductive'?"),
        (("train", "--resume", trained, "--fit.epochs", 9), "--resume: fit.epochs differs"),
        (("generate", trained, "--seed", 9), "--seed: 9, but the run has 3"),
        (("finetune", trained, "--finetune.epochs", 9), "finetune.epochs 2, now 9"),
        (("evaluate", trained, "--nodes", "oak"), "--nodes: no node 'oak' in cedar"),
        (("evaluate", trained, "--out", tmp_path / "nowhere"), "nowhere: no such folder"),
        (("predict", trained, "--out", tmp_path / "x.xlsx"), "expected .csv, .parquet, .npz"),
        (("predict", trained, "--out", tmp_path / "no" / "x.npz"), "does not exist"),
        (("predict", trained, "--data", *world[0], "--out", tmp_path / "x.csv"), "--data: 2 cities"),
        (("predict", tmp_path / "none", "--out", tmp_path / "x.csv"), "expected the folder of a run"),
        (("predict", trained, "--data", tmp_path / "short.npz", "--rows", "finetune", "--out", tmp_path / "x.csv"),
         "no fine-tuned node models for all nodes of short"),
    ]  # fmt: skip
    for words, message in cases:
        assert message in refused(capsys, *words), words
    assert not out.exists()
    assert not (tmp_path / "x.csv").exists()


def test_help_imports_no_torch() -> None:
    code = ("import sys; from gpd.cli import main; main(['--help']); main(['run', '--help']); "
            "print('torch' in sys.modules, 'numpy' in sys.modules)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert "finetune" in done.stdout
