"""One layer of TrajGRU: a GRU whose state is looked up along learned trajectories.

Shi et al., "Deep Learning for Precipitation Nowcasting", NeurIPS 2017 (arXiv 1706.03458), eqs. 1 and 2. Source:
dreaming-coder/Spatiotemporal-Prediction (MIT), `nn/TrajGRU/TrajGRUCell.py`. Differs in: the update is the paper's,
`(1 - z) * new + z * old` (the original adds `z * new`, so that its gate cancels and the state has no memory of its own;
`update="reference"` does the same for its old weights); all links are warped at once and go through one 1x1
convolution; what is multiplied by zero is not computed.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models.configs import Update
from stpred.models.recurrence import walk

SLOPE = 0.2
"""Of every LeakyReLU."""
FLOW_WIDTH, FLOW_KERNEL = 32, 5


def warp(
    frames: Float[Tensor, "batch channel height width"], flows: Float[Tensor, "batch link 2 height width"]
) -> Float[Tensor, "batch channel link height width"]:
    """Look each pixel up where its flow (right, down; in pixels) points to: bilinear, zero outside.

    The lookups of all links are one tall frame, so that `frames` is read in place rather than copied for each link.
    """
    links, _, height, width = flows.shape[1:]
    positions = flows.float()  # half a pixel is lost at column 64 in bfloat16
    right = torch.arange(width, device=flows.device) + positions[:, :, 0]
    down = torch.arange(height, device=flows.device)[:, None] + positions[:, :, 1]
    grid = torch.stack((2.0 * right / max(width - 1, 1) - 1.0, 2.0 * down / max(height - 1, 1) - 1.0), dim=-1)
    tall = F.grid_sample(frames.float(), grid.flatten(1, 2), align_corners=True)
    return tall.to(frames.dtype).unflatten(2, (links, height))


class TrajGRUCell(nn.Module):
    """Gates in the order update, reset, candidate.

    Args:
        in_channels: channels of the input.
        hidden_channels: width of the state.
        kernel_size: of the convolution of the input, 3 or 5.
        L: links, the places of the last state that each pixel looks at.
        update: "corrected" (the paper's) or "reference" (the original code's, without a gate).
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, kernel_size: int = 5, L: int = 5, *, update: Update = "corrected"
    ) -> None:
        super().__init__()
        if kernel_size not in (3, 5):
            raise UserError(f"kernel_size: {kernel_size}; expected 3 or 5")
        self.hidden_channels = hidden_channels
        self.num_links = L
        self.update: Update = update
        flow = FLOW_KERNEL // 2
        self.flow_x = nn.Conv2d(in_channels, FLOW_WIDTH, FLOW_KERNEL, padding=flow)
        self.flow_h = nn.Conv2d(hidden_channels, FLOW_WIDTH, FLOW_KERNEL, padding=flow)
        self.flow = nn.Conv2d(FLOW_WIDTH, 2 * L, FLOW_KERNEL, padding=flow)
        self.conv_x = nn.Conv2d(in_channels, 3 * hidden_channels, kernel_size, padding=kernel_size // 2)
        self.links = nn.Conv2d(hidden_channels * L, 3 * hidden_channels, 1)
        # As strong as the original's convolutions, one for each link.
        nn.init.uniform_(self.links.weight, -1 / math.sqrt(hidden_channels), 1 / math.sqrt(hidden_channels))

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"] | None = None,
        h: Float[Tensor, "batch hidden height width"] | None = None,
    ) -> tuple[Float[Tensor, "batch hidden height width"], Float[Tensor, "batch hidden height width"]]:
        """Take one step; a missing input or state is zero. Returns the new state twice, as output and as state."""
        inputs = None if x is None else x[None]
        outputs, state = self.run(inputs, h, steps=1)
        return outputs[0], state

    def flows(
        self, x: Float[Tensor, "batch channel height width"] | None, h: Float[Tensor, "batch hidden height width"]
    ) -> Float[Tensor, "batch link 2 height width"]:
        """Where each pixel looks the state up: right and down, in pixels."""
        return self._flows(_all_steps(None if x is None else x[None], self.flow_x.weight, self.flow_x.bias, 1)[0], h)

    def run(
        self,
        inputs: Float[Tensor, "time batch channel height width"] | None,
        state: Float[Tensor, "batch hidden height width"] | None,
        *,
        steps: int,
        checkpoint_every: int = 0,
        flows: list[Tensor] | None = None,
    ) -> tuple[Float[Tensor, "time batch hidden height width"], Float[Tensor, "batch hidden height width"]]:
        """Take all steps.

        Args:
            inputs: frames, time first; None stands for zeros (then `state` is needed) and costs nothing.
            state: state before the first step; None stands for zeros and costs nothing.
            steps: number of steps.
            checkpoint_every: see `walk`.
            flows: a list to which the flows of every step are added, (batch, link, 2, height, width).

        Returns:
            States of all steps, and the last one.
        """
        if inputs is None and state is None:
            raise ValueError("inputs, state: both None; expected at least one of them")

        def run(x: Tensor | None, h: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
            return self._run(x, h, count, flows)

        outputs, last = walk(run, inputs, state, steps=steps, every=0 if flows is not None else checkpoint_every)
        assert last is not None
        return outputs, last

    def _run(
        self, inputs: Tensor | None, h: Tensor | None, steps: int, record: list[Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        gates_x = _all_steps(inputs, self._live(self.conv_x.weight), self._live(self.conv_x.bias), steps)
        flow_x = _all_steps(inputs, self.flow_x.weight, self.flow_x.bias, steps)
        outputs: list[Tensor] = []
        for gates, trajectory in zip(gates_x.unbind(), flow_x.unbind(), strict=True):  # each step needs the last state
            flows = None if h is None else self._flows(trajectory, h)
            if record is not None and flows is not None:
                record.append(flows)
            h = self._update(gates, h, flows)
            outputs.append(h)
        return torch.stack(outputs), h

    def _live(self, parameter: Tensor | None) -> Tensor:
        """Rows of the gates that take part: without a gate the update's do not."""
        assert parameter is not None
        return parameter[self.hidden_channels :] if self.update == "reference" else parameter

    def _flows(self, from_x: Tensor, h: Tensor) -> Tensor:
        hidden = F.leaky_relu(from_x + self.flow_h(h), SLOPE)
        return rearrange(self.flow(hidden), "batch (link direction) ... -> batch link direction ...", direction=2)

    def _update(self, from_x: Tensor, h: Tensor | None, flows: Tensor | None) -> Tensor:
        """Apply the gates; a state of None is zero, and so is then whatever is looked up in it."""
        weight, bias = self._live(self.links.weight), self._live(self.links.bias)
        if h is None or flows is None:
            from_h = bias[None, :, None, None]
        else:
            from_h = F.conv2d(warp(h, flows).flatten(1, 2), weight, bias)
        parts = 2 if self.update == "reference" else 3
        *z_x, r_x, new_x = from_x.chunk(parts, dim=1)
        *z_h, r_h, new_h = from_h.chunk(parts, dim=1)
        new = F.leaky_relu(torch.addcmul(new_x, torch.sigmoid(r_x + r_h), new_h), SLOPE).to(self.links.weight.dtype)
        if not z_x:
            return new
        z = torch.sigmoid(z_x[0] + z_h[0])
        return torch.addcmul(new, z, -new if h is None else h - new)


def _all_steps(inputs: Tensor | None, weight: Tensor, bias: Tensor | None, steps: int) -> Tensor:
    """Convolve the inputs of all steps at once, (time, batch, ...); without inputs the bias is left."""
    assert bias is not None
    if inputs is None:
        return bias[:, None, None].expand(steps, 1, -1, 1, 1)
    return F.conv2d(inputs.flatten(0, 1), weight, bias, padding=weight.shape[-1] // 2).unflatten(0, (steps, -1))
