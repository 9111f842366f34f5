"""Small data and sizes for the tests of svq: seconds of training, everything made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from stcore.generate.advection import Advection
from stcore.grids import GridSeries
from stcore.splits import Parts
from stcore.training.config import LoopConfig
from svq.config import EvaluateConfig, TrainConfig

WORLD = Advection(height=8, width=16)
SMALL = ("--preset", "demo", "--data.history", "3", "--data.horizon", "2", "--data.batch", "8",
         "--model.hid-spatial", "4", "--model.hid-temporal", "8", "--model.depth-temporal", "2",
         "--quantizer.codebook-size", "20", "--quantizer.middle", "6", "--fit.epochs", "2",
         "--fit.checkpoint-every", "1", "--fit.log-every", "1", "--device", "cpu", "--quiet")  # fmt: skip
"""Flags of a training that takes a moment."""


def weather(frames: int = 30, *, seed: int = 0) -> GridSeries:
    """Return hours of weather on a small globe."""
    return WORLD.series(frames, seed=seed)


def weather_file(folder: Path, name: str = "weather.npz", *, frames: int = 30, gaps: bool = False) -> Path:
    """Write hours of weather, with land where nothing is known if wanted, and return where."""
    series = weather(frames)
    if gaps:
        mask = np.ones((8, 16), dtype=bool)
        mask[2:4, 5:9] = False
        series = replace(series, mask=mask)
    series.write(folder / name)
    return folder / name


def small_parts(channels: int, side: tuple[int, int] = (16, 16), *, frames: int = 24) -> Parts[GridSeries]:
    """Return three parts of noise with a range, as pictures have one."""
    rng = np.random.default_rng(0)

    def part(count: int) -> GridSeries:
        values = rng.integers(0, 255, (count, channels, *side)).astype(np.uint8)
        return GridSeries(values=values, value_range=(0, 255))

    return Parts(part(frames), part(frames), part(frames))


def reduced(config: TrainConfig) -> TrainConfig:
    """Return a run of the same kind that takes a moment: narrow layers, few codes, two steps."""
    model = replace(config.model, hid_spatial=8, hid_temporal=16, depth_temporal=2, mlp_ratio=2.0)
    kind = config.quantizer.kind
    codes = 16 if kind in ("lfq", "residual-lfq") else 12
    quantizer = replace(config.quantizer, codebook_size=codes, middle=4, heads=2, head_dim=4, quantizers=2,
                        levels=(3, 3), groups=2)  # fmt: skip
    return replace(
        config, model=model, quantizer=quantizer,
        data=replace(config.data, batch=2, format="auto", variable=(), windows="forward"),
        evaluate=EvaluateConfig(), fit=LoopConfig(epochs=1, max_steps=2, log_every=1),
    )  # fmt: skip
