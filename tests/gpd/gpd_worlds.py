"""Small cities for tests: a daily course with a phase and a size of each node, by the hour, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gpd.config import DataConfig, EvaluateConfig, RunConfig
from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, SamplingConfig
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig
from stcore.graphs import Adjacency, GraphSeries
from stcore.training.config import LoopConfig

SMALL = RunConfig(
    data=DataConfig(days=3),
    model=NodeModelConfig(kind="mlp", history=6, horizon=2, channels=4, layers=1, dropout=0.0),
    pretrain=NodeTrainingConfig(epochs=2, learning_rate=1e-2, evaluate_every=1, split="chronological"),
    spatial=SpatialPromptConfig(dim=8),
    temporal=TemporalPromptConfig(dim=8),
    denoiser=DenoiserConfig(width=8, blocks=1, heads=2, head_dim=4, value_dim=4, feedforward=8, channels=8),
    diffusion=DiffusionConfig(steps=20, batch=8, repeat=2, learning_rate=1e-3),
    fit=LoopConfig(epochs=2, checkpoint_every=2, log_every=1, ema_decay=0.9),
    sampling=SamplingConfig(steps=4),
    finetune=NodeTrainingConfig(epochs=2, learning_rate=1e-3, evaluate_every=1, select_on="tail"),
    evaluate=EvaluateConfig(stride=6),
    seed=3,
)
"""Everything as small as it can be."""
FLAGS = (
    *("--device", "cpu", "--quiet", "--seed", "3", "--model.kind", "mlp", "--model.history", "6"),
    *("--model.horizon", "2", "--model.channels", "4", "--model.layers", "1", "--model.dropout", "0"),
    *("--pretrain.epochs", "2", "--pretrain.learning-rate", "1e-2", "--pretrain.evaluate-every", "1"),
    *("--pretrain.split", "chronological", "--spatial.dim", "8", "--temporal.dim", "8", "--denoiser.width", "8"),
    *("--denoiser.blocks", "1", "--denoiser.heads", "2", "--denoiser.head-dim", "4", "--denoiser.value-dim", "4"),
    *("--denoiser.feedforward", "8", "--denoiser.channels", "8", "--diffusion.steps", "20", "--diffusion.batch", "8"),
    *("--diffusion.repeat", "2", "--diffusion.learning-rate", "1e-3", "--fit.epochs", "2", "--fit.max-steps", "0"),
    *("--fit.checkpoint-every", "2", "--fit.log-every", "1", "--fit.ema-decay", "0.9", "--fit.clip-norm", "0"),
    *("--fit.evaluate-every", "1", "--sampling.steps", "4", "--finetune.epochs", "2"),
    *("--finetune.learning-rate", "1e-3", "--finetune.evaluate-every", "1", "--evaluate.stride", "6"),
)
"""The same as flags of a command that trains."""


def city(name: str, *, nodes: int = 6, days: int = 12, seed: int = 0, channels: int = 1) -> GraphSeries:
    """Return a ring of nodes whose readings rise and fall over the day, each at its own size and hour."""
    random = np.random.default_rng(seed)
    hour = np.arange(24 * days)[:, None]
    size, shift = random.uniform(5.0, 20.0, nodes), random.uniform(0.0, 24.0, nodes)
    values = 30.0 + size * np.sin(2.0 * np.pi * (hour - shift) / 24.0) + random.normal(0.0, 1.0, (24 * days, nodes))
    rings = np.eye(nodes) + np.roll(np.eye(nodes), 1, axis=1) + np.roll(np.eye(nodes), -1, axis=1)
    return GraphSeries(
        values=np.stack([values + 100.0 * channel for channel in range(channels)], axis=2).astype(np.float32),
        adjacency=Adjacency.from_dense(np.minimum(rings, 1.0)),
        nodes=tuple(f"{name}{node}" for node in range(nodes)),
        units=("km/h",) * channels,
        times=np.datetime64("2020-01-06T00:00:00", "s") + 3600 * np.arange(24 * days),
        coordinates=np.stack([np.cos(2.0 * np.pi * np.arange(nodes) / nodes),
                              np.sin(2.0 * np.pi * np.arange(nodes) / nodes)], axis=1),
        name=name,
    )  # fmt: skip


def cities() -> tuple[list[GraphSeries], GraphSeries]:
    """Return two sources and a target."""
    return [city("ash", seed=1), city("birch", nodes=5, seed=2)], city("cedar", nodes=4, seed=3)


def files(folder: Path) -> tuple[list[Path], Path]:
    """Write two sources and a target, and return where."""
    sources, target = cities()
    for one in (*sources, target):
        one.write(folder / f"{one.name}.npz")
    return [folder / f"{one.name}.npz" for one in sources], folder / "cedar.npz"


def small(folder: Path, **changes: object) -> RunConfig:
    """Return the small configuration for the cities that `files` wrote."""
    sources, target = files(folder)
    data = replace(SMALL.data, source=tuple(map(str, sources)), target=str(target))
    return replace(SMALL, data=data, **changes)  # pyright: ignore[reportArgumentType]
