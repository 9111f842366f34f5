"""`Trainer`: fit, validate and predict with an `EnhancedModule`; a thin face on the core's training loop.

Names and call signatures follow the original (github.com/dreaming-coder/Spatiotemporal-Prediction, `nn/trainer.py`).
What it did otherwise is the core's: runs are directories, checkpoints are written atomically into them, training
resumes to the bit, and nothing is written outside `to_save`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.training.checkpoint import Checkpoint
from stcore.training.config import LoopConfig
from stcore.training.loop import FitResult, Select, fit
from stcore.training.memory_layout import put_channels_last
from stcore.training.ranks import make_accelerator, share_path, sum_over_ranks, world_size
from stcore.training.run import Run, find_checkpoint, load_for_resume
from stcore.training.starting import weights_file
from stpred.callbacks import Callback, Events
from stpred.foreign import load_weights, read_foreign, start_of
from stpred.hooked import (
    Hooked,
    HookedOptimiser,
    HookedSchedule,
    Interval,
    Progressed,
    TrainingStep,
    detached,
    loss_of,
    scalars_of,
)
from stpred.loaders import passes, resumes_exactly, size_of, split_batch, training_batches
from stpred.module import EnhancedModule

OnExisting = Literal["error", "new", "resume"]


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What a run of `Trainer` says about itself in its `config.toml`."""

    module: str
    seed: int
    scheduler_interval: str
    loss_average: str
    fit: LoopConfig


class Trainer:
    """Trains, validates and predicts with an `EnhancedModule`.

    Args:
        max_epoch: passes over the training data.
        to_save: folder of the run, made when `fit` starts.
        device: None or `auto` takes a GPU where there is one; `cpu`, `cuda`.
        seed: of the order of samples, of what datasets draw, and of what steps draw (the weights are the caller's).
        precision: `32` or `bf16` (autocast).
        accumulate: batches per optimiser step.
        clip_grad: largest norm of the gradient; None leaves it.
        compile: compile the module's `forward` in place.
        channels_last: store four-dimensional weights channels last.
        scheduler_interval: when the scheduler steps: after every optimiser `step` (as the original), after an `epoch`,
            or when the monitored value is known (`plateau`, for `ReduceLROnPlateau`).
        monitor: validation value that decides which weights are the best: `val_loss`, or another scalar of the steps.
        mode: whether the smallest or the largest is the best.
        patience: evaluations in a row without improvement before training stops; 0 never stops it.
        checkpoint_every: optimiser steps between checkpoints; the newest two and the best are kept.
        log_every: optimiser steps between lines of `metrics.jsonl`.
        callbacks: listeners, see `stpred.callbacks`.
        limit_train_batches, limit_val_batches: batches of an epoch at most.
        workers: processes that prepare batches; None takes the loader's own number.
        loss_average: `sample` weights validation batches by their size; `batch` takes their plain mean (original).
        on_existing: what `fit` does where `to_save` holds a run: `error`, a fresh folder in it (`new`), or `resume`.
        deterministic: use deterministic algorithms on a GPU; on a CPU runs repeat to the bit anyway.
        tensorboard: also write the scalars for TensorBoard (extra `tracking`).
        quiet: show no progress.
    """

    def __init__(
        self,
        *,
        max_epoch: int,
        to_save: Path | str,
        device: str | torch.device | None = None,
        seed: int = 2022,
        precision: Literal["32", "bf16"] = "32",
        accumulate: int = 1,
        clip_grad: float | None = None,
        compile: bool = False,
        channels_last: bool = False,
        scheduler_interval: Interval = "step",
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 0,
        checkpoint_every: int = 100,
        log_every: int = 10,
        callbacks: Sequence[Callback] = (),
        limit_train_batches: int | None = None,
        limit_val_batches: int | None = None,
        workers: int | None = None,
        loss_average: Literal["sample", "batch"] = "sample",
        on_existing: OnExisting = "error",
        deterministic: bool = False,
        tensorboard: bool = False,
        quiet: bool = False,
    ) -> None:
        _one_of("precision", precision, ("32", "bf16"))
        _one_of("scheduler_interval", scheduler_interval, ("step", "epoch", "plateau"))
        _one_of("loss_average", loss_average, ("sample", "batch"))
        _one_of("on_existing", on_existing, ("error", "new", "resume"))
        _one_of("mode", mode, ("min", "max"))
        self.to_save, self.seed, self.device = Path(to_save), seed, _device_name(device)
        self.callbacks, self.quiet, self.on_existing = tuple(callbacks), quiet, on_existing
        self.compile, self.channels_last, self.workers = compile, channels_last, workers
        self.scheduler_interval: Interval = scheduler_interval
        self.select = Select(monitor.replace("val_", "val/", 1), mode)
        self.limit_train_batches, self.limit_val_batches = limit_train_batches, limit_val_batches
        self.loss_average = loss_average
        self.config = LoopConfig(
            epochs=max_epoch, patience=patience, checkpoint_every=checkpoint_every, log_every=log_every,
            clip_norm=clip_grad or 0.0, accumulate=accumulate, precision="bf16" if precision == "bf16" else "fp32",
            deterministic=deterministic, tensorboard=tensorboard,
        )  # fmt: skip
        self.run: Run | None = None

    def fit(
        self,
        model: EnhancedModule,
        train_loader: Any,
        validation_loader: Any = None,
        ckpt_path: Path | str | None = None,
    ) -> FitResult:
        """Train `model`.

        Args:
            model: what to train; its weights are changed in place.
            train_loader: a `DataLoader`, or batches in the core's sense (`order`, `load`, `names`). A `DataLoader`
                with a plain random or sequential sampler keeps dataset, batch size and collate function and gets our
                order, so that a run resumes inside an epoch; any other resumes at the beginning of the epoch.
            validation_loader: what the best weights are chosen on; None evaluates nothing and keeps the last.
            ckpt_path: where to go on: a step checkpoint of this run, its folder, `last`, or a file of the original.

        Raises:
            UserError: `to_save` holds a run already, the checkpoint does not fit, a step returns no loss, ….
            Diverged, Interrupted: see `stcore.training.loop.fit`.
        """
        if self.scheduler_interval == "plateau" and validation_loader is None:
            raise UserError("scheduler_interval: 'plateau' without validation_loader; expected one to watch")
        self._place(model)
        batches = training_batches(train_loader, seed=self.seed, limit=self.limit_train_batches)
        workers = self.workers if self.workers is not None else int(getattr(train_loader, "num_workers", 0))
        config = replace(self.config, workers=workers if resumes_exactly(batches) else 0)
        events, progress = Events(self, model, self.callbacks), Progressed()
        optimiser = model.configure_optimizer()
        model.optimizer, model.lr_scheduler = optimiser, model.configure_lr_scheduler(optimiser)
        schedule = HookedSchedule(model, events, progress, self.scheduler_interval)
        run, checkpoint = self._start(model, ckpt_path, config, exact=resumes_exactly(batches))
        self.run = run
        if checkpoint is None:
            events.send("on_fit_start")
        hooked = Hooked(model)

        def evaluate(model: nn.Module) -> Mapping[str, float]:
            schedule.end_epoch()
            return self._validate(hooked, validation_loader, events)

        facts = {"package": "stpred", "version": version("stpred"), "core": version("stcore"), "preset": "",
                 "kind": "trainer", "config": self._facts(model, config)}  # fmt: skip
        result = fit(
            hooked, TrainingStep(model, events, progress), batches,
            HookedOptimiser(model, optimiser, events, progress), config=config, run=run, seed=self.seed, facts=facts,
            schedule=schedule, evaluate=None if validation_loader is None else evaluate, select=replace(self.select),
            resume=checkpoint, device=self.device, quiet=self.quiet,
        )  # fmt: skip
        schedule.end_epoch()
        events.send("on_fit_end")
        return result

    def validate(self, model: EnhancedModule, loader: Any, ckpt_path: Path | str | None = None) -> dict[str, float]:
        """Return the validation loss, and the other scalars of the validation steps, averaged over `loader`.

        Args:
            model: what to validate.
            loader: batches of inputs and labels.
            ckpt_path: weights to load first: a checkpoint, a run, `best`, `last`, or a file of the original.
        """
        hooked = self._ready(model, ckpt_path)
        return self._validate(hooked, loader, Events(self, model, self.callbacks))

    def predict(self, model: EnhancedModule, test_loader: Any, ckpt_path: Path | str | None = None) -> list[Path]:
        """Predict every sample of `test_loader` and write it as `predictions/pred_<number>.npy`, from 1.

        Args:
            model: what to predict with.
            test_loader: batches of any size, with labels or without.
            ckpt_path: weights to load first: a checkpoint, a run, `best`, `last`, or a file of the original.

        Returns:
            The files in the order of the samples; each holds the frames of one sample (time, channel, height, width).

        Raises:
            UserError: there are predictions in the folder already, or no such checkpoint.
        """
        folder = self.to_save / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("pred_*.npy")):
            raise UserError(f"{folder}: holds predictions already; expected none; move them or name another to_save")
        written: list[Path] = []
        for frames in self.predictions(model, test_loader, ckpt_path):
            for sample in frames.float().cpu().numpy():
                path = folder / f"pred_{len(written) + 1:05d}.npy"
                write_atomically(path, [_npy(sample)])
                written.append(path)
        return written

    def predictions(
        self, model: EnhancedModule, test_loader: Any, ckpt_path: Path | str | None = None
    ) -> Iterator[Tensor]:
        """Yield what `predict_step` returns, batch by batch, and write nothing; arguments as for `predict`."""
        hooked = self._ready(model, ckpt_path)
        for batch in passes(test_loader):
            inputs, labels = split_batch(_to(batch, hooked))
            with torch.inference_mode():
                yield hooked("predict", inputs, labels)

    def _start(
        self, model: EnhancedModule, ckpt_path: Path | str | None, config: LoopConfig, *, exact: bool
    ) -> tuple[Run, Checkpoint | None]:
        """Return the run to write into, and the checkpoint to go on from."""
        held = (self.to_save / "config.toml").is_file()
        target = "last" if ckpt_path is None and held and self.on_existing == "resume" else ckpt_path
        if target is None:
            return self._new_run(model, config), None
        if str(target) == "best":
            raise UserError("ckpt_path: 'best' holds weights alone; expected 'last' to go on, or a step checkpoint")
        path = self.to_save if str(target) == "last" else Path(target)
        if path.suffix != ".safetensors" and not path.is_dir():
            start = start_of(read_foreign(path), model, path, select=self.select, epochs=config.epochs)
            return self._new_run(model, config), start
        owner = find_checkpoint(path)[0].folder
        if owner.resolve() != self.to_save.resolve():
            raise UserError(f"ckpt_path: {path} belongs to the run {owner}; expected to_save to be that folder")
        run, checkpoint = load_for_resume(path)
        return run, self._continued(checkpoint, exact)

    def _continued(self, checkpoint: Checkpoint, exact: bool) -> Checkpoint:
        """Check that `checkpoint` is of a run like this one, and let it go on to a later last epoch."""
        if checkpoint.metadata.get("kind") != "trainer":
            raise UserError(
                f"{checkpoint.path}: not of a run of Trainer; expected one; go on with stpred train --resume"
            )
        seed = checkpoint.metadata["config"]["seed"]
        if seed != self.seed:
            raise UserError(f"seed: {self.seed}; expected {seed}, that of the run to go on with")
        loop = checkpoint.metadata["loop"]
        at = dict(loop["at"])
        if not exact and at["batch"]:
            warnings.warn(
                f"train_loader: its order is not known in advance, so epoch {at['epoch'] + 1} is trained again from "
                f"its first batch, though {at['batch']} batches of it are done",
                stacklevel=4,
            )
            at["batch"] = 0
        at["finished"] = at["stopped_early"] or at["epoch"] >= self.config.epochs
        return replace(checkpoint, metadata={**checkpoint.metadata, "loop": {**loop, "at": at}})

    def _new_run(self, model: EnhancedModule, config: LoopConfig) -> Run:
        accelerator = make_accelerator(self.device, config.precision)
        made = ""
        if accelerator.is_main_process:
            folder = self.to_save
            if self.on_existing == "new" and folder.is_dir() and any(folder.iterdir()):
                numbers = [int(name) for entry in folder.iterdir() if (name := entry.name[8:]).isdigit()
                           and entry.name.startswith("version_")]  # fmt: skip
                folder = folder / f"version_{max(numbers, default=0) + 1}"
            facts = self._facts(model, config)
            made = str(Run.create(folder, package="stpred", preset="trainer", config=facts).folder)
        return Run(Path(share_path(made) if world_size() > 1 else made))

    def _facts(self, model: EnhancedModule, config: LoopConfig) -> dict[str, Any]:
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        return to_plain(TrainerConfig(module=name, seed=self.seed, scheduler_interval=self.scheduler_interval,
                                    loss_average=self.loss_average, fit=config))  # fmt: skip

    def _place(self, model: EnhancedModule) -> None:
        if self.channels_last:
            put_channels_last(model)
        if self.compile:
            model.compile()

    def _ready(self, model: EnhancedModule, ckpt_path: Path | str | None) -> Hooked:
        """Load weights, and move the module to the device in evaluation mode."""
        if ckpt_path is not None:
            named = str(ckpt_path) in ("best", "last")
            load_weights(model, weights_file(self.to_save, str(ckpt_path)) if named else Path(ckpt_path))
        self._place(model)
        accelerator = make_accelerator(self.device, self.config.precision)
        return accelerator.prepare_model(Hooked(model).eval(), evaluation_mode=True)

    def _validate(self, hooked: Hooked, loader: Any, events: Events) -> dict[str, float]:
        rank, ranks = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size())
            if torch.distributed.is_initialized()
            else (0, 1)
        )
        keep = events.heard("on_validation_epoch_end")
        outputs: list[Any] = []
        sums: dict[str, Tensor | float] = {"weight": 0.0}
        for number, batch in enumerate(passes(loader, limit=self.limit_val_batches)):
            if number % ranks != rank:
                continue
            inputs, labels = split_batch(_to(batch, hooked))
            with torch.inference_mode():
                output = hooked("validation", inputs, labels)
            weight = float(size_of(inputs)) if self.loss_average == "sample" else 1.0
            found = {"loss": loss_of(output, "validation_step"), **scalars_of(output), **hooked.module.take_logged()}
            for name, value in {**found, "weight": 1.0}.items():
                sums[name] = sums.get(name, 0.0) + torch.as_tensor(value).double().cpu() * weight
            if keep:
                outputs.append(detached(output))
        device = next(hooked.parameters()).device
        totals = sum_over_ranks(sums, ranks=ranks, device=device)
        weight = totals.pop("weight")
        if not weight:
            raise UserError("validation_loader: no batch; expected at least one")
        events.send("on_validation_epoch_end", outputs)
        values = {f"val/{name}": value / weight for name, value in totals.items()}
        if self.select.name not in values:
            raise UserError(
                f"monitor: no value {self.select.name!r} in validation; expected one of {', '.join(values)}"
            )
        return values


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{name}: {value!r}; expected one of {', '.join(map(repr, known))}")


def _device_name(device: str | torch.device | None) -> str:
    """Return the core's name of a device; which GPU it is, the launcher or CUDA_VISIBLE_DEVICES says."""
    name = "auto" if device is None else str(device)
    if name == "cuda:0":
        return "cuda"
    _one_of("device", name, ("auto", "cpu", "cuda"))
    return name


def _to(batch: Any, module: nn.Module) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(batch, next(module.parameters()).device)


def _npy(array: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
