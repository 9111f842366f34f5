"""Train smash: what one step is and what is evaluated. The loop is the core's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smash.config import OptimiserConfig, TrainConfig
from smash.data import EncodedEvents, Features, TrainingBatches, draws, predictable
from smash.density import DensityLoss
from smash.density_start import start_density
from smash.loss import MeanLoss
from smash.model import Batch, Smash
from smash.options import DEFAULT_PRESET, TrainOptions
from stcore.cli import Outcome, refuse_changes, run_config, run_of
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.readers import read_event_parts
from stcore.sampling import derive_seed, sorted_batches
from stcore.splits import Parts
from stcore.training.checkpoint import Checkpoint, load_checkpoint
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.ranks import make_accelerator, share_path, sum_over_ranks, world_size
from stcore.training.rates import RateByEpoch
from stcore.training.run import Run, load_for_resume


def train(
    config: TrainConfig,
    *,
    parts: Parts[EventSequences] | None = None,
    run: Path | None = None,
    resume: Path | None = None,
    init_from: Path | None = None,
    preset: str = "custom",
    device: str = "auto",
    quiet: bool = False,
) -> FitResult:
    """Train one model and keep it in a run directory.

    Args:
        config: the whole configuration.
        parts: the data, when it is at hand already; otherwise `config.data` says where it is.
        run: folder of the run; None makes a fresh one under `runs/`.
        resume: a run or one of its checkpoint files to go on with; `config` must be that run's.
        init_from: a run or checkpoint whose weights a new run starts from, with its scaling and marks.
        preset: name that a fresh folder gets.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        UserError: data or configuration cannot be used.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    directory, checkpoint = load_for_resume(resume) if resume else (None, None)
    parts = parts or read_event_parts(config.data)
    _check(config, parts)
    start = checkpoint or (_weights(init_from) if init_from else None)
    features = restore_features(start) if start else Features.fit(parts.train, log_gap=config.data.log_gap)
    encoded = parts.map(features.encode)
    torch.manual_seed(derive_seed(config.seed, "weights"))
    model = Smash(config.model, num_marks=features.num_marks)
    if config.model.law == "density" and not start:
        start_density(model.density, encoded.train, features, seed=config.seed)
    if init_from and start:
        _load_weights(model, start)
    optimiser = make_optimiser(model, config.optimiser)
    accelerator = make_accelerator(device, config.fit.precision)
    preset = checkpoint.metadata["preset"] if checkpoint else preset
    facts = {"package": "smash", "version": version("smash"), "core": version("stcore"), "preset": preset,
             "config": to_plain(config), "data": features.facts()}  # fmt: skip
    return fit(
        model, Step(config), TrainingBatches(encoded.train, parts.train.sequence_id, config), optimiser,
        config=config.fit, run=directory or _new_run(run, preset, config, accelerator), seed=config.seed, facts=facts,
        constants=features.constants(), schedule=RateByEpoch(optimiser, lambda epoch: learning_rate(epoch, config)),
        evaluate=Validation(encoded.val, config, rank=accelerator.process_index, ranks=accelerator.num_processes),
        select=Select("val/loss", min_delta=config.fit.min_delta), ema=_average(model, config), resume=checkpoint,
        device=device, quiet=quiet,
    )  # fmt: skip


def command(options: TrainOptions) -> Outcome:
    """Do `smash train`."""
    config = options.settings
    if options.resume:
        stored = run_config(TrainConfig, run_of(options.resume))
        refuse_changes(stored, config, harmless=("fit.workers", "fit.tensorboard", "data.max_bytes"))
    name = options.preset or ("custom" if options.config else DEFAULT_PRESET)
    result = train(config, run=options.run, resume=options.resume, init_from=options.init_from, preset=name,
                   device=options.device, quiet=options.quiet)  # fmt: skip
    return Outcome(result.words("val/loss"), result.data())


class Step:
    """One training step: the loss of a batch at its noise."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def __call__(self, model: nn.Module, batch: tuple[Batch, Tensor], context: StepContext) -> Loss:
        events, noise = batch
        means: MeanLoss | DensityLoss = model(events, noise, noise=self._config.noise, loss=self._config.loss)
        return Loss(means.total, float(len(noise)), parts_of(means))


class Validation:
    """The loss on held-back sequences at a noise draw that is the same every time, so that epochs compare."""

    def __init__(self, events: EncodedEvents, config: TrainConfig, *, rank: int, ranks: int) -> None:
        self._events, self._config, self._rank, self._ranks = events, config, rank, ranks

    def __call__(self, model: nn.Module) -> dict[str, float]:
        config, device = self._config, next(model.parameters()).device
        limits = {"max_samples": 8 * config.data.batch_sequences, "max_tokens": config.data.batch_tokens or 65536}
        sums: dict[str, Tensor | float] = {"targets": 0.0}
        usable = predictable(self._events.lengths)
        for chosen in sorted_batches(self._events.lengths[usable], **limits)[self._rank :: self._ranks]:
            ids = usable[chosen]
            batch = Batch(*(None if part is None else part.to(device) for part in self._events.batch(ids)))  # pyright: ignore[reportArgumentType]
            noise = draws(self._events, ids, config, "validation").to(device)
            means: MeanLoss | DensityLoss = model(batch, noise, noise=config.noise, loss=config.loss)
            values = {"loss": means.total, **parts_of(means)}
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value.double() * len(noise)
            sums["targets"] += len(noise)
        names = ["loss", *_bare(model).loss_parts]
        totals = {"targets": sums["targets"], **{name: sums.get(name, 0.0) for name in names}}
        summed = sum_over_ranks(totals, ranks=self._ranks, device=device)
        count = summed.pop("targets")
        return {f"val/{name}": value / count for name, value in summed.items()}


def _bare(model: nn.Module) -> Smash:
    """Take the model out of what several processes wrap it in."""
    found = getattr(model, "module", model)
    return found if isinstance(found, Smash) else model  # pyright: ignore[reportReturnType]


def parts_of(means: MeanLoss | DensityLoss) -> dict[str, Tensor]:
    """Return the parts of a loss under the names that they are logged with."""
    return {name: value for name, value in means._asdict().items() if name != "total" and value is not None}


def learning_rate(epoch: int, config: TrainConfig) -> float:
    """Return the rate of `epoch` (0-based): a linear warm-up, then a line that reaches the final rate after the last.

    Source: the original's `app.py`; the decay is measured from the end of the warm-up but divided by all epochs.
    """
    top, end, warmup = (
        config.optimiser.learning_rate,
        config.optimiser.final_learning_rate,
        config.optimiser.warmup_epochs,
    )
    if epoch < warmup:
        return top * (epoch + 1) / warmup
    return top - (top - end) * (epoch - warmup) / config.fit.epochs


def make_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """Return AdamW as the original sets it up."""
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2),
                             weight_decay=config.weight_decay, fused=True)  # fmt: skip


def restore_features(checkpoint: Checkpoint) -> Features:
    """Return the scaling and marks that a checkpoint was trained with."""
    return Features.restore(checkpoint.part("constants"), checkpoint.metadata["data"])


def _check(config: TrainConfig, parts: Parts[EventSequences]) -> None:
    if config.model.legacy_masks:
        raise UserError("model.legacy-masks: on; expected off in training, it only serves checkpoints of the original")
    for name, part in (("training", parts.train), ("validation", parts.val)):
        if part.num_events - part.num_sequences < 1:
            raise UserError(
                f"{name} part: no sequence with two events; expected some, the first of each is never predicted"
            )


def _weights(source: Path) -> Checkpoint:
    return load_checkpoint(Run.reopen(source).best if source.is_dir() else source)


def _load_weights(model: Smash, start: Checkpoint) -> None:
    try:
        model.load_state_dict(start.part("model"))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"{start.path}: its weights do not fit this configuration: {first}; use its sizes") from error


def _average(model: Smash, config: TrainConfig) -> Any:
    if config.fit.ema_decay == 0.0:
        return None
    from ema_pytorch import EMA

    return EMA(model, beta=config.fit.ema_decay, update_after_step=0, update_every=1, include_online_model=False)


def _new_run(folder: Path | None, preset: str, config: TrainConfig, accelerator: Any) -> Run:
    """Make the run directory once, on the main process, and tell the others where it is."""
    made = ""
    if accelerator.is_main_process:
        made = str(
            Run.create(folder, package="smash", preset=preset, config={"preset": preset, **to_plain(config)}).folder
        )
    return Run(Path(share_path(made) if world_size() > 1 else made))
