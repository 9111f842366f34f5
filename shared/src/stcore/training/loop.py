"""The one training loop: a package says what a step is, this says when it happens and that nothing is lost.

Reading order: `fit` is the whole course of a run; `_Loop` holds its pieces. Every step begins by seeding all random
generators from (seed, step, rank) and every batch is a function of (seed, epoch), so a checkpoint needs neither
random states nor loader states, and a resumed run equals an uninterrupted one to the bit.
"""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from stcore.errors import Diverged, Interrupted, UserError
from stcore.sampling import Indices, derive_seed
from stcore.training.checkpoint import Checkpoint, save_checkpoint
from stcore.training.config import LoopConfig
from stcore.training.feed import Batches, Feed
from stcore.training.progress import Progress
from stcore.training.ranks import make_accelerator, sum_over_ranks
from stcore.training.run import Run
from stcore.training.signals import StopNow, StopSignals
from stcore.training.state import pack, unpack


class Loss(NamedTuple):
    """What one step yields."""

    total: Tensor
    """Scalar to minimise: the mean over the targets of this batch."""
    weight: float = 1.0
    """Number of targets behind that mean: batches, accumulated or on other ranks, count by it."""
    parts: Mapping[str, Tensor] = {}
    """Further scalars to log, means over the same targets."""


@dataclass(frozen=True)
class StepContext:
    """Where in the run a step is."""

    step: int
    epoch: int
    ids: Indices
    """Numbers of the samples in the batch at hand."""
    device: torch.device


class Schedule(Protocol):
    """A learning-rate schedule; `state_dict` and `load_state_dict` hold whatever it remembers."""

    def epoch_start(self, epoch: int) -> None: ...
    def step_end(self, step: int) -> None: ...
    def evaluated(self, value: float) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Select:
    """Which evaluation is the best so far, and how many in a row were not."""

    name: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    min_delta: float = 0.0
    best: float | None = None
    failures: int = 0

    def improved(self, value: float) -> bool:
        """Take note of `value` and return whether it is the best so far."""
        sign = 1.0 if self.mode == "min" else -1.0
        better = self.best is None or sign * value < sign * self.best - self.min_delta
        self.best, self.failures = (value, 0) if better else (self.best, self.failures + 1)
        return better


@dataclass(frozen=True)
class FitResult:
    """How a training ended."""

    run: Run
    step: int
    epoch: int
    best: float | None
    """Best value of the selected metric; its weights are in `run.best`."""
    stopped_early: bool

    def words(self, metric: str, *notes: str) -> str:
        """Return this in a line for people.

        Args:
            metric: name of what was selected by.
            notes: further facts.
        """
        how = "stopped early" if self.stopped_early else "done"
        best = [] if self.best is None else [f"best {metric} {self.best:.5g}"]
        ended = f"{how} after {self.epoch} epochs ({self.step} steps)"
        return ", ".join([ended, *best, *notes, f"run: {self.run.folder}"])

    def data(self) -> dict[str, Any]:
        """Return this as JSON values."""
        return {"run": str(self.run.folder), "step": self.step, "epochs": self.epoch, "best": self.best,
                "stopped_early": self.stopped_early}  # fmt: skip


@dataclass
class _Position:
    """What a resumed run needs to know beside the weights."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of the epoch that are done; all of them means that its evaluation comes next."""
    finished: bool = False
    stopped_early: bool = False
    evaluated_step: int = -1
    window: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Sums since the last line of the log: name -> [weighted sum, weight]."""


def fit(
    model: nn.Module,
    step: Callable[[nn.Module, Any, StepContext], Loss],
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    *,
    config: LoopConfig,
    run: Run,
    seed: int,
    facts: Mapping[str, Any],
    constants: Mapping[str, Tensor] | None = None,
    schedule: Schedule | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    select: Select | None = None,
    ema: Any = None,
    resume: Checkpoint | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> FitResult:
    """Train `model` to the end of `config`, or on from `resume`, and keep everything in `run`.

    Args:
        model: network whose `forward` makes the loss; it is wrapped for several processes.
        step: runs the wrapped model on one batch and returns its loss.
        batches: what the batches of an epoch are, see `stcore.training.feed`.
        optimiser: over the model's parameters.
        config: lengths, cadences, clipping, precision.
        run: directory that takes metrics, timing and checkpoints.
        seed: of everything random.
        facts: JSON-like facts for each checkpoint: package, version, config, what a forecaster needs to rebuild.
        constants: tensors for each checkpoint that training never changes, a scaler for instance.
        schedule: learning-rate schedule.
        evaluate: metrics of a model in evaluation mode, on all ranks, the same on each.
        select: which of them decides about `best.safetensors` and early stopping.
        ema: an `ema_pytorch.EMA` of `model`; its average is then what is evaluated and kept as best.
        resume: a checkpoint of this run.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        Diverged: the loss, its gradient or the weights are not finite; the last checkpoint is from before that.
        Interrupted: SIGTERM or Ctrl-C came; the run is saved at the last full step.
        UserError: the disk is full, or the device cannot do what `config` asks.
    """
    accelerator = make_accelerator(device, config.precision)
    loop = _Loop(model, step, batches, optimiser, config, run, seed, dict(facts), dict(constants or {}), schedule,
                 evaluate, select or Select(min_delta=config.min_delta), ema, accelerator)  # fmt: skip
    if resume is not None:
        try:
            loop.restore(resume)
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{resume.path}: does not fit this run: {why}; expected a checkpoint of it") from error
    loop.check_space()
    loop.prepare()
    at = loop.at
    total = loop.total_steps()
    with StopSignals() as loop.stop, Progress(total, done=at.step, visible=loop.main and not quiet) as loop.progress:
        while not at.finished:
            loop.train_epoch()
            loop.evaluate_if_due()
            at.epoch, at.batch = at.epoch + 1, 0
            at.stopped_early = 0 < config.patience <= loop.select.failures
            at.finished = at.stopped_early or at.epoch >= config.epochs or loop.steps_used_up()
        loop.save()
    loop.close()
    return FitResult(run, at.step, at.epoch, loop.select.best, at.stopped_early)


class _Loop:
    stop: StopSignals
    progress: Progress

    def __init__(self, model: nn.Module, step: Callable[..., Loss], batches: Batches, optimiser: torch.optim.Optimizer,
                 config: LoopConfig, run: Run, seed: int, facts: dict[str, Any], constants: dict[str, Tensor],
                 schedule: Schedule | None, evaluate: Callable[[nn.Module], Mapping[str, float]] | None, select: Select,
                 ema: Any, accelerator: Any) -> None:  # fmt: skip
        self.raw_model, self.step, self.batches, self.raw_optimiser = model, step, batches, optimiser
        self.config, self.run, self.seed, self.facts, self.constants = config, run, seed, facts, constants
        self.schedule, self.evaluate, self.select, self.ema = schedule, evaluate, select, ema
        self.accelerator = accelerator
        self.rank, self.ranks = int(accelerator.process_index), int(accelerator.num_processes)
        self.main = bool(accelerator.is_main_process)
        self.at = _Position()
        self.saved: list[int] = []
        self.board: Any = None
        self.clock = time.monotonic()

    def prepare(self) -> None:
        """Hand model and optimiser to accelerate, and open what writes."""
        if self.config.deterministic:
            torch.use_deterministic_algorithms(True)
        self.model, self.optimiser = self.accelerator.prepare(self.raw_model, self.raw_optimiser)
        self.device = self.accelerator.device
        if self.ema is not None:
            self.ema.to(self.device)
        self.parameters = [p for p in self.raw_model.parameters() if p.requires_grad]
        self.feed = Feed(self.batches, epochs=self.config.epochs, workers=self.config.workers,
                         epoch=self.at.epoch, batch=self.at.batch, rank=self.rank, ranks=self.ranks)  # fmt: skip
        if self.config.tensorboard and self.main:
            self.board = _open_board(self.run, self.at.step)

    def close(self) -> None:
        self.feed.close()
        if self.board is not None:
            self.board.close()
        self.accelerator.wait_for_everyone()

    def total_steps(self) -> int:
        per_epoch = -(-self.feed.length(self.at.epoch) // self.config.accumulate) if not self.at.finished else 0
        total = self.at.step + (self.config.epochs - self.at.epoch) * per_epoch
        return min(total, self.config.max_steps or total)

    def steps_used_up(self) -> bool:
        return 0 < self.config.max_steps <= self.at.step

    def train_epoch(self) -> None:
        at, length = self.at, self.feed.length(self.at.epoch)
        if self.schedule is not None and at.batch == 0:
            self.schedule.epoch_start(at.epoch)
        self.model.train()
        while at.batch < length and not self.steps_used_up():
            stop = self.train_step(min(self.config.accumulate, length - at.batch))
            if stop:
                self.leave(stop)
            if at.step % self.config.checkpoint_every == 0:
                self.save()

    def train_step(self, parts: int) -> int:
        """Do one optimiser step over `parts` batches; return the signal that asks to stop, or 0."""
        at = self.at
        self.seed_all("step", at.step, self.rank)
        sums, ids = self.backward(parts)
        signal = int(sums.pop("stop"))
        weight = sums.pop("weight")
        means = {name: value / weight for name, value in sums.items()}
        if parts > 1 or self.ranks > 1:
            # Each backward pass was weighted by its targets, and ranks were averaged: make it the mean over all.
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.ranks / weight)
        norm = self.clip()
        for name, value in {**means, "norm of the gradient": norm}.items():
            if not math.isfinite(value):
                raise self.diverged(name, value, ids)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update()
        at.step, at.batch = at.step + 1, at.batch + parts
        if self.schedule is not None:
            self.schedule.step_end(at.step)
        self.log_step(means, weight, norm)
        return signal

    def backward(self, parts: int) -> tuple[dict[str, float], Indices]:
        """Accumulate gradients over `parts` batches; return sums over batches and ranks, and the samples."""
        sums: dict[str, Tensor] = {}
        seen: list[Indices] = []
        alone = parts == 1 and self.ranks == 1
        for part in range(parts):
            fed = next(self.feed)
            seen.append(fed.ids)
            context = StepContext(self.at.step, self.at.epoch, fed.mine, self.device)
            last = part == parts - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self.step(self.model, _to_device(fed.batch, self.device), context)
                weight = 0.0 if fed.idle else loss.weight
                self.accelerator.backward(loss.total if alone else loss.total * weight)
            for name, value in {"weight": torch.tensor(1.0), "loss": loss.total, **loss.parts}.items():
                sums[name] = sums.get(name, torch.tensor(0.0)) + value.detach().double().cpu() * weight
        # A signal may reach one rank only, so the wish to stop travels with the losses.
        sums["stop"] = torch.tensor(float(self.stop.number or 0))
        return sum_over_ranks(sums, largest=("stop",), ranks=self.ranks, device=self.device), np.concatenate(seen)

    def clip(self) -> float:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.clip_norm > 0.0:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.clip_norm, norm)
        return float(norm)

    def evaluate_if_due(self) -> None:
        at = self.at
        last = at.epoch + 1 >= self.config.epochs or self.steps_used_up()
        due = last or (at.epoch + 1) % self.config.evaluate_every == 0
        if self.evaluate is None or not due or at.evaluated_step == at.step:
            return
        self.seed_all("evaluate")
        model: nn.Module = self.raw_model if self.ema is None else self.ema.ema_model
        model.eval()
        try:
            # Other ranks wait in collectives, so only a single process may drop an evaluation half-way.
            guard = self.stop.interruptible() if self.ranks == 1 else contextlib.nullcontext()
            with guard, torch.no_grad():
                values = dict(self.evaluate(model))
        except StopNow:
            self.leave(self.stop.number or 0)
            return
        at.evaluated_step = at.step
        self.log(values)
        value = values[self.select.name]
        if not math.isfinite(value):
            raise Diverged(f"step {at.step}: {self.select.name} is {value}; the last checkpoint is good")
        if self.schedule is not None:
            self.schedule.evaluated(value)
        if self.select.improved(value) and self.main:
            self.save_best(model, values)

    def log_step(self, means: Mapping[str, float], weight: float, norm: float) -> None:
        at = self.at
        for name, value in {**means, "gradient_norm": norm}.items():
            total = at.window.setdefault(name, [0.0, 0.0])
            total[0] += value * weight
            total[1] += weight
        rate = self.raw_optimiser.param_groups[0]["lr"]
        self.progress.update(at.step, f"epoch {at.epoch + 1} of {self.config.epochs}, loss {means['loss']:.4f}")
        if at.step % self.config.log_every == 0:
            values = {f"train/{name}": total[0] / total[1] for name, total in at.window.items()}
            self.log({**values, "train/learning_rate": rate, "epoch": at.epoch})
            at.window.clear()
            self.log_timing()

    def log(self, values: Mapping[str, float]) -> None:
        if not self.main:
            return
        self.run.log(self.at.step, values)
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, self.at.step)

    def log_timing(self) -> None:
        now = time.monotonic()
        if self.main:
            self.run.log_timing(self.at.step, {"step_s": round((now - self.clock) / self.config.log_every, 6)})
        self.clock = now

    def leave(self, number: int) -> None:
        self.save()
        self.feed.close()
        self.accelerator.wait_for_everyone()
        raise Interrupted(number, f"stopped at step {self.at.step}; go on with --resume {self.run.folder}")

    def diverged(self, name: str, value: float, ids: Indices) -> Diverged:
        names = ", ".join(self.batches.names(ids)[:8]) + (", …" if len(ids) > 8 else "")
        what = f"the {name} is {value} {self.rate_in_words()}, samples {names}; {self.last_good_in_words()}"
        return Diverged(f"step {self.at.step}: {what}; lower the learning rate or look at these samples")

    def rate_in_words(self) -> str:
        return f"at learning rate {self.raw_optimiser.param_groups[0]['lr']:g}"

    def last_good_in_words(self) -> str:
        files = self.run.step_files()
        return f"the last good checkpoint is {files[-1]}" if files else "there is no checkpoint yet"

    def check_weights(self) -> None:
        """Refuse weights that are not finite: an update may overflow although its gradient is finite."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            what = f"the weights are not finite {self.rate_in_words()}; {self.last_good_in_words()}"
            raise Diverged(f"step {self.at.step}: {what}; lower the learning rate or the weight decay")

    def seed_all(self, *path: int | str) -> None:
        seed = derive_seed(self.seed, *path)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  libraries draw from the global generator

    def check_space(self) -> None:
        """Refuse to start where two checkpoints and the best weights would not fit."""
        weights = sum(t.numel() * t.element_size() for t in self.raw_model.state_dict().values())
        needed = weights * (3 * 3 + 1) if self.ema is None else weights * (4 * 3 + 1)
        free = shutil.disk_usage(self.run.folder).free
        if self.main and free < needed:
            raise UserError(f"{self.run.folder}: {free:,} bytes free; expected {needed:,} for the checkpoints of this "
                            "run; free some space or name another folder with --run")  # fmt: skip

    def save(self) -> None:
        """Write the checkpoint of this step, then drop all but it and the one before."""
        self.check_weights()
        if not self.main:
            return
        optim, optim_tree = pack(self.raw_optimiser.state_dict(), "optim")
        sched, sched_tree = pack(self.schedule.state_dict() if self.schedule else {}, "schedule")
        tensors = {f"model/{name}": value for name, value in self.raw_model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema/{name}": value for name, value in self.ema.state_dict().items()}
        tensors |= {f"constants/{name}": value for name, value in self.constants.items()} | optim | sched
        loop = {"at": asdict(self.at), "select": asdict(self.select), "optim": optim_tree, "schedule": sched_tree,
                "metrics_bytes": self.run.metrics_length()}  # fmt: skip
        save_checkpoint(self.run.step_file(self.at.step), tensors, {**self.facts, "step": self.at.step, "loop": loop})
        self.saved = [*(step for step in self.saved if step != self.at.step), self.at.step][-2:]
        self.run.prune({self.run.step_file(step) for step in self.saved})

    def save_best(self, model: nn.Module, values: Mapping[str, float]) -> None:
        tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"constants/{name}": value for name, value in self.constants.items()}
        # JSON has no NaN; a metric beside the selected one may be undefined on this data.
        known = {name: value if math.isfinite(value) else None for name, value in values.items()}
        facts = {**self.facts, "step": self.at.step, "metrics": known}
        save_checkpoint(self.run.best, tensors, facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put model, optimiser, schedule, average and position back to where `checkpoint` was written."""
        loop = checkpoint.metadata["loop"]
        self.raw_model.load_state_dict(checkpoint.part("model"))
        if self.ema is not None:
            self.ema.load_state_dict(checkpoint.part("ema"))
        self.raw_optimiser.load_state_dict(unpack(loop["optim"], checkpoint.tensors))
        if self.schedule is not None:
            self.schedule.load_state_dict(unpack(loop["schedule"], checkpoint.tensors))
        self.at = _Position(**loop["at"])
        self.select = Select(**loop["select"])
        self.saved = [*[step for step in self.run.steps() if step < self.at.step][-1:], self.at.step]
        if self.main:
            self.run.cut_metrics(loop["metrics_bytes"])


def _to_device(batch: Any, device: torch.device) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(batch, device)


def _open_board(run: Run, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("fit.tensorboard: tensorboard is not installed; install the extra `tracking`") from None
    return SummaryWriter(run.folder / "tensorboard", purge_step=step)
