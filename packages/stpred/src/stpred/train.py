"""Train a forecaster of frames: what one step is and what is evaluated. The loop is the core's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stcore.cli import Outcome, refuse_changes, run_config, run_of
from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from stcore.frame_batches import (
    FrameBatch,
    FrameBatches,
    future_error,
    require_same_frames,
    split_valid,
    sum_over_batches,
)
from stcore.frame_scaling import Scaling
from stcore.sampling import derive_seed
from stcore.splits import Parts
from stcore.training.checkpoint import Checkpoint
from stcore.training.forwarded import Forwarded
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.memory_layout import put_channels_last
from stcore.training.ranks import make_accelerator
from stcore.training.rates import RateOfTime
from stcore.training.run import load_for_resume
from stcore.training.starting import load_start, load_weights, make_adam, moving_average, new_run, require_package
from stpred.config import TrainConfig
from stpred.data import batches_of, frame_shape, read_parts, series_of
from stpred.models import FrameShape, build
from stpred.models.interface import FrameModel, Sampling
from stpred.options import DEFAULT_PRESET, TrainOptions
from stpred.sampling import truth_bits
from stpred.schedules import cosine, one_cycle

HARMLESS = ("fit.tensorboard", "fit.workers")
"""What may differ when a run goes on."""


def train(
    config: TrainConfig,
    *,
    parts: Parts[Any] | None = None,
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
    parts = parts or read_parts(config.data, seed=config.seed)
    start = checkpoint or (load_start(init_from) if init_from else None)
    scaling = restore_scaling(start) if start else Scaling.fit(series_of(parts.train), config.data.scaling)
    shape = frame_shape(parts.train)
    _check_shapes(parts, scaling)
    training = batches_of(parts, "train", scaling, config)
    held_back = batches_of(parts, "val", scaling, config)
    model = make_model(config, shape)
    if init_from and start:
        load_weights(model, start)
    objective = Objective(model)
    _place(model, config)
    optimiser = make_adam(objective, config.optimiser)
    accelerator = make_accelerator(device, config.fit.precision)
    preset = checkpoint.metadata["preset"] if checkpoint else preset
    validate = Validation(held_back, rank=int(accelerator.process_index), ranks=int(accelerator.num_processes))
    return fit(
        objective, Step(config, model.sampling), training, optimiser, config=config.fit, seed=config.seed,
        run=directory or new_run(run, config, package="stpred", preset=preset, accelerator=accelerator),
        facts=facts_of(config, shape, series_of(parts.train), preset=preset), constants=scaling.constants(),
        schedule=Rates(optimiser, config, len(training)), evaluate=validate, select=Select("val/mse"),
        ema=moving_average(objective, config.fit.ema_decay), resume=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip


def command(options: TrainOptions) -> Outcome:
    """Do `stpred train`."""
    if options.resume is not None:
        refuse_changes(run_config(TrainConfig, run_of(options.resume)), options.settings, harmless=HARMLESS)
    preset = options.preset or (DEFAULT_PRESET if options.config is None else "custom")
    result = train(options.settings, run=options.run, resume=options.resume, init_from=options.init_from,
                   preset=preset, device=options.device, quiet=options.quiet)  # fmt: skip
    return Outcome(result.words("val/mse per frame"), result.data())


class Objective(Forwarded):
    """A forecaster whose `forward` is what training calls: with a future the loss, without the forecast."""

    module: FrameModel

    def forward(
        self, history: Tensor, future: Tensor | None, horizon: int, truth: Tensor | None, valid: Tensor | None = None
    ) -> Any:
        if future is None:
            return self.module(history, horizon)
        return self.module.loss(history, future, truth=truth, valid=valid)


class Step:
    """One training step: the model's own objective, with true frames mixed in as its sampling says."""

    def __init__(self, config: TrainConfig, sampling: Sampling) -> None:
        self._seed = config.seed
        self._sampling: Sampling = sampling

    def __call__(self, model: nn.Module, batch: FrameBatch, context: StepContext) -> Loss:
        history, future, valid = split_valid(batch)
        truth = self.truth(context, history.shape[1], future.shape[1])
        loss = model(history, future, 0, None if truth is None else truth.to(context.device), valid)
        return Loss(loss.total, float(len(history)), {} if len(loss.parts) < 2 else loss.parts)

    def truth(self, context: StepContext, history: int, horizon: int) -> Tensor | None:
        """Draw which steps are fed with true frames: by sample, so that the number of processes changes nothing."""
        place = {"history": history, "horizon": horizon, "step": context.step, "epoch": context.epoch}
        if self._sampling in ("none", "coin"):
            return truth_bits(self._sampling, batch=len(context.ids), seed=self._seed, **place)
        seeds = [derive_seed(self._seed, "sample", int(i)) for i in context.ids]
        rows = [truth_bits(self._sampling, batch=1, seed=seed, **place) for seed in seeds]
        return torch.cat([row for row in rows if row is not None])


class Rates(RateOfTime):
    """The learning rate, a function of step or epoch alone; nothing has to be remembered."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig, batches: int) -> None:
        super().__init__(optimiser)
        self._config = config
        per_epoch = -(-batches // config.fit.accumulate)
        self._total = min(config.fit.epochs * per_epoch, config.fit.max_steps or config.fit.epochs * per_epoch)
        if config.schedule.kind == "one-cycle":
            self.step_end(0)

    def epoch_start(self, epoch: int) -> None:
        config = self._config
        if config.schedule.kind == "cosine":
            self.set_rate(cosine(epoch, lr=config.optimiser.learning_rate, epochs=config.fit.epochs,
                                 warmup_epochs=config.schedule.warmup_epochs))  # fmt: skip

    def step_end(self, step: int) -> None:
        config = self._config
        if config.schedule.kind == "one-cycle":
            rate = one_cycle(step, max_lr=config.optimiser.learning_rate, total_steps=self._total,
                             warmup=config.schedule.warmup, final_divisor=config.schedule.final_divisor)  # fmt: skip
            self.set_rate(rate)


class Validation:
    """Errors of forecasts of held-back windows on the model's scale, summed over each frame, averaged over frames."""

    def __init__(self, batches: FrameBatches, *, rank: int, ranks: int) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks

    def __call__(self, model: nn.Module) -> dict[str, float]:
        def measure(history: Tensor, future: Tensor, valid: Tensor | None) -> dict[str, Tensor | float]:
            error = future_error(model(history, None, future.shape[1], None), future, valid).double()
            frames = future.shape[0] * future.shape[1]
            return {"mse": error.square().sum(), "mae": error.abs().sum(), "frames": float(frames)}

        summed = sum_over_batches(measure, self._batches, model, names=("mse", "mae", "frames"), rank=self._rank,
                                  ranks=self._ranks)  # fmt: skip
        frames = summed.pop("frames")
        return {f"val/{name}": value / frames for name, value in summed.items()}


def make_model(config: TrainConfig, shape: FrameShape) -> FrameModel:
    """Return the model of a configuration, its weights a function of the seed."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    return build(config.model, shape, history=config.data.history)


def facts_of(config: TrainConfig, shape: FrameShape, train: Any, *, preset: str) -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors."""
    frames: dict[str, Any] = {**shape._asdict(), "names": list(train.channels), "units": list(train.units)}
    if train.value_range is not None:
        frames["value_range"] = list(train.value_range)
    return {"package": "stpred", "version": version("stpred"), "core": version("stcore"), "preset": preset,
            "kind": "forecaster", "config": to_plain(config), "frames": frames}  # fmt: skip


def restore_scaling(checkpoint: Checkpoint) -> Scaling:
    """Return the scaling that a checkpoint was trained with.

    Raises:
        UserError: it is of another package, or of a module of one's own.
    """
    require_forecaster(checkpoint)
    return Scaling.restore(checkpoint.part("constants"))


def require_forecaster(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is none of `stpred train`.

    Raises:
        UserError: it is of another package, or of a module of one's own.
    """
    require_package(checkpoint, "stpred")
    if checkpoint.metadata.get("kind") != "forecaster":
        raise UserError(f"{checkpoint.path}: of a module trained with Trainer; expected a run of stpred train; load it "
                        "with Trainer.predict and its ckpt_path")  # fmt: skip


def restore_model(checkpoint: Checkpoint) -> tuple[FrameModel, TrainConfig, FrameShape]:
    """Rebuild the model of a checkpoint with its configuration and frames.

    Raises:
        UserError: the checkpoint does not fit this version.
    """
    require_forecaster(checkpoint)
    config = from_plain(TrainConfig, checkpoint.metadata["config"], where=str(checkpoint.path))
    frames = checkpoint.metadata["frames"]
    shape = FrameShape(frames["channels"], frames["height"], frames["width"])
    model = build(config.model, shape, history=config.data.history)
    load_weights(model, checkpoint)
    return model, config, shape


def _check_shapes(parts: Parts[Any], scaling: Scaling) -> None:
    names = {"training": parts.train, "validation": parts.val, "test": parts.test}
    shapes = {name: frame_shape(part) for name, part in names.items() if part is not None}
    require_same_frames(shapes, len(scaling.low))


def _place(model: FrameModel, config: TrainConfig) -> None:
    put_channels_last(model, config.channels_last)
    if config.compile:
        model.compile()
