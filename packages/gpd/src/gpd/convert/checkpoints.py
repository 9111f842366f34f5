"""Checkpoints of the original's diffusion stage (`model-<step>.pt`) as runs to generate from.

A checkpoint holds the diffusion model with the denoiser under `model.`, the same once more as a moving average, and the
optimiser, which is of no use here. Sizes, schedule and objective are read off its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from gpd.convert.denoisers import from_legacy_state_dict
from gpd.convert.families import FEATURES, ORIGINAL_MODELS, as_original
from gpd.diffusion.configs import DiffusionConfig, ScheduleKind, StageConfig, Target
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.schedule import Schedule
from gpd.diffusion.tokens import RowScaling, make_layout
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.training.checkpoint import save_checkpoint
from stcore.training.config import LoopConfig
from stcore.training.foreign import read_torch_file
from stcore.training.run import Run

_TOKEN_WIDTHS: dict[int, NodeModelConfig] = dict(zip((64, 256), ORIGINAL_MODELS, strict=True))
"""Numbers in a token of the original, and the networks whose rows they are of."""
_AVERAGE, _DENOISER = "ema_model.", "model."
_CLOSE = 1e-6


class LegacyDiffusion(NamedTuple):
    """A diffusion model of the original as ours."""

    stage: StageConfig
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    """What of the denoiser the original never uses."""
    model: NodeModelConfig
    """Networks that its rows are of."""
    features: int
    dims: tuple[int, int]
    step: int


def import_diffusion(
    path: Path, out: Path, *, preset: str = "custom", averaged: bool = True, model: NodeModelConfig | None = None,
    features: int = FEATURES,
) -> Run:  # fmt: skip
    """Write a checkpoint of the original as the best one of a new run.

    Args:
        path: `model-<step>.pt`.
        out: folder of the run.
        preset: name that the run keeps.
        averaged: take the moving average of the weights, not the weights themselves.
        model: networks that its rows are of; None goes by the width of a token.
        features: channels that these networks read.

    Raises:
        UserError: it is no such checkpoint, or the folder is taken.
    """
    try:
        found = convert_diffusion(read_torch_file(path), averaged=averaged, model=model, features=features)
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ').removeprefix('checkpoint: ')}") from error
    layout = make_layout(build_node_model(found.model, features).spec, "legacy", found.stage.denoiser.channels)
    _check(found, TokenTable.of(layout, found.stage.denoiser), path)
    ones = torch.ones(layout.numbers)
    # Rows diffuse as they are; the original bounds them by -1 and 1.
    scaling = RowScaling(mean=0.0 * ones, deviation=ones, low=-ones, high=ones.clone())
    run = Run.create(out, package="gpd", preset=preset, config={"preset": preset, **to_plain(found.stage)})
    facts: dict[str, Any] = {
        "package": "gpd", "version": version("gpd"), "core": version("stcore"), "preset": preset, "stage": "train",
        "config": to_plain(found.stage), "rows": {"model": to_plain(found.model), "features": features},
        "prompts": {"spatial": found.dims[0], "temporal": found.dims[1]}, "made_from": {"file": path.name},
        "sources": [], "step": found.step, "metrics": {}, "dropped": list(found.dropped),
    }  # fmt: skip
    tensors = {f"model/{name}": value for name, value in found.state.items()}
    tensors |= {f"constants/{name}": value for name, value in scaling.constants().items()}
    save_checkpoint(run.best, tensors, facts)
    return run


def convert_diffusion(
    content: Mapping[str, Any], *, averaged: bool = True, model: NodeModelConfig | None = None, features: int = FEATURES
) -> LegacyDiffusion:
    """Turn the content of a checkpoint into ours.

    Args:
        content: of `model-<step>.pt`: step, model, ema and more.
        averaged: take the moving average of the weights, not the weights themselves.
        model: networks that its rows are of; None goes by the width of a token.
        features: channels that these networks read.

    Raises:
        UserError: something of it is missing or unknown.
    """
    state = _part(content, averaged=averaged)
    weights = {name.removeprefix(_DENOISER): value for name, value in state.items() if name.startswith(_DENOISER)}
    # Crowd flows have spatial prompts, speeds have not; only the former have tokens of 64 numbers.
    token = weights.get("_embedding.weight")
    crowd = token is not None and token.shape[-1] == min(_TOKEN_WIDTHS)
    denoiser = from_legacy_state_dict(weights, spatial_on=crowd)
    if model is None and denoiser.channels not in _TOKEN_WIDTHS:
        widths = " or ".join(map(str, _TOKEN_WIDTHS))
        raise UserError(f"checkpoint: tokens of {denoiser.channels} numbers; expected {widths}; name the networks "
                        "whose rows it was made for")  # fmt: skip
    kind, steps = _schedule_of(state)
    diffusion = DiffusionConfig(
        steps=steps, schedule=kind, beta_scale="legacy", objective=_objective_of(state), scaling="raw",
        prompt_dropout=0.0, repeat=30, validation=0.0,
    )  # fmt: skip
    step = content.get("step", 0)
    return LegacyDiffusion(
        StageConfig(denoiser=denoiser.config, diffusion=diffusion, fit=LoopConfig(ema_decay=0.995), seed=0),
        denoiser.state, denoiser.dropped, as_original(model) if model else _TOKEN_WIDTHS[denoiser.channels], features,
        (denoiser.spatial_dim, denoiser.temporal_dim), int(step) if isinstance(step, int) else 0,
    )  # fmt: skip


def _part(content: Mapping[str, Any], *, averaged: bool) -> dict[str, Tensor]:
    """Return the state of the diffusion model: the average where that is asked for and there."""
    found = content.get("ema" if averaged else "model")
    if not isinstance(found, Mapping):
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise UserError(f"checkpoint: holds {keys}; expected {'ema' if averaged else 'model'} among step, model, opt, "
                        "ema, as the original writes them")  # fmt: skip
    items = cast("Mapping[str, Any]", found).items()
    state = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if averaged:
        state = {name.removeprefix(_AVERAGE): value for name, value in state.items() if name.startswith(_AVERAGE)}
    if "betas" not in state or not any(name.startswith(_DENOISER) for name in state):
        some = ", ".join(list(state)[:3]) or "none"
        raise UserError(f"checkpoint: tensors {some}; expected betas and a denoiser under model.")
    return state


def _schedule_of(state: Mapping[str, Tensor]) -> tuple[ScheduleKind, int]:
    betas = state["betas"].flatten().float()
    kinds: tuple[ScheduleKind, ...] = ("linear", "cosine")
    for kind in kinds:
        if len(betas) >= 2 and torch.allclose(Schedule.make(len(betas), kind, "legacy").betas, betas, atol=_CLOSE):
            return kind, len(betas)
    raise UserError(f"checkpoint: {len(betas)} betas of no known schedule; expected linear or cosine")


def _objective_of(state: Mapping[str, Tensor]) -> Target:
    """Return what the denoiser tells, by the weight of the losses; the original's script only knows the velocity."""
    weight = state.get("loss_weight")
    if weight is None or torch.allclose(weight, state["alphas_cumprod"], atol=_CLOSE):
        return "v"
    return "noise" if bool((weight == 1.0).all()) else "x0"


def _check(found: LegacyDiffusion, table: TokenTable, path: Path) -> None:
    """Compare the tensors with those that a model of these sizes has."""
    with torch.device("meta"):
        wanted = Denoiser(found.stage.denoiser, TokenTable(table.tokens, table.channels, table.on_graph.to("meta")),
                          *found.dims).state_dict()  # fmt: skip
    for name, value in wanted.items():
        given = found.state.get(name)
        if given is None or given.shape != value.shape:
            what = "missing" if given is None else f"{tuple(given.shape)}"
            raise UserError(f"{path}: {name} is {what}; expected {tuple(value.shape)}")
    if spare := sorted(found.state.keys() - wanted.keys()):
        raise UserError(f"{path}: {spare[0]} ({len(spare)} in all) left over; expected the weights of one denoiser")
