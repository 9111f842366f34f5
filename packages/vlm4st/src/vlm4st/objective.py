"""What training calls: a model whose `forward` makes the loss, and whose state is what training changes."""

from __future__ import annotations

import logging
import resource
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stcore.training.forwarded import Forwarded
from vlm4st.config import BackboneConfig, LossConfig
from vlm4st.models.prediction_head import PredictionHead

_log = logging.getLogger(__name__)
TIMESTAMPS = ("weekday_embed", "timeofday_embed", "timestamp_proj")
"""Parts of the names of parameters that only timestamps are read with."""
Field = Float[Tensor, "batch horizon height width"]


class Sums(NamedTuple):
    """Errors of a batch, summed over the cells that count."""

    squared: Float[Tensor, ""]
    absolute: Float[Tensor, ""]
    cells: Float[Tensor, ""]


class Made(NamedTuple):
    """What a forward pass yields."""

    forecast: Field
    """On the model's scale, without its gradient where there are sums."""
    sums: Sums | None
    """Errors, where a target was given."""
    seen: Any
    """What the model's parts made of the input, where somebody watches."""


def carried(model: nn.Module, frames: Float[Tensor, "batch time row column"] | None) -> Tensor | None:
    """Return what forecasts hold of known frames, or of what the model's grid could not hold of them.

    Args:
        model: an `Objective`, or what wraps it.
        frames: these frames; None where there is nothing to speak of.
    """
    head = next(part for part in model.modules() if isinstance(part, PredictionHead))
    if frames is None:
        return None
    with torch.no_grad():
        device = next(head.parameters()).device
        found = head.carried(frames.to(device))
    return None if found is None else found.to(frames.device)


class Objective(Forwarded):
    """A model whose `forward` is what training calls: the forecast, and with a target its errors.

    Its state leaves out what is frozen, and loading fills that in from the model itself.

    Args:
        module: the model, with what is frozen frozen.
        backbone: how frozen weights are kept.
    """

    def __init__(self, module: nn.Module, backbone: BackboneConfig | None = None) -> None:
        super().__init__(module)
        self.backbone = backbone or BackboneConfig()
        self.frozen = frozenset(name for name, value in module.named_parameters() if not value.requires_grad)
        self._of_timestamps = [name for name, value in module.named_parameters()
                               if value.requires_grad and any(part in name for part in TIMESTAMPS)]  # fmt: skip
        self._sharded = False
        if self.backbone.shard:
            # The exchange of gradients between processes would copy them to all, and is not meant for shares of them.
            self._ddp_params_and_buffers_to_ignore = [f"module.{name}" for name in self.frozen]
        self.register_state_dict_post_hook(_without_frozen)
        self.register_load_state_dict_pre_hook(_with_frozen)

    def forward(
        self,
        x: Float[Tensor, "batch time height width"],
        timestamps: Int[Tensor, "batch time 2"] | None,
        target: Field | None = None,
        mask: Bool[Tensor, "#batch #horizon height width"] | None = None,
        watch: bool = False,
    ) -> Made:
        """Forecast, and measure.

        Args:
            x: what is known, on the model's scale and grid.
            timestamps: weekday and half hour of each frame.
            target: what came.
            mask: where it counts.
            watch: also return what the model's parts made of the input.
        """
        self._shard_once(x.device)
        made = self.module(x, timestamps=timestamps, return_intermediate=watch)
        prediction, seen = made if watch else (made, None)
        forecast = prediction.squeeze(-1)
        if target is None:
            return Made(forecast, None, seen)
        sums = error_sums(forecast, target, mask)
        if timestamps is None and torch.is_grad_enabled():
            # Processes exchange gradients of all that is trained; what reads timestamps has to have one, too.
            idle = sum(self.module.get_parameter(name).sum() for name in self._of_timestamps)
            sums = sums._replace(squared=sums.squared + 0.0 * idle)
        return Made(forecast.detach(), sums, seen)

    def _shard_once(self, device: torch.device) -> None:
        # Only now are the processes known to each other, and the model is where it is going to be.
        if self.backbone.shard and not self._sharded and torch.distributed.is_initialized():
            from vlm4st.backbone import frozen_bytes_here, shard

            whole = frozen_bytes_here(self.module)
            here = shard(self.module, device=device)
            self._sharded = True
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            _log.info("process %d: %s of %s bytes of frozen weights stay here; peak memory so far %s MB",
                      torch.distributed.get_rank(), f"{here:,}", f"{whole:,}", f"{peak:,}")  # fmt: skip


def error_sums(forecast: Field, target: Field, mask: Tensor | None) -> Sums:
    """Return the sums of squared and absolute errors over the cells that count, in full precision."""
    error = forecast.float() - target.float()
    if mask is None:
        return Sums(error.square().sum(), error.abs().sum(), error.new_tensor(float(error.numel())))
    counted = mask.expand_as(error)
    error = error.where(counted, 0.0)
    return Sums(error.square().sum(), error.abs().sum(), counted.sum().to(error.dtype))


def means_of(sums: Sums) -> tuple[Tensor, Tensor]:
    """Return the means of squared and of absolute errors over the cells that count."""
    cells = sums.cells.clamp_min(1.0)
    return sums.squared / cells, sums.absolute / cells


def total_loss(mse: Tensor, mae: Tensor, loss: LossConfig) -> Tensor:
    """Return what is minimised."""
    return loss.mse_weight * mse + loss.mae_weight * mae


def _without_frozen(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, Objective)
    for name in module.frozen:
        state.pop(f"{prefix}{name}", None)


def _with_frozen(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(module, Objective)
    held = dict(module.module.named_parameters())
    for name in module.frozen:
        state.setdefault(f"{prefix}module.{name}", held[name])
