"""`gpd demo` on small cities: every stage, the report, pictures; the simulated ones are three sources and a target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from gpd_worlds import SMALL, cities

import gpd.demo
from gpd.cli import main
from gpd.data import SIMULATED, read_sources, read_target
from gpd.presets import DEMO
from stcore.training.checkpoint import load_checkpoint


def test_the_demo_does_the_whole_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, target = cities()
    monkeypatch.setattr(gpd.demo, "DEMO", replace(SMALL, data=replace(DEMO.data)))
    monkeypatch.setattr(gpd.demo, "simulated", lambda seed: [*sources, target])
    folder = tmp_path / "run"
    assert main(["demo", "--run", str(folder), "--seed", "5", "--device", "cpu", "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["seed"] == 5
    assert found["facts"]["sources"] == ["ash", "birch"]
    assert len(found["tables"]) == 11
    pictures = [Path(file) for file in found["files"] if file.endswith(".png")]
    assert len(pictures) == 6
    assert all(picture.stat().st_size > 1000 for picture in pictures)
    assert load_checkpoint(folder / "checkpoints/best.safetensors").metadata["preset"] == "demo"


def test_the_simulated_cities_are_sources_and_a_target() -> None:
    assert DEMO.data.source == (SIMULATED,)
    sources, target = read_sources(DEMO), read_target(DEMO)
    assert [city.name for city in sources] == ["city-1", "city-2", "city-3"]
    assert target.name == "city-4"
    assert target.few.num_steps == 3 * target.series.steps_per_day
    assert not set(target.few.times.tolist()) & set(target.test.times.tolist())  # pyright: ignore[reportOptionalMemberAccess]
