"""Train the diffusion model over rows of parameters: what a step is and what is evaluated. The loop is the core's.

Rows are not repeated in memory, as they are in the original, but drawn again and again; step, noise and dropped prompts
of a row are functions of (seed, epoch, place in the epoch), so that they depend neither on ranks nor on where a run
was resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from gpd.diffusion.averaging import average_weights
from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, StageConfig
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.objective import losses_of
from gpd.diffusion.schedule import Schedule, noised
from gpd.diffusion.tokens import RowScaling, TokenLayout, make_layout
from gpd.prompts.table import Prompts
from gpd.rows import RowTable
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.sampling import Indices, derive_seed, in_batches, random_stream
from stcore.training.checkpoint import Checkpoint
from stcore.training.config import LoopConfig
from stcore.training.forwarded import Forwarded
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.ranks import make_accelerator, sum_over_ranks
from stcore.training.run import Run, load_for_resume
from stcore.training.starting import new_run

TokenRows = Float[Tensor, "row token channel"]

_LEVELS = 8
"""Steps of noise that a held-back row is judged at."""
_MOST_JUDGED = 128
"""Rows that weights are chosen by, at most."""


class RowBatch(NamedTuple):
    """Clean rows on the scale that they diffuse on, and the prompts of their nodes."""

    tokens: TokenRows
    spatial: Float[Tensor, "row spatial"]
    temporal: Float[Tensor, "row temporal"]


class Draws(NamedTuple):
    """What is random about a row in a step."""

    t: Int[Tensor, " row"]
    noise: TokenRows
    prompted: Bool[Tensor, "row 1"]
    """Whether the prompts are seen."""


def train_diffusion(
    table: RowTable,
    prompts: Prompts,
    denoiser: DenoiserConfig,
    diffusion: DiffusionConfig,
    fit_config: LoopConfig,
    *,
    run: Run | Path | None = None,
    resume: Path | None = None,
    seed: int = 42,
    preset: str = "custom",
    device: str = "auto",
    quiet: bool = False,
) -> FitResult:
    """Train the diffusion model on all rows of a table and keep it in a run directory.

    Args:
        table: rows of the source cities; leave the target's out (`table.without(city)`).
        prompts: of at least the nodes of the table.
        denoiser: strategy and sizes.
        diffusion: schedule, objective, batches.
        fit_config: length and cadence of the training; `ema_decay` is that of the average of the weights, which is
            what is evaluated and kept.
        run: a run that is there already, or a folder for a new one; None makes a fresh one under `runs/`.
        resume: a run or one of its checkpoint files to go on with.
        seed: of weights, order and noise.
        preset: name that a fresh folder gets.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        UserError: a row has no prompt, or the run to go on with was made from other rows or prompts.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    stage = StageConfig(denoiser=denoiser, diffusion=diffusion, fit=fit_config, seed=seed)
    prompts = prompts.matched(table.cities, table.nodes)
    directory, checkpoint = load_for_resume(resume) if resume else (None, None)
    facts = facts_of(stage, table, prompts, preset=preset)
    if checkpoint is not None:
        facts["preset"] = checkpoint.metadata.get("preset", preset)
        require_same(checkpoint, facts)
    layout = make_layout(table.spec, denoiser.layout, denoiser.channels_for(table.rows.shape[1]))
    trained_on, judged = split_rows(table, diffusion, seed)
    scaling = RowScaling.fit(table.rows[trained_on], layout, diffusion.scaling)
    everything = RowSource(table.rows, prompts, layout, scaling)
    accelerator = make_accelerator(device, fit_config.precision)
    objective = Objective(make_denoiser(stage, layout, prompts), diffusion, layout.trained)
    optimiser = torch.optim.Adam(objective.parameters(), lr=diffusion.learning_rate, betas=(0.9, diffusion.beta2))
    validate = Validation(everything, judged, diffusion, seed, rank=int(accelerator.process_index),
                          ranks=int(accelerator.num_processes), device=accelerator.device)  # fmt: skip
    directory = directory or (run if isinstance(run, Run) else None)
    return fit(
        objective, TrainStep(diffusion, seed), RowBatches(everything, trained_on, diffusion, seed), optimiser,
        config=fit_config, seed=seed, facts=facts, constants=scaling.constants(),
        run=directory or new_run(_folder(run), stage, package="gpd", preset=preset, accelerator=accelerator),
        evaluate=validate if len(judged) else None, select=Select("val/loss", min_delta=fit_config.min_delta),
        ema=average_weights(objective, fit_config.ema_decay, after=diffusion.ema_after, every=diffusion.ema_every),
        resume=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip


def _folder(run: Run | Path | None) -> Path | None:
    return run.folder if isinstance(run, Run) else run


@dataclass(frozen=True)
class RowSource:
    """Rows with their prompts, scaled and cut into tokens when they are asked for."""

    rows: Float[Tensor, "row number"]
    prompts: Prompts
    layout: TokenLayout
    scaling: RowScaling

    def take(self, index: Indices) -> RowBatch:
        """Return some rows."""
        tokens = self.layout.to_tokens(self.scaling.scale(self.rows[torch.as_tensor(index)]))
        # Copies, since the arrays of prompts are read-only, which tensors cannot say.
        spatial, temporal = (np.array(each[index]) for each in (self.prompts.spatial, self.prompts.temporal))
        return RowBatch(tokens, torch.from_numpy(spatial), torch.from_numpy(temporal))


@dataclass(frozen=True)
class RowBatches:
    """Batches of an epoch: `repeat` passes over the training rows, each in an order of its own."""

    source: RowSource
    index: Indices
    """Rows that are trained on."""
    config: DiffusionConfig
    seed: int

    def order(self, epoch: int) -> Sequence[Indices]:
        """Return places in the epoch; a place is a pass and a row, and its noise is its own."""
        count = len(self.index)
        passes = [
            random_stream(self.seed, "order", epoch, number).permutation(count) + number * count
            for number in range(self.config.repeat)
        ]
        batches = in_batches(np.concatenate(passes).astype(np.int64), self.config.batch)
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) < self.config.batch else batches

    def load(self, epoch: int, ids: Indices) -> RowBatch:
        """Return the rows at these places."""
        return self.source.take(self.index[ids % len(self.index)])

    def names(self, ids: Indices) -> list[str]:
        """Return city and node of each place."""
        prompts = self.source.prompts
        rows = self.index[ids % len(self.index)]
        return [f"{prompts.cities[row]}/{prompts.nodes[row]}" for row in rows]


class Objective(Forwarded):
    """A denoiser whose `forward` is what training calls: the loss of each row.

    Args:
        module: the denoiser.
        config: schedule, target and loss.
        trained: numbers of the tokens that count.
    """

    module: Denoiser
    trained: Tensor

    def __init__(self, module: Denoiser, config: DiffusionConfig, trained: Bool[Tensor, "token channel"]) -> None:
        super().__init__(module)
        self.config = config
        self.schedule = Schedule.make(config.steps, config.schedule, config.beta_scale)
        self.register_buffer("trained", trained, persistent=False)

    def forward(self, batch: RowBatch, draws: Draws) -> Float[Tensor, " row"]:
        x0, device = batch.tokens, batch.tokens.device
        if self.schedule.betas.device != device:
            self.schedule = self.schedule.to(device)
        x = noised(self.schedule, x0, draws.t, draws.noise)
        output = self.module(x, draws.t, batch.spatial * draws.prompted, batch.temporal * draws.prompted)
        return losses_of(self.schedule, self.config, output.float(), x0, draws.t, draws.noise, trained=self.trained)


class TrainStep:
    """One training step: the mean loss of the rows of a batch, each at a step of noise of its own."""

    def __init__(self, config: DiffusionConfig, seed: int) -> None:
        self._config, self._seed = config, seed

    def __call__(self, model: nn.Module, batch: RowBatch, context: StepContext) -> Loss:
        seeds = [derive_seed(self._seed, "diffusion", context.epoch, int(place)) for place in context.ids]
        losses = model(batch, draw(seeds, batch.tokens, self._config))
        return Loss(losses.mean(), float(len(losses)))


def draw(seeds: Sequence[int], tokens: TokenRows, config: DiffusionConfig) -> Draws:
    """Draw step, noise and whether prompts are seen for each row, from a seed of its own."""
    device = tokens.device
    generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    t = [torch.randint(config.steps, (1,), generator=each, device=device) for each in generators]
    seen = [torch.rand(1, generator=each, device=device) >= config.prompt_dropout for each in generators]
    noise = torch.stack([torch.randn(tokens.shape[1:], generator=each, device=device) for each in generators])
    return Draws(torch.cat(t), noise, torch.stack(seen))


class Validation:
    """Loss on rows that are not trained on, at the same steps and with the same noise every time."""

    def __init__(
        self, source: RowSource, index: Indices, config: DiffusionConfig, seed: int, *, rank: int, ranks: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._source, self._config, self._seed = source, config, seed
        self._rank, self._ranks, self._device = rank, ranks, device
        self._places = np.arange(len(index) * _LEVELS, dtype=np.int64)
        self._index = index

    def __call__(self, model: nn.Module) -> dict[str, float]:
        total, mine = 0.0, np.array_split(self._places, self._ranks)[self._rank]
        for places in in_batches(mine, self._config.batch):
            batch = RowBatch(*(each.to(self._device) for each in self._source.take(self._index[places // _LEVELS])))
            total += float(model(batch, self._draws(places, batch.tokens)).double().sum())
        sums = sum_over_ranks({"loss": total}, ranks=self._ranks, device=self._device)
        return {"val/loss": sums["loss"] / len(self._places)}

    def _draws(self, places: Indices, tokens: TokenRows) -> Draws:
        """Return steps spread evenly, and noise that belongs to a row and a step."""
        seeds = [derive_seed(self._seed, "validation", int(place)) for place in places]
        noise = [torch.randn(tokens.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        t = [int((place % _LEVELS + 0.5) / _LEVELS * self._config.steps) for place in places]
        return Draws(torch.tensor(t, device=self._device), torch.stack(noise).to(self._device),
                     torch.ones(len(places), 1, dtype=torch.bool, device=self._device))  # fmt: skip


def split_rows(table: RowTable, config: DiffusionConfig, seed: int) -> tuple[Indices, Indices]:
    """Return the rows that are trained on and those that weights are chosen by.

    Raises:
        UserError: the held-out city is none of the table, or nothing would be left to train on.
    """
    count = len(table)
    if config.held_out:
        away = np.array([city == config.held_out for city in table.cities], dtype=bool)
        if not away.any():
            known = ", ".join(dict.fromkeys(table.cities))
            raise UserError(f"diffusion.held-out: {config.held_out!r}; expected one of the source cities, {known}")
    else:
        away = np.zeros(count, dtype=bool)
        share = round(config.validation * count)
        # A table of a few rows can spare none.
        wanted = max(share, 1) if config.validation > 0.0 and count >= 4 else 0
        away[random_stream(seed, "validation").permutation(count)[:wanted]] = True
    trained_on, judged = np.flatnonzero(~away), np.flatnonzero(away)
    if not len(trained_on):
        raise UserError(f"rows: {count} of which none is left to train on; expected rows of at least one source city")
    step = -(-len(judged) // _MOST_JUDGED) or 1
    return trained_on.astype(np.int64), judged[::step].astype(np.int64)


def make_denoiser(stage: StageConfig, layout: TokenLayout, prompts: Prompts) -> Denoiser:
    """Return the denoiser of a configuration, its weights a function of the seed."""
    torch.manual_seed(derive_seed(stage.seed, "denoiser"))
    dims = prompts.spatial.shape[1], prompts.temporal.shape[1]
    return Denoiser(stage.denoiser, TokenTable.of(layout, stage.denoiser), *dims)


def facts_of(stage: StageConfig, table: RowTable, prompts: Prompts, *, preset: str) -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors: all that generation needs, and what it was made from."""
    return {
        "package": "gpd", "version": version("gpd"), "core": version("stcore"), "preset": preset, "stage": "train",
        "config": to_plain(stage),
        "rows": {"model": to_plain(table.model), "features": table.features},
        "prompts": {"spatial": prompts.spatial.shape[1], "temporal": prompts.temporal.shape[1]},
        "made_from": {"rows": digest_of_rows(table), "prompts": prompts.digest},
        "sources": list(dict.fromkeys(table.cities)),
    }  # fmt: skip


def digest_of_rows(table: RowTable) -> str:
    """Return a SHA-256 over the numbers of a table and the names of its nodes."""
    state = hashlib.sha256(repr((table.cities, table.nodes, tuple(table.rows.shape))).encode())
    state.update(memoryview(cast("Any", table.rows.detach().cpu().contiguous().numpy())))
    return state.hexdigest()


def require_same(checkpoint: Checkpoint, facts: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint that was made from something else.

    Raises:
        UserError: names what differs.
    """
    found = checkpoint.metadata.get("made_from", {})
    for name, digest in facts["made_from"].items():
        if found.get(name) != digest:
            raise UserError(f"{checkpoint.path}: was trained on other {name} ({str(found.get(name))[:12]}); expected "
                            f"those at hand ({digest[:12]}); start a new run")  # fmt: skip
