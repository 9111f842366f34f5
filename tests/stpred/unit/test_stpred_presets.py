"""Every preset builds at its full size, and trains two steps at a reduced one; parameters as published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stcore.configuration import from_plain, to_plain
from stcore.grids import GridSeries
from stcore.splits import Parts
from stcore.training.config import LoopConfig
from stpred.config import DEMO, PRESETS, EvaluateConfig, TrainConfig
from stpred.importing import FRAMES
from stpred.models import MODELS, FrameShape, build
from stpred.train import train

DATASETS = {name: frames.shape for name, frames in FRAMES.items()}
PUBLISHED = {
    # Sizes of the original's six networks, parameters without use included.
    "moving-mnist/convlstm": 8_183_808,
    "kth/convlstm": 9_363_456,
    "taxibj/convlstm": 9_001_472,
}
MILLIONS = {
    # Rounded to a tenth, as OpenSTL's model zoo prints them.
    "moving-mnist/predrnn": 23.8,
    "moving-mnist/predrnnv2": 23.9,
    "moving-mnist/phydnet": 3.1,
    "moving-mnist/mau": 4.5,
}


def parameters(config: TrainConfig, shape: FrameShape) -> int:
    with torch.device("meta"):
        model = build(config.model, shape, history=config.data.history)
    return sum(parameter.numel() for parameter in model.parameters())


def test_there_is_a_preset_for_every_published_row() -> None:
    models = {"convlstm", "trajgru", "openstl-convlstm", "openstl-convlstm-large", "predrnn", "predrnnpp", "predrnnv2",
              "mim", "e3dlstm", "phydnet", "mau"}  # fmt: skip
    assert set(PRESETS) == {f"{dataset}/{model}" for dataset in DATASETS for model in models} | {"demo"}
    assert {config.model.kind for config in PRESETS.values()} == set(MODELS)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "demo"])
def test_preset_builds_at_its_full_size(name: str) -> None:
    count = parameters(PRESETS[name], DATASETS[name.split("/")[0]])
    assert count == PUBLISHED.get(name, count)
    if name in MILLIONS:
        assert count / 1e6 == pytest.approx(MILLIONS[name], abs=0.1)
    assert 1e6 < count < 1e8


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_a_file(name: str) -> None:
    assert from_plain(TrainConfig, json.loads(json.dumps(to_plain(PRESETS[name]))), where=name) == PRESETS[name]


@pytest.mark.parametrize(("name", "expected"), [
    ("moving-mnist/convlstm", {"rate": 1e-3, "batch": 8, "epochs": 1000, "schedule": "constant", "horizon": 10}),
    ("kth/trajgru", {"rate": 1e-4, "batch": 4, "epochs": 1000, "schedule": "constant", "horizon": 10}),
    ("taxibj/mim", {"rate": 1e-2, "batch": 16, "epochs": 50, "schedule": "cosine", "horizon": 4}),
    ("kth/e3dlstm", {"rate": 5e-4, "batch": 8, "epochs": 100, "schedule": "one-cycle", "horizon": 20}),
    ("moving-mnist/mau", {"rate": 1e-3, "batch": 16, "epochs": 200, "schedule": "one-cycle", "horizon": 10}),
])  # fmt: skip
def test_presets_have_the_published_settings(name: str, expected: dict[str, Any]) -> None:
    config = PRESETS[name]
    found = {"rate": config.optimiser.learning_rate, "batch": config.data.batch, "epochs": config.fit.epochs,
             "schedule": config.schedule.kind, "horizon": config.data.horizon}  # fmt: skip
    assert found == expected


def reduced(config: TrainConfig) -> TrainConfig:
    """Return a run of the same kind that takes a moment: narrow layers, short windows, two steps."""
    model: Any = config.model
    widths = {"trajgru": (4, 4, 4), "phydnet": (8, 8, 16), "convlstm": (4, 4, 4)}.get(model.kind, (4, 4))
    narrow: dict[str, Any] = {"hidden": widths}
    if model.kind == "trajgru":
        narrow |= {
            "stem": 4,
            "links": (2, 2, 2),
            "forecast_links": (2, 2, 2),
            "up": (0, 0),
            "clamp_in_loss": False,
        }  # so narrow a network may start outside the range

    if model.kind == "phydnet":
        narrow |= {"encoder_width": 16, "width": 16}
    if model.kind == "convlstm":
        narrow |= {"kernels": (3, 3, 3)}
    if hasattr(model, "kernel") and model.kind != "phydnet":
        narrow |= {"kernel": 3}
    return replace(
        config, model=replace(model, **narrow), data=replace(config.data, history=3, horizon=2, batch=2),
        evaluate=EvaluateConfig(), fit=LoopConfig(epochs=1, max_steps=2, log_every=1, accumulate=config.fit.accumulate),
    )  # fmt: skip


def parts_of(shape: FrameShape) -> Parts[Any]:
    rng = np.random.default_rng(0)

    def part(frames: int) -> GridSeries:  # fmt: skip
        values = rng.integers(0, 255, (frames, shape.channels, 32, 32)).astype(np.uint8)
        return GridSeries(values=values, value_range=(0, 255))

    return Parts(part(12), part(5), part(5))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "demo"])
def test_preset_trains_two_steps(name: str, tmp_path: Path) -> None:
    config = reduced(PRESETS[name])
    config = replace(config, data=replace(config.data, windows="forward"))
    parts = parts_of(DATASETS[name.split("/")[0]])
    result = train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    lines = [json.loads(line) for line in result.run.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert lines[0]["train/gradient_norm"] > 0
    assert result.best == lines[-1]["val/mse"] > 0


def test_demo_preset_is_small() -> None:
    assert parameters(DEMO, FrameShape(1, 32, 32)) < 1e6
