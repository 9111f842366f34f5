"""Generate rows of parameters for nodes by their prompts.

The noise of a node is a function of the seed, its city and its name alone, so neither the size of batches nor which
other nodes are asked for changes what it gets (beyond rounding). The original draws from weights in training mode,
without average, and keeps every state on the way; here the average is used, and only the rows are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gpd.diffusion.configs import SamplingConfig
from gpd.diffusion.samplers import Denoise, sample
from gpd.diffusion.schedule import Tokens, clean_from
from gpd.diffusion.trained import TrainedDiffusion
from gpd.prompts.table import Prompts
from gpd.rows import RowTable
from stcore.errors import UserError
from stcore.sampling import derive_seed
from stcore.training.progress import Progress
from stcore.training.ranks import pick_device

Spatial = Float[Tensor, "row spatial"]
Temporal = Float[Tensor, "row temporal"]


def generate(
    source: Path | TrainedDiffusion,
    prompts: Prompts,
    sampling: SamplingConfig,
    seed: int = 42,
    *,
    device: str = "auto",
    quiet: bool = True,
) -> Float[Tensor, "node number"]:
    """Return a row for each node of `prompts`.

    Args:
        source: a run, one of its checkpoint files, or a model that is loaded already.
        prompts: of the nodes that want a network.
        sampling: method, steps, bounds, guidance.
        seed: of the noise.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        UserError: there is no such model, or the prompts are not those that it was trained with.
    """
    place = pick_device(device)
    trained = source if isinstance(source, TrainedDiffusion) else TrainedDiffusion.load(source)
    require_fitting(trained, prompts, sampling)
    trained.denoiser.to(place)
    rows = torch.empty(len(prompts), trained.layout.numbers)
    batches = -(-len(prompts) // sampling.batch)
    with torch.inference_mode(), Progress(batches, done=0, visible=not quiet) as progress:
        for number in range(batches):
            part = slice(number * sampling.batch, (number + 1) * sampling.batch)
            # Each batch is written where it belongs: joining them would need all rows twice.
            rows[part] = _batch(trained, prompts.take(np.arange(len(prompts))[part]), sampling, seed, place)
            progress.update(number + 1, f"{min(part.stop, len(prompts))} of {len(prompts)} rows")
    return rows


def generate_table(
    source: Path | TrainedDiffusion,
    prompts: Prompts,
    sampling: SamplingConfig,
    seed: int = 42,
    *,
    device: str = "auto",
    quiet: bool = True,
) -> RowTable:
    """Return what `generate` does as a table, which knows the networks that its rows are of."""
    trained = source if isinstance(source, TrainedDiffusion) else TrainedDiffusion.load(source)
    rows = generate(trained, prompts, sampling, seed, device=device, quiet=quiet)
    return RowTable(rows=rows, model=trained.model, features=trained.features, cities=prompts.cities,
                    nodes=prompts.nodes, metadata={"generated_by": trained.checkpoint.name, "seed": seed})  # fmt: skip


def require_fitting(trained: TrainedDiffusion, prompts: Prompts, sampling: SamplingConfig) -> None:
    """Refuse prompts of other widths, and guidance of a model that never went without prompts.

    Raises:
        UserError: names both widths, or the option.
    """
    found = prompts.spatial.shape[1], prompts.temporal.shape[1]
    for name, width, expected in zip(("spatial", "temporal"), found, trained.dims, strict=True):
        if width != expected:
            raise UserError(f"prompts: {width} numbers in the {name} ones; expected {expected}, as "
                            f"{trained.checkpoint} was trained with; compute them in the same way")  # fmt: skip
    if sampling.guidance != 1.0 and trained.stage.diffusion.prompt_dropout == 0.0:
        raise UserError(f"sampling.guidance: {sampling.guidance:g} for a model that always saw its prompts; expected "
                        "1, or a model trained with diffusion.prompt-dropout above 0")  # fmt: skip


def _batch(
    trained: TrainedDiffusion, prompts: Prompts, sampling: SamplingConfig, seed: int, place: torch.device
) -> Float[Tensor, "row number"]:
    shape = trained.layout.tokens, trained.layout.channels
    schedule = trained.schedule.to(place)
    spatial, temporal = (torch.tensor(each, device=place) for each in (prompts.spatial, prompts.temporal))
    denoise = denoiser_of(replace(trained, schedule=schedule), spatial, temporal, sampling)
    total: Tensor | None = None
    for number in range(sampling.draws):
        names = list(zip(prompts.cities, prompts.nodes, strict=True))
        noise = NodeNoise([derive_seed(seed, "row", *name, number) for name in names], shape, place)
        found = sample(schedule, denoise, noise, sampling)
        total = found if total is None else total + found
    if total is None:
        raise RuntimeError("no draws")
    tokens = total / sampling.draws
    return trained.scaling.restore(trained.layout.to_rows(tokens)).cpu()


def denoiser_of(trained: TrainedDiffusion, spatial: Spatial, temporal: Temporal, sampling: SamplingConfig) -> Denoise:
    """Return what guesses clean rows: the denoiser at these prompts, guided and within bounds."""
    low, high = bounds_of(trained, sampling, spatial.device)

    def denoise(x: Tokens, t: int) -> Tokens:
        times = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
        output = trained.denoiser(x, times, spatial, temporal)
        if sampling.guidance != 1.0:
            free = trained.denoiser(x, times, torch.zeros_like(spatial), torch.zeros_like(temporal))
            output = free + sampling.guidance * (output - free)
        x0 = clean_from(trained.schedule, trained.stage.diffusion.objective, x, times, output)
        return x0 if low is None else x0.clamp(low, high)

    return denoise


def bounds_of(
    trained: TrainedDiffusion, sampling: SamplingConfig, place: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return the bounds of clean rows on the scale that they diffuse on."""
    if sampling.clip == "none":
        return None, None
    if sampling.clip == "legacy":
        return torch.tensor(-1.0, device=place), torch.tensor(1.0, device=place)
    both = torch.stack([trained.scaling.low, trained.scaling.high]).to(place)
    low, high = trained.layout.to_tokens(both)
    return low, high


class NodeNoise:
    """Noise of some nodes, each from a generator of its own; always drawn on the CPU, so that devices agree.

    Args:
        seeds: one for each node.
        shape: of a row's tokens.
        place: where the noise is wanted.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, int], place: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._place = shape, place

    def __call__(self) -> Tokens:
        return torch.stack([torch.randn(self._shape, generator=each) for each in self._generators]).to(self._place)
