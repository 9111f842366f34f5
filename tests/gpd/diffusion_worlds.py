"""Small tables of rows and prompts for tests of the diffusion stage: rows are a linear function of the prompts."""

from __future__ import annotations

from dataclasses import replace

import torch

from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, SamplingConfig
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, row_size
from gpd.prompts.table import Prompts
from gpd.rows import RowTable
from stcore.training.config import LoopConfig

MODEL = NodeModelConfig(kind="mlp", history=6, horizon=2, channels=4, layers=1)
DENOISER = DenoiserConfig(width=16, blocks=1, heads=2, head_dim=4, value_dim=4, feedforward=16, channels=8, dropout=0.0)
DIFFUSION = DiffusionConfig(steps=20, batch=4, repeat=2, learning_rate=1e-2, ema_after=2, ema_every=1)
FIT = LoopConfig(epochs=2, ema_decay=0.9, log_every=1, checkpoint_every=1)
SAMPLING = SamplingConfig(steps=4, batch=4)


def world(nodes: int = 6, *, cities: tuple[str, ...] = ("a", "b"), spread: float = 0.3) -> tuple[RowTable, Prompts]:
    """Return rows and prompts of `nodes` nodes in each city."""
    draw = torch.Generator().manual_seed(5)
    count, numbers = nodes * len(cities), row_size(build_node_model(MODEL, 2).spec)
    both = torch.randn(count, 7, generator=draw)
    rows = 2.0 + torch.randn(numbers, generator=draw) + spread * both @ torch.randn(7, numbers, generator=draw)
    names = tuple(city for city in cities for _ in range(nodes))
    ids = tuple(f"n{node}" for _ in cities for node in range(nodes))
    table = RowTable(rows=rows, model=MODEL, features=2, cities=names, nodes=ids)
    prompts = Prompts(spatial=both[:, :3].numpy(), temporal=both[:, 3:].numpy(), cities=names, nodes=ids)
    return table, prompts


def denoiser(**changes: object) -> DenoiserConfig:
    """Return the small denoiser with other options."""
    return replace(DENOISER, **changes)  # pyright: ignore[reportArgumentType]
