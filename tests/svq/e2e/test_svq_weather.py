"""WeatherBench in miniature through the command line, under both protocols, and as a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from weather_miniature import write_weather

from svq.cli import main

YEARS = ("--data.years", "2014", "2015", "2016", "2016", "2017", "2018")
MODEL = ("--data.history", "4", "--data.horizon", "4", "--data.batch", "8", "--data.no-drop-last",
         "--model.hid-spatial", "4", "--model.hid-temporal", "8", "--model.depth-temporal", "2",
         "--quantizer.codebook-size", "12", "--quantizer.middle", "4", "--fit.epochs", "1", "--fit.max-steps", "2",
         "--device", "cpu", "--quiet")  # fmt: skip


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    assert main([*map(str, words), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    years = {2014: 30, 2015: 30, 2016: 30, 2017: 30, 2018: 30}
    return write_weather(tmp_path_factory.mktemp("weather"), ("t2m",), years)


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_a_preset_runs_on_an_archive_under_both_protocols(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    words = ("--preset", "t2m/svq-gsta", "--data", archive, "--data.protocol", protocol, *YEARS, *MODEL)
    assert answer(capsys, "train", *words, "--run", tmp_path / "run")["protocol"] == protocol
    found = answer(capsys, "evaluate", tmp_path / "run", "--no-figures", "--limit", 6)
    said = "; validation and test both on 2017 to 2018" if protocol == "paper" else ", validated on 2016, tested on"
    assert found["facts"]["protocol"].startswith(f"protocol {protocol}: trained on 2014 to 2015{said}")
    assert found["facts"]["protocol_name"] == protocol
    assert found["facts"]["units"] == ["K"]
    assert found["by_lead"]["svq"]["rmse_weighted"][0] > 0
    assert len(found["by_lead"]["damped persistence"]["rmse"]) == 4


def test_an_archive_becomes_a_store_with_its_parts(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = ("--data.format", "weatherbench", "--data.variable", "t2m", *YEARS)
    found = answer(capsys, "convert", archive, *reading, "--out", tmp_path / "t2m.zarr")
    assert (found["frames"], found["channels"]) == (150, ["t2m"])
    described = answer(capsys, "data", "describe", "--data", tmp_path / "t2m.zarr")["all"]
    assert (described["frames"], described["clips"]) == (150, 3)
    words = ("--preset", "t2m/svq-gsta", "--data", tmp_path / "t2m.zarr", *MODEL)
    whole = answer(capsys, "train", *words, "--run", tmp_path / "store")
    direct = ("--preset", "t2m/svq-gsta", "--data", archive, *YEARS, *MODEL)
    again = answer(capsys, "train", *direct, "--run", tmp_path / "archive")
    assert whole["best"] == pytest.approx(again["best"], rel=1e-6)
    assert main(["train", *map(str, words), "--data.protocol", "paper", "--run", str(tmp_path / "paper")]) == 2
    assert "a store; expected the folders of WeatherBench" in capsys.readouterr().err
