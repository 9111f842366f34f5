"""Train a forecaster of grids: what one step is and what is evaluated. The loop is the core's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stcore.cli import Outcome, refuse_changes, run_config, run_of
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.sampling import derive_seed
from stcore.training.checkpoint import Checkpoint
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.ranks import make_accelerator
from stcore.training.rates import RateOfTime
from stcore.training.run import load_for_resume
from stcore.training.starting import load_start, load_weights, moving_average, new_run, require_package
from vlm4st.backbone import FILE, Reference, check_frozen, halve, keep_in_run, reference_to, restore_frozen
from vlm4st.config import TrainConfig
from vlm4st.data import Dataset, Mixture, Source, largest_grid, read_datasets, sources_of, training_batches
from vlm4st.data_options import WindowShape
from vlm4st.fitted_start import fitted_on, start_fitted, taught_by_others
from vlm4st.models import build
from vlm4st.objective import Objective, means_of, total_loss
from vlm4st.options import TrainOptions
from vlm4st.presets import DEFAULT_PRESET
from vlm4st.schedules import epoch_rate, step_rate
from vlm4st.validation import Validation
from vlm4st.watching import Board, real_errors

if TYPE_CHECKING:
    from vlm4st.models.vlm4st import VLM4ST  # brings timm and transformers, which a look at the data need not wait for

HARMLESS = ("fit.tensorboard", "fit.workers", "backbone.shard", "backbone.checkpointing", "data.cache")
"""What may differ when a run goes on."""


def train(
    config: TrainConfig,
    *,
    sources: Sequence[Source] | None = None,
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
        sources: the data sets, when they are at hand already; otherwise `config.data` says where they are.
        run: folder of the run; None makes a fresh one under `runs/`.
        resume: a run or one of its checkpoint files to go on with; `config` must be that run's.
        init_from: a run or checkpoint whose weights a new run starts from.
        preset: name that a fresh folder gets.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.

    Raises:
        UserError: data or configuration cannot be used.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    check_backbone_file(config)
    directory, checkpoint = load_for_resume(resume) if resume else (None, None)
    start = load_start(init_from) if init_from else None
    for found in (checkpoint, start):
        if found is not None:
            require_package(found, "vlm4st")
    if sources is None:
        config, sources = read(config)
    batches = training_batches(sources, config.data, seed=config.seed)
    accelerator = make_accelerator(device, config.fit.precision)
    model = make_model(config)
    if directory is not None and (directory.folder / FILE).is_file():
        restore_frozen(model, directory.folder / FILE)
    reference = reference_to(model, config.model.vlm.pretrained_path)
    if checkpoint is not None:
        check_frozen(model, Reference.of(checkpoint), where=reference.file or str(checkpoint.path))
    objective = prepare(model, config)
    if start is not None:
        _load(objective, start, fresh_head=config.fresh_head)
    if checkpoint is None and (start is None or config.fresh_head or taught_by_others(start, sources)):
        taught = 0 if start is None or config.fresh_head else config.taught_samples
        start_fitted(model, training_batches(fitted_on(sources), config.data, seed=config.seed), config.loss,
                     taught=taught)  # fmt: skip
    optimiser = make_optimiser(objective, config)
    preset = checkpoint.metadata["preset"] if checkpoint else preset
    directory = directory or new_run(run, config, package="vlm4st", preset=preset, accelerator=accelerator)
    board = Board(directory.folder if config.fit.tensorboard and accelerator.is_main_process else None)
    if accelerator.is_main_process:
        keep_in_run(model, reference, directory)
    if config.backbone.storage == "bf16":
        # Only now: what is kept and known by its hash are the weights as they came.
        halve(model)
    rates = Rates(optimiser, config, batches)
    validate = Validation(sources, config, board, rates, accelerator)
    try:
        return fit(
            objective, Step(config, board, spans_of(sources)), batches, optimiser, config=config.fit,
            seed=config.seed, run=directory, facts=facts_of(config, sources, reference, preset=preset),
            constants=constants_of(sources), schedule=rates, evaluate=validate, select=Select("val/loss"),
            ema=moving_average(objective, config.fit.ema_decay), resume=checkpoint, device=device, quiet=quiet,
        )  # fmt: skip
    finally:
        board.close()


def _load(objective: Objective, start: Checkpoint, *, fresh_head: bool) -> None:
    """Take the weights of another run, or all but the head."""
    head = objective.module.get_submodule("prediction_head")
    before = {name: value.clone() for name, value in head.state_dict().items()}
    load_weights(objective, start)
    if fresh_head:
        head.load_state_dict(before)


def command(options: TrainOptions) -> Outcome:
    """Do `vlm4st train`."""
    if options.resume is not None:
        refuse_changes(run_config(TrainConfig, run_of(options.resume)), options.settings, harmless=HARMLESS)
    preset = options.preset or (DEFAULT_PRESET if options.config is None else "custom")
    result = train(options.settings, run=options.run, resume=options.resume, init_from=options.init_from,
                   preset=preset, device=device_of(options), quiet=options.quiet)  # fmt: skip
    return Outcome(result.words("val/loss"), result.data())


def device_of(options: Any) -> str:
    """Return the device that a command computes on; `--gpu N` leaves only that GPU to see.

    Raises:
        UserError: there is no such number.
    """
    if options.gpu is None:
        return options.device
    import os

    if options.gpu < 0:
        raise UserError(f"--gpu: {options.gpu}; expected the number of a GPU, 0 or more; use --device cpu for none")
    os.environ["CUDA_VISIBLE_DEVICES"] = str(options.gpu)
    return "cuda"


def check_backbone_file(config: TrainConfig) -> None:
    """Refuse a backbone that is not there, before any data are read.

    Raises:
        UserError: names the file, and ways on.
    """
    path = config.model.vlm.pretrained_path
    if path is not None and not Path(path).is_file():
        raise UserError(
            f"model.vlm.pretrained-path: {path}: no such file; expected weights of ALBEF, which its authors publish; "
            "name yours with --model.vlm.pretrained-path, or train from scratch with --preset small"
        )


def read(config: TrainConfig) -> tuple[TrainConfig, list[Source]]:
    """Read the data sets, and return the configuration with the grid that they ask for.

    Raises:
        UserError: a source cannot be read, or holds too little.
    """
    datasets = read_datasets(config.data, seed=config.seed)
    config = with_grid(config, datasets)
    sources = sources_of(datasets, config.data, WindowShape.of(config.model), target=config.few_shot.target,
                         few_shot=config.few_shot)  # fmt: skip
    return config, sources


def with_grid(config: TrainConfig, datasets: Sequence[Dataset]) -> TrainConfig:
    """Return the configuration with the largest grid of the data as the model's, where it is to follow them."""
    if not config.fit_grid:
        return config
    height, width = largest_grid(datasets)
    return replace(config, model=replace(config.model, H=height, W=width), fit_grid=False)


def make_model(config: TrainConfig, *, load_backbone: bool = True) -> VLM4ST:
    """Return the model of a configuration, what is not read from a file being a function of the seed."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    ablation = None if config.ablation == "none" else config.ablation
    model = build(config.model, ablation, load_backbone=load_backbone)
    if config.backbone.checkpointing:
        model.set_gradient_checkpointing(True)
    return model


def prepare(model: VLM4ST, config: TrainConfig) -> Objective:
    """Return what training calls."""
    objective = Objective(model, config.backbone)
    if config.compile:
        objective.compile()
    return objective


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW or Adam over the parameters that are trained, in two groups where not all of them decay."""
    options = config.optimiser
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    decaying = [value for name, value in trained.items() if options.decay == "all" or decays(name, value)]
    kept = {id(value) for value in decaying}
    rest = [value for value in trained.values() if id(value) not in kept]
    groups = [{"params": decaying, "weight_decay": options.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    kind = torch.optim.AdamW if options.kind == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=options.learning_rate,
                betas=(options.beta1, options.beta2), fused=True)  # fmt: skip


UNDECAYED = ("embed", "token", "prototypes", "queries", "pos_encoding", "latent", "carry")
"""Parts of the names of parameters that are looked up or added, not multiplied with, or that start from a fit."""


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter decays: a matrix or kernel, but no embedding, prototype, token or query.

    >>> decays("head.ffn.0.weight", torch.ones(2, 2)), decays("head.ffn.0.bias", torch.ones(2))
    (True, False)
    >>> decays("memory.coarse_prototypes", torch.ones(2, 2)), decays("patch_embed.proj.weight", torch.ones(2, 2, 2, 2))
    (False, True)
    """
    if parameter.dim() < 2:
        return False
    leaf = name.replace("patch_embed", "patches")
    return not any(part in leaf for part in UNDECAYED)


class Rates(RateOfTime):
    """The learning rate, a function of step or epoch alone; nothing has to be remembered."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: TrainConfig, batches: Mixture) -> None:
        super().__init__(optimiser)
        self._config = config
        per_epoch = -(-len(batches.order(0)) // config.fit.accumulate)
        total = config.fit.epochs * per_epoch
        self._steps = min(total, config.fit.max_steps or total)
        self.epoch = 0
        self.step_end(0)

    @property
    def rate(self) -> float:
        """The learning rate that is in force."""
        return self._optimiser.param_groups[0]["lr"]

    def epoch_start(self, epoch: int) -> None:
        self.epoch = epoch
        if self._config.schedule.kind != "smooth":
            self.set_rate(epoch_rate(epoch, rate=self._config.optimiser.learning_rate, epochs=self._config.fit.epochs,
                                     schedule=self._config.schedule))  # fmt: skip

    def step_end(self, step: int) -> None:
        if self._config.schedule.kind == "smooth":
            self.set_rate(step_rate(step, rate=self._config.optimiser.learning_rate, steps=self._steps,
                                    schedule=self._config.schedule))  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


class Step:
    """One training step: the error of the forecast."""

    def __init__(self, config: TrainConfig, board: Board, spans: Tensor) -> None:
        self._loss, self._board = config.loss, board
        self._spans = spans if len(spans) == 1 else None

    def __call__(self, model: nn.Module, batch: dict[str, Tensor], context: StepContext) -> Loss:
        inputs = (batch["x"], batch.get("timestamps"), batch["target"], batch.get("mask"))
        made = model(*inputs, watch=self._board.looks_at(context.step))
        mse, mae = means_of(made.sums)
        total = total_loss(mse, mae, self._loss)
        if self._board.wanted:
            real = {} if self._spans is None else real_errors((made.forecast - batch["target"]).float(), self._spans)
            self._board.losses(context.step, context.epoch, {"loss": total, "mse": mse, "mae": mae}, real)
            if made.seen is not None:
                self._board.weights(context.step, made.seen)
        return Loss(total, max(float(made.sums.cells), 1.0), {"mse": mse, "mae": mae})


def spans_of(sources: Sequence[Source]) -> Tensor:
    """Return units to one unit of the model's scale, of each channel of each data set."""
    return torch.cat([torch.from_numpy(source.space.span / 2.0) for source in sources]).float()


def constants_of(sources: Sequence[Source]) -> dict[str, Tensor]:
    """Return the scales of the data sets, as a checkpoint keeps them."""
    found: dict[str, Tensor] = {}
    for number, source in enumerate(sources):
        found |= source.space.constants(str(number))
    return found


def facts_of(config: TrainConfig, sources: Sequence[Source], reference: Reference, *, preset: str) -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors."""
    described = [describe(source) for source in sources]
    return {"package": "vlm4st", "version": version("vlm4st"), "core": version("stcore"), "preset": preset,
            "config": to_plain(config), "backbone": reference._asdict(), "sources": described}  # fmt: skip


def describe(source: Source) -> dict[str, Any]:
    """Return what a checkpoint says of a data set."""
    return {"name": source.name, "channels": list(source.channels), "units": list(source.units),
            "space": source.space.facts(), "timed": source.timed, "step_seconds": source.step_seconds,
            "trained": len(source.training), "evaluated": source.evaluated}  # fmt: skip
