"""Train a forecaster of frames: what one step is and what is evaluated. The loop is the core's."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.baselines_grids import Climatology, DampedPersistence
from stcore.cli import Outcome, refuse_changes, run_config, run_of
from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from stcore.frame_anomalies import anomalies, pack_usual, unpack_usual, usual_frames
from stcore.frame_batches import FrameBatch, FrameBatches, require_same_frames, split_valid, sum_over_batches
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.sampling import derive_seed
from stcore.splits import Parts
from stcore.training.checkpoint import Checkpoint
from stcore.training.forwarded import Forwarded
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.ranks import make_accelerator
from stcore.training.rates import RateOfTime
from stcore.training.run import load_for_resume
from stcore.training.starting import load_start, load_weights, make_adam, moving_average, new_run, require_package
from svq.config import LossConfig, TrainConfig
from svq.data import batches_of, frame_shape, leads_of, read_parts
from svq.divergence import differential_divergence
from svq.models import FrameShape, build
from svq.options import TrainOptions
from svq.presets import DEFAULT_PRESET
from svq.schedules import cosine, one_cycle

if TYPE_CHECKING:
    from svq.models.simvp import SimVP  # brings timm, which a look at the data need not wait for

HARMLESS = ("fit.tensorboard", "fit.workers")
"""What may differ when a run goes on."""


def train(
    config: TrainConfig,
    *,
    parts: Parts[GridSeries] | None = None,
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
        init_from: a run or checkpoint whose weights a new run starts from, with its scaling.
        preset: name that a fresh folder gets.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        UserError: data or configuration cannot be used.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    directory, checkpoint = load_for_resume(resume) if resume else (None, None)
    parts = parts or read_parts(config)
    start = checkpoint or (load_start(init_from) if init_from else None)
    usual = _usual(config, parts.train, start)
    frames = parts.train
    if usual is not None:
        parts = parts.map(lambda part: anomalies(part, usual))
    scaling = restore_scaling(start) if start else Scaling.fit(parts.train, config.data.scaling)
    shape = frame_shape(parts.train)
    require_same_frames({name: frame_shape(part) for name, part in parts.named().items()}, len(scaling.low))
    training, held_back = batches_of(parts, "train", scaling, config), batches_of(parts, "val", scaling, config)
    accelerator = make_accelerator(device, config.fit.precision)
    model = make_model(config, shape)
    if usual is not None and start is None:
        _start_damped(model, frames, usual, config)
    if init_from and start:
        load_weights(model, start)
    objective = Objective(model, config.loss)
    if config.compile:
        objective.compile()
    optimiser = make_adam(objective, config.optimiser)
    preset = checkpoint.metadata["preset"] if checkpoint else preset
    validate = Validation(held_back, config.loss, rank=int(accelerator.process_index),
                          ranks=int(accelerator.num_processes))  # fmt: skip
    return fit(
        objective, Step(), training, optimiser, config=config.fit, seed=config.seed,
        run=directory or new_run(run, config, package="svq", preset=preset, accelerator=accelerator),
        facts=facts_of(config, shape, frames, preset=preset, usual=usual),
        constants=scaling.constants() | ({} if usual is None else pack_usual(usual)),
        schedule=Rates(optimiser, config, len(training)), evaluate=validate, select=Select("val/loss"),
        ema=moving_average(objective, config.fit.ema_decay), resume=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip


def command(options: TrainOptions) -> Outcome:
    """Do `svq train`."""
    if options.resume is not None:
        refuse_changes(run_config(TrainConfig, run_of(options.resume)), options.settings, harmless=HARMLESS)
    preset = options.preset or (DEFAULT_PRESET if options.config is None else "custom")
    result = train(options.settings, run=options.run, resume=options.resume, init_from=options.init_from,
                   preset=preset, device=options.device, quiet=options.quiet)  # fmt: skip
    protocol = options.settings.protocol
    return Outcome(result.words("val/loss", f"protocol {protocol}"), {**result.data(), "protocol": protocol})


class Objective(Forwarded):
    """A forecaster whose `forward` is what training calls: with a future the loss, without the forecast.

    Args:
        module: the forecaster.
        loss: what is minimised beside the quantiser's own loss.
    """

    module: SimVP

    def __init__(self, module: SimVP, loss: LossConfig) -> None:
        super().__init__(module)
        self.loss = loss

    def forward(self, history: Tensor, future: Tensor | None, horizon: int, valid: Tensor | None = None) -> Any:
        if future is None:
            return self.module(history, horizon)
        forecast, auxiliary = self.module.loss_terms(history, future.shape[1])
        error, cells = error_sum(forecast, future, valid, self.loss)
        if self.loss.divergence:
            # Where nothing is known, nothing is told apart.
            seen = forecast if valid is None else forecast.where(valid[:, -future.shape[1] :], future)
            auxiliary = auxiliary + self.loss.divergence * differential_divergence(seen, future)
        return error / cells.clamp_min(1.0), auxiliary, cells


class Step:
    """One training step: the error of the forecast, and what the quantiser adds."""

    def __call__(self, model: nn.Module, batch: FrameBatch, context: StepContext) -> Loss:
        history, future, valid = split_valid(batch)
        error, auxiliary, cells = model(history, future, 0, valid)
        return Loss(error + auxiliary, max(float(cells), 1.0), {"error": error, "auxiliary": auxiliary})


class Rates(RateOfTime):
    """The learning rate, a function of step or epoch alone; nothing has to be remembered."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig, batches: int) -> None:
        super().__init__(optimiser)
        self._config = config
        per_epoch = -(-batches // config.fit.accumulate)
        self._total = min(config.fit.epochs * per_epoch, config.fit.max_steps or config.fit.epochs * per_epoch)
        self.step_end(0)

    def epoch_start(self, epoch: int) -> None:
        schedule, rate = self._config.schedule, self._config.optimiser.learning_rate
        if schedule.kind == "cosine":
            self.set_rate(cosine(epoch, lr=rate, epochs=self._config.fit.epochs, warmup_epochs=schedule.warmup_epochs,
                                 warmup_lr=schedule.warmup_rate, min_lr=schedule.lowest_rate))  # fmt: skip

    def step_end(self, step: int) -> None:
        schedule, rate = self._config.schedule, self._config.optimiser.learning_rate
        if schedule.kind == "one-cycle":
            now = one_cycle(step, max_lr=rate, total_steps=self._total, final_divisor=schedule.final_divisor)
            self.set_rate(now.lr)
            for group in self._optimiser.param_groups:
                group["betas"] = (now.beta1, group["betas"][1])


class Validation:
    """Errors of forecasts of held-back windows on the model's scale, averaged over the cells that hold data."""

    def __init__(self, batches: FrameBatches, loss: LossConfig, *, rank: int, ranks: int) -> None:
        self._batches, self._loss, self._rank, self._ranks = batches, loss, rank, ranks

    def __call__(self, model: nn.Module) -> dict[str, float]:
        losses = {"loss": self._loss, "mse": LossConfig(kind="mse"), "mae": LossConfig(kind="mae")}

        def measure(history: Tensor, future: Tensor, valid: Tensor | None) -> dict[str, Tensor | float]:
            forecast = model(history, None, future.shape[1]).double()
            sums = {name: error_sum(forecast, future.double(), valid, loss) for name, loss in losses.items()}
            return {"cells": sums["loss"][1], **{name: error for name, (error, _) in sums.items()}}

        summed = sum_over_batches(measure, self._batches, model, names=("cells", *losses), rank=self._rank,
                                  ranks=self._ranks)  # fmt: skip
        cells = summed.pop("cells")
        return {f"val/{name}": value / max(cells, 1.0) for name, value in summed.items()}


def error_sum(
    forecast: Float[Tensor, "batch horizon channel height width"],
    future: Float[Tensor, "batch horizon channel height width"],
    valid: Bool[Tensor, "batch frame channel height width"] | None,
    loss: LossConfig,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the sum of errors over the cells of the future that hold data, and how many these are.

    Args:
        forecast: what was forecast.
        future: what came.
        valid: where history and future, one after the other, hold data; None for everywhere.
        loss: which error.
    """
    if loss.kind == "mae":
        errors = F.l1_loss(forecast, future, reduction="none")
    elif loss.kind == "mse":
        errors = F.mse_loss(forecast, future, reduction="none")
    else:
        errors = F.huber_loss(forecast, future, reduction="none", delta=loss.delta)
    if valid is None:
        return errors.sum(), errors.new_tensor(float(errors.numel()))
    known = valid[:, -future.shape[1] :]
    return errors.where(known, 0.0).sum(), known.sum().to(errors.dtype)


def make_model(config: TrainConfig, shape: FrameShape) -> SimVP:
    """Return the model of a configuration, its weights a function of the seed."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    return _build(config, shape)


def _start_damped(model: SimVP, train: GridSeries, usual: Climatology, config: TrainConfig) -> None:
    """Let a model that adds to shares of the last frame start from damped persistence."""
    if model.shares is None:
        return
    leads = leads_of(config.data, min(model.history, config.data.horizon))
    damping = DampedPersistence.fit(train, leads=leads, climatology=usual).damping[..., 0, 0]
    with torch.no_grad():
        model.shares[: len(damping)] = damping


def _build(config: TrainConfig, shape: FrameShape) -> SimVP:
    # In the published runs the early blocks are skipped at times even where no skipping is asked for.
    simvp = replace(config.model, legacy_drop_path=True) if config.protocol == "paper" else config.model
    return build(simvp, config.quantizer, shape, config.data.history, channels_last=config.channels_last)


def _usual(config: TrainConfig, train: GridSeries, start: Checkpoint | None) -> Climatology | None:
    """Return the usual frames that are taken off, those of the run to start from if there is one."""
    wanted = config.data.anomalies
    if start is None:
        return usual_frames(train) if wanted else None
    kept = restore_usual(start)
    if wanted != (kept is not None):
        raise UserError(f"{start.path}: data.anomalies is {str(not wanted).lower()} in its run; expected the same here")
    return kept


def facts_of(
    config: TrainConfig, shape: FrameShape, train: GridSeries, *, preset: str, usual: Climatology | None = None
) -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors."""
    frames: dict[str, Any] = {**shape._asdict(), "names": list(train.channels), "units": list(train.units)}
    if train.value_range is not None:
        frames["value_range"] = list(train.value_range)
    if usual is not None:
        frames["usual_by"] = list(usual.by)
    return {"package": "svq", "version": version("svq"), "core": version("stcore"), "preset": preset,
            "config": to_plain(config), "frames": frames}  # fmt: skip


def restore_scaling(checkpoint: Checkpoint) -> Scaling:
    """Return the scaling that a checkpoint was trained with.

    Raises:
        UserError: it is of another package.
    """
    require_package(checkpoint, "svq")
    return Scaling.restore(checkpoint.part("constants"))


def restore_usual(checkpoint: Checkpoint) -> Climatology | None:
    """Return the usual frames that training took off; None where it took none."""
    return unpack_usual(checkpoint.part("constants"), checkpoint.metadata["frames"].get("usual_by", ()))


def restore_model(checkpoint: Checkpoint) -> tuple[SimVP, TrainConfig, FrameShape]:
    """Rebuild the model of a checkpoint with its configuration and frames.

    Raises:
        UserError: the checkpoint does not fit this version.
    """
    require_package(checkpoint, "svq")
    config = from_plain(TrainConfig, checkpoint.metadata["config"], where=str(checkpoint.path))
    frames = checkpoint.metadata["frames"]
    shape = FrameShape(frames["channels"], frames["height"], frames["width"])
    model = _build(config, shape)
    load_weights(model, checkpoint)
    return model, config, shape
