"""The frame that the recurrent models share: patches, which frame is fed when, next frames, loss, layers.

At step t the network sees frame t and guesses frame t + 1. Within the history it is fed true frames; after it, its own
guesses, or in training a mixture of both. All guesses count in the loss, also those of the history's own frames; the
forecast is the last `horizon` of them. A model adds what happens in one step (`project`, `advance`).

Source: OpenSTL (Apache-2.0), `ConvLSTM_Model`, `PredRNN_Model` and kin, whose numerics these are. Differs in: the first
layer's convolution runs on all known frames at once, a state that is still zero costs no convolution, states are
local to a call, and steps can be computed twice in place of being kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stcore.errors import UserError
from stpred.models.configs import FrameShape, StackConfig
from stpred.models.interface import FrameLoss, FrameModel, without_missing
from stpred.patches import reshape_patch, reshape_patch_back

State = TypeVar("State")
"""What a model carries from step to step; None before the first."""

History = Float[Tensor, "batch time channel height width"]
Future = Float[Tensor, "batch horizon channel height width"]
Patches = Float[Tensor, "batch step channel rows columns"]
Truth = Float[Tensor, "batch fed"] | None
Valid = Bool[Tensor, "batch frame channel height width"] | None
Feed = bool | Bool[Tensor, "batch"]
"""What one step is fed with: the true frame (True), the guess of the step before (False), or one per sample."""


@dataclass(frozen=True)
class Step(Generic[State]):
    """Outcome of one step."""

    hidden: Float[Tensor, "batch hidden rows columns"]
    """Hidden state of the top layer, from which the next frame is read."""
    state: State
    extra: tuple[Tensor, ...] = ()
    """What a model's own loss term is made of; see `RecurrentStack.penalty`."""


class Unrolled(NamedTuple):
    """Guesses of a stretch of steps, with what the next stretch starts from."""

    guesses: tuple[Float[Tensor, "batch channel rows columns"], ...]
    penalties: tuple[Float[Tensor, ""], ...]
    last: Float[Tensor, "batch channel rows columns"] | None
    state: Any


class GateConvolution(nn.Module):
    """One convolution without bias to several gates, with layer norm after it when the size of the maps is given.

    Args:
        inputs: channels of the input.
        outputs: channels of all gates together.
        kernel: odd.
        norm: rows and columns of the maps, or None for no layer norm.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.LayerNorm([outputs, *norm]) if norm else None

    def forward(
        self, x: Float[Tensor, "batch input rows columns"] | None
    ) -> Float[Tensor, "#batch output #rows #columns"]:
        """Apply it; None stands for zeros, whose result is the norm's bias or zero, without a convolution."""
        if x is not None:
            gates = self.conv(x)
            return gates if self.norm is None else self.norm(gates)
        if self.norm is not None:
            return self.norm.bias[None]
        # In the type of the weights: under autocast the memories so begin, and then stay, in float32.
        return self.conv.weight.new_zeros(1, len(self.conv.weight), 1, 1)


def update_memory(
    gates: Float[Tensor, "batch gates rows columns"],
    memory: Float[Tensor, "batch hidden rows columns"] | None,
    *,
    forget_bias: float,
) -> tuple[Float[Tensor, "batch hidden rows columns"], Float[Tensor, "batch hidden rows columns"]]:
    """Forget and write: `σ(f + bias) ⊙ memory + σ(i) ⊙ tanh(g)`, from gates in the order i, f, g.

    Returns:
        The new memory, and the written part alone. A memory of None is zero.
    """
    write, forget, content = gates.chunk(3, dim=1)
    written = torch.sigmoid(write) * torch.tanh(content)
    if memory is None:
        return written, written
    return torch.addcmul(written, torch.sigmoid(forget + forget_bias if forget_bias else forget), memory), written


class RecurrentStack(FrameModel, Generic[State]):
    """A recurrent model that guesses the next frame from each frame.

    Args:
        config: sizes.
        frame: frames the model is built for; a model without weights per pixel takes others too (`any_size`).
    """

    sampling = "scheduled"

    def __init__(self, config: StackConfig, frame: FrameShape) -> None:
        super().__init__()
        if frame.height % config.patch or frame.width % config.patch:
            raise UserError(
                f"model.patch: {config.patch} on frames of {frame.height} x {frame.width}; expected a divisor of both"
            )
        self.frame, self.patch, self.checkpoint_every = frame, config.patch, config.checkpoint_every
        self.rows, self.columns = frame.height // config.patch, frame.width // config.patch
        self.channels = frame.channels * config.patch**2
        self.any_size = False
        self.head = nn.Conv2d(config.hidden[-1], self.channels, 1, bias=False)

    def build_layers(
        self, layer: Callable[[int, int, int, tuple[int, int] | None], nn.Module], config: StackConfig
    ) -> nn.ModuleList:
        """Make a layer of each width, fed by the one below it; those with layer norm fit frames of one size only.

        Args:
            layer: takes channels of the input, its own, the kernel, and rows and columns of the maps for layer norm.
            config: sizes.
        """
        self.any_size = not config.layer_norm
        norm = (self.rows, self.columns) if config.layer_norm else None
        inputs = (self.channels, *config.hidden[:-1])
        return nn.ModuleList(
            layer(below, own, config.kernel, norm) for below, own in zip(inputs, config.hidden, strict=True)
        )

    @abstractmethod
    def project(self, frames: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch projected ..."]:
        """Compute what the first layer makes of frames alone: no state enters, so many steps go at once."""

    @abstractmethod
    def advance(self, projected: Float[Tensor, "batch projected ..."], state: State | None) -> Step[State]:
        """Do one step through all layers; a state of None is the beginning of a sequence."""

    def penalty(self, extra: tuple[Tensor, ...]) -> Float[Tensor, ""] | None:
        """Make one step's part of a loss term of the model's own; None for models that have none."""
        return None

    def objective(self, guesses: Patches, frames: Patches, penalties: Sequence[Tensor]) -> FrameLoss:
        """Compare all guesses with the frames they are for; the mean squared error unless a model says otherwise."""
        error = F.mse_loss(guesses, frames)
        return FrameLoss(error, {"mse": error})

    def forward(self, history: History, horizon: int) -> Future:
        """Continue the history by `horizon` frames, fed with its own guesses; not clamped."""
        self._check("history", history)
        length = history.shape[1]
        if horizon < 1:
            raise UserError(f"horizon: {horizon}; expected 1 or more frames")
        feeds = [True] * length + [False] * (horizon - 1)
        guesses, _ = self._unroll(reshape_patch(history, self.patch), feeds, skip=length - 1, penalise=False)
        return reshape_patch_back(guesses, self.patch)

    def loss(self, history: History, future: Future, *, truth: Truth = None, valid: Valid = None) -> FrameLoss:
        """Training objective over all guesses, of the history's own frames too.

        Args:
            history: frames that are given.
            future: frames that follow them.
            truth: 1 where the true frame is fed: for all frames of the future but the last (`sampling` scheduled), or
                for all frames but the first and the last (reverse). None feeds as at test time.
            valid: where history and future, one after the other, hold data.
        """
        guesses, penalties = self._guess(history, future, truth)
        frames = reshape_patch(torch.cat([history[:, 1:], future], dim=1), self.patch)
        here = None if valid is None else reshape_patch(valid[:, 1:], self.patch)
        return self.objective(without_missing(guesses, frames, here), frames, penalties)

    def next_frames(
        self, history: History, future: Future, *, truth: Truth = None
    ) -> Float[Tensor, "batch step channel height width"]:
        """Guess every frame but the first, each from the frames before it; arguments as in `loss`."""
        guesses, _ = self._guess(history, future, truth)
        return reshape_patch_back(guesses, self.patch)

    def _guess(
        self, history: History, future: Future, truth: Truth
    ) -> tuple[Float[Tensor, "batch step patched rows columns"], tuple[Tensor, ...]]:
        self._check("history", history)
        self._check("future", future)
        # The last frame is a target only.
        frames = reshape_patch(torch.cat([history, future[:, :-1]], dim=1), self.patch)
        feeds = self._feeds(truth, batch=len(history), history=history.shape[1], horizon=future.shape[1])
        return self._unroll(frames, feeds, skip=0, penalise=True)

    def _feeds(self, truth: Tensor | None, *, batch: int, history: int, horizon: int) -> Sequence[Feed]:
        if truth is None:
            return [True] * history + [False] * (horizon - 1)
        given = 1 if self.sampling == "reverse" else history
        expected = (batch, history + horizon - 1 - given)
        if truth.shape != expected:
            raise UserError(f"truth: shape {tuple(truth.shape)}; expected {expected}, one entry per sample and step")
        return [True] * given + [_feed(bits) for bits in truth.bool().unbind(1)]

    def _unroll(
        self, frames: Patches, feeds: Sequence[Feed], *, skip: int, penalise: bool
    ) -> tuple[Float[Tensor, "batch guess channel rows columns"], tuple[Tensor, ...]]:
        """Do all steps; the first `skip` guesses are not read out (they would be fed to nothing)."""
        every = self.checkpoint_every if torch.is_grad_enabled() else 0
        every = every or len(feeds)
        done = Unrolled((), (), None, None)
        guesses: list[Tensor] = []
        penalties: list[Tensor] = []
        for start in range(0, len(feeds), every):
            part = feeds[start : start + every]
            arguments = frames[:, start : start + every], part, max(0, skip - start), penalise, done.last, done.state
            if every < len(feeds):
                done = checkpoint(self._stretch, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                done = self._stretch(*arguments)
            guesses += done.guesses
            penalties += done.penalties
        return torch.stack(guesses, dim=1), tuple(penalties)

    def _stretch(
        self,
        frames: Patches,
        feeds: Sequence[Feed],
        skip: int,
        penalise: bool,
        last: Tensor | None,
        state: State | None,
    ) -> Unrolled:
        known = self._project_known(frames, feeds)
        guesses: list[Tensor] = []
        penalties: list[Tensor] = []
        for index, feed in enumerate(feeds):
            projected = known[index] if index < len(known) else self.project(_fed(feed, frames, index, last))
            step = self.advance(projected, state)
            state = step.state
            if index >= skip:
                guess: Tensor = self.head(step.hidden)
                guesses.append(guess)
                last = guess
            term = self.penalty(step.extra) if penalise else None
            if term is not None:
                penalties.append(term)
        return Unrolled(tuple(guesses), tuple(penalties), last, state)

    def _project_known(self, frames: Patches, feeds: Sequence[Feed]) -> tuple[Tensor, ...]:
        """Project the leading steps that are fed with true frames, all at once."""
        count = next((index for index, feed in enumerate(feeds) if feed is not True), len(feeds))
        if not count:
            return ()
        # Time goes first and is unbound: the backward pass then stacks once, where slices would be added up.
        flat = self.project(rearrange(frames[:, :count], "batch time ... -> (time batch) ..."))
        return flat.unflatten(0, (count, len(frames))).unbind(0)

    def _check(self, where: str, frames: Tensor) -> None:
        shape = tuple(frames.shape)
        if len(shape) != 5 or shape[1] < 1 or shape[2] != self.frame.channels:
            raise UserError(
                f"{where}: shape {shape}; expected (batch, time, {self.frame.channels} channels, height, width) with "
                "one frame or more"
            )
        if not self.any_size and shape[3:] != self.frame[1:]:
            raise UserError(f"{where}: frames of {shape[3]} x {shape[4]}; expected {self.frame[1]} x {self.frame[2]}")


def _feed(bits: Bool[Tensor, "batch"]) -> Feed:
    """Settle what a step is fed with where that needs no wait for a device."""
    if bits.is_cpu and bool(bits.all()):
        return True
    return False if bits.is_cpu and not bool(bits.any()) else bits


def _fed(feed: Feed, frames: Patches, index: int, last: Tensor | None) -> Float[Tensor, "batch channel rows columns"]:
    if feed is True or last is None:
        return frames[:, index]
    if feed is False:
        return last
    return torch.where(feed.to(last.device)[:, None, None, None], frames[:, index], last)
