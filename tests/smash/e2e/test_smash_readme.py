"""Every command and every piece of Python in smash's README, run as it stands there on a world in miniature."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import smash.train
from smash import demo, rollout
from smash.cli import main
from smash.config import LossConfig, ModelConfig, TrainConfig
from stcore import figures
from stcore.generate.events import clustered_city

README = Path(__file__).parents[3] / "packages/smash/README.md"
TINY = ["--model.width", "4", "--model.layers", "1", "--loss.perturbations", "2", "--data.batch-sequences", "4",
        "--sampler.samples", "20", "--sampler.location-steps", "4", "--fit.epochs", "2", "--quiet"]  # fmt: skip
"""Appended to every training command; what follows from it (sampler and all) is read from the run."""
SMALLER = {"train": TINY, "speed": ["--events", "2", "--repeats", "1", "--sampler.langevin-steps", "4",
                                    "--sampler.refine-steps", "2"]}  # fmt: skip
DISTRICT = {"type": "Polygon", "coordinates": [[[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]]]}


def _blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    return [text for tag, text in found if tag == language]


def _commands() -> list[list[str]]:
    lines = "\n".join(_blocks("")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("smash ")]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the files that the README speaks of, in miniature, and a shorter demo."""
    world = clustered_city()
    world.simulate(20, duration=20.0, seed=1).write(tmp_path / "events.csv")
    world.simulate(3, duration=8.0, seed=2).write(tmp_path / "new.csv")
    (tmp_path / "district.geojson").write_text(json.dumps(DISTRICT))
    _write_catalogues(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STCORE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(rollout, "MOST_EVENTS", 6)
    monkeypatch.setattr(figures, "save_figure", partial(figures.save_figure, dots_per_inch=50))
    monkeypatch.setattr(demo, "SEQUENCES", 24)
    monkeypatch.setattr(demo, "DURATION", 8.0)
    monkeypatch.setattr(demo, "CONFIG", _tiny(demo.CONFIG))
    (tmp_path / "figures").mkdir()
    return tmp_path


def _tiny(config: TrainConfig) -> TrainConfig:
    return replace(config, model=ModelConfig(width=4, layers=1), loss=LossConfig(perturbations=2),
                   sampler=replace(config.sampler, samples=20, location_steps=4), fit=replace(config.fit, epochs=2),
                   data=replace(config.data, batch_sequences=4))  # fmt: skip


def _write_catalogues(folder: Path) -> None:
    """Write files like those of the named data sets, and one of a user's own."""
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 1200, 400)).astype("timedelta64[D]") + np.datetime64("1965-01-02")
    magnitudes = np.round(5.5 - 0.7 * np.log(rng.random(400)), 1)
    rows = [(day, *rng.uniform(-60.0, 60.0, 2).round(3), size) for day, size in zip(days, magnitudes, strict=True)]
    dates = [f"{str(row[0])[5:7]}/{str(row[0])[8:10]}/{str(row[0])[:4]}" for row in rows]
    quakes, bikes = folder / "data/world_quakes", folder / "data/dstpp_citibike"
    quakes.mkdir(parents=True)
    bikes.mkdir()
    lines = [f"{date},{y},{x},{size}" for date, (_, y, x, size) in zip(dates, rows, strict=True)]
    (quakes / "earthquakes-23k.csv").write_text("\n".join(["Date,Latitude,Longitude,Magnitude", *lines]) + "\n")
    own = [f"{day}T12:30:00,{x},{y},{size}" for day, y, x, size in rows]
    (folder / "quakes.csv").write_text("\n".join(["time,longitude,latitude,magnitude", *own]) + "\n")
    for part, sequences in (("val", 12), ("test", 4)):
        rides = [[[float(hour), *rng.normal([-74.0, 40.7], 0.02)] for hour in np.sort(rng.uniform(0.0, 24.0, 9))]
                 for _ in range(sequences)]  # fmt: skip
        (bikes / f"data_{part}.pkl").write_bytes(
            pickle.dumps([[list(map(float, ride)) for ride in day] for day in rides])
        )


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_schema(path).names
    return path.read_text().splitlines()[0].replace('"', "").split(",")


def _documented() -> list[re.Pattern[str]]:
    """Return a pattern for each column of the table that says what columns mean."""
    cells = re.findall(r"^\| (`[^|]*) \|", README.read_text().partition("What the columns mean")[2], re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    return [
        re.compile(re.sub(r"<\w+>", ".+", re.escape(name).replace(r"\<", "<").replace(r"\>", ">"))) for name in names
    ]


def test_commands_and_python_of_the_readme_do_what_they_say(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _commands()
    assert {words[0] for words in commands} == {"demo", "data", "train", "evaluate", "predict", "sample", "speed",
                                                "config", "intensity"}  # fmt: skip
    for words in commands:
        code = main([*words, *_smaller(words)])
        assert code == 0, f"smash {shlex.join(words)}: {capsys.readouterr().err}"
    _check_products(workplace, [words for words in commands if words[0] in ("predict", "intensity", "sample")])
    _run_python(monkeypatch, workplace)


def _smaller(words: list[str]) -> list[str]:
    """Return flags that make a command quick: small models and few samples, and figures of one evaluation only."""
    if words[0] == "evaluate" and "runs/mine" not in words:
        return ["--no-figures"]
    return [] if "--resume" in words else SMALLER.get(words[0], [])


def _check_products(folder: Path, commands: list[list[str]]) -> None:
    documented = _documented()
    for words in commands:
        out = folder / words[words.index("--out") + 1]
        for column in _columns(out):
            assert any(pattern.fullmatch(column) for pattern in documented), f"{out.name}: {column}"
        if "--figures" in words:
            assert list((folder / words[words.index("--figures") + 1]).glob("*.png")), shlex.join(words)
    with (folder / "chance.csv").open() as file:
        for row in csv.DictReader(file):
            assert 0.0 <= float(row["p_event_low"]) <= float(row["p_event"]) <= float(row["p_event_high"]) <= 1.0
    assert len(json.loads((folder / "regions.geojson").read_text())["features"]) == 3 * 2
    assert (folder / "figures/rate.png").stat().st_size > 1000
    assert (folder / "runs/mine/calibration.json").is_file() and (folder / "runs/mine/rivals.json").is_file()


def _run_python(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Run the README's Python from top to bottom, training in miniature."""
    whole = smash.train.train
    monkeypatch.setattr(smash.train, "train", lambda config: whole(_tiny(config), run=folder / "python", quiet=True))
    names: dict[str, Any] = {}
    first, second = _blocks("python")
    exec(compile(first, str(README), "exec"), names)
    assert {"sequence_id", "time_0.5", "x", "y", "p_theft"} <= set(names["table"])
    exec(compile(second, str(README), "exec"), names)
    sequences = len(names["events"].sequence_id)
    assert len(names["intervals"]) == len(names["mended"]) == len(names["chance"]) == sequences
    assert len(names["ahead"]) == 5 * sequences and len(names["rate"]) == 500 * sequences
    assert (names["intervals"]["gap_low_0.5"] >= names["intervals"]["gap_low_0.9"] - 1e-12).all()
