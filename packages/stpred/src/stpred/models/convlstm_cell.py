"""One layer of ConvLSTM: a single step, and all steps of a sequence with the convolution of the inputs taken out.

Shi et al., "Convolutional LSTM Network", NeurIPS 2015 (arXiv 1506.04214), eq. 3. Source:
dreaming-coder/Spatiotemporal-Prediction (MIT), `nn/ConvLSTM/ConvLSTMCell.py`; parameters carry its names. Differs in:
the paper's peephole of the forget gate can be had (`peephole="full"`; the original owns the parameter and never uses
it), or no peepholes at all, and what is multiplied by zero is not computed.

The gradient is autograd's: a backward pass written by hand, with the recurrent weights' gradient taken once for all
steps, agreed in float64 and took as long (1.00 to 1.01 times as fast on one core, 10 steps of 16 x 16, kernel 5).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models.configs import Peephole
from stpred.models.recurrence import walk

State = tuple[Tensor, Tensor]
"""Hidden state and cell state, each (batch, hidden, height, width)."""


class ConvLSTMCell(nn.Module):
    """Gates in the order input, forget, candidate, output.

    Args:
        in_channels: channels of the input.
        hidden_channels: width of the state.
        size: height and width; any other is refused unless `peephole` is "none".
        kernel_size: odd.
        forget_bias: added to the forget gate before its sigmoid.
        peephole: which gates see the cell state: input and output ("reference"), the forget gate too ("full"), none.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        size: tuple[int, int],
        kernel_size: int = 3,
        forget_bias: float = 0.01,
        *,
        peephole: Peephole = "reference",
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.forget_bias = forget_bias
        self.peephole = peephole
        self.size = (size[0], size[1])
        self.padding = kernel_size // 2
        gates = 4 * hidden_channels
        self.conv_x = nn.Conv2d(in_channels, gates, kernel_size, padding=self.padding)
        self.conv_h = nn.Conv2d(hidden_channels, gates, kernel_size, padding=self.padding)
        self.w_ci, self.w_cf, self.w_co = (
            None if peephole == "none" else nn.Parameter(torch.zeros(1, hidden_channels, *size)) for _ in range(3)
        )
        if self.w_cf is not None and peephole == "reference":
            # Only there to be loaded: without a gradient it would stop training on several ranks.
            self.w_cf.requires_grad_(False)

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        h: Float[Tensor, "batch hidden height width"],
        c: Float[Tensor, "batch hidden height width"],
    ) -> State:
        """Take one step; returns the new hidden state and cell state."""
        self._check(x)
        return self._update(self._from_inputs(x) + self._from_state(h), c)

    def run(
        self,
        inputs: Float[Tensor, "time batch channel height width"] | None,
        state: State | None,
        *,
        steps: int,
        checkpoint_every: int = 0,
    ) -> tuple[Float[Tensor, "time batch hidden height width"], State]:
        """Take all steps.

        Args:
            inputs: frames, time first; None stands for zeros (then `state` is needed) and costs nothing.
            state: hidden and cell state before the first step; None stands for zeros and costs nothing.
            steps: number of steps.
            checkpoint_every: see `walk`.

        Returns:
            Hidden states of all steps, and the last state.
        """
        self._check(inputs if inputs is not None else state[0] if state else None)
        outputs, last = walk(self._run, inputs, state, steps=steps, every=checkpoint_every)
        assert last is not None
        return outputs, last

    def _run(self, inputs: Tensor | None, state: State | None, steps: int) -> tuple[Tensor, State | None]:
        if inputs is None:
            gates_x = self._bias()[:, None, None].expand(steps, 1, -1, 1, 1)
        else:
            gates_x = self._from_inputs(inputs.flatten(0, 1)).unflatten(0, (steps, -1))
        outputs: list[Tensor] = []
        for gates in gates_x.unbind():  # each step needs the state of the one before
            state = self._update(gates if state is None else gates + self._from_state(state[0]), state and state[1])
            outputs.append(state[0])
        return torch.stack(outputs), state

    def _bias(self) -> Tensor:
        """Everything that is added to the gates whatever the frame."""
        assert self.conv_x.bias is not None and self.conv_h.bias is not None
        width = self.hidden_channels
        forget = F.pad(self.conv_x.bias.new_full((width,), self.forget_bias), (width, 2 * width))
        return self.conv_x.bias + self.conv_h.bias + forget

    def _from_inputs(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv_x.weight, self._bias(), padding=self.padding)

    def _from_state(self, h: Tensor) -> Tensor:
        return F.conv2d(h, self.conv_h.weight, padding=self.padding)

    def _update(self, gates: Tensor, c: Tensor | None) -> State:
        """Apply the gates; a cell state of None is zero."""
        i, f, candidate, o = gates.chunk(4, dim=1)
        if c is not None and self.w_ci is not None:
            i = torch.addcmul(i, self.w_ci, c)
        if c is not None and self.w_cf is not None and self.peephole == "full":
            f = torch.addcmul(f, self.w_cf, c)
        # Of the weights' type even under autocast: a sum over many steps is kept in float32.
        new = (torch.sigmoid(i) * torch.tanh(candidate)).to(self.conv_h.weight.dtype)
        if c is not None:
            new = torch.addcmul(new, torch.sigmoid(f), c)
        if self.w_co is not None:
            o = torch.addcmul(o, self.w_co, new)
        return torch.sigmoid(o) * torch.tanh(new), new

    def _check(self, frames: Tensor | None) -> None:
        if frames is None:
            raise ValueError("inputs, state: both None; expected at least one of them")
        found = (frames.shape[-2], frames.shape[-1])
        if self.peephole != "none" and found != self.size:
            raise UserError(
                f"frames: {found[0]} x {found[1]} after patching; expected {self.size[0]} x {self.size[1]}, the size "
                'of the peephole weights; train with peephole "none" for frames of any size'
            )
