"""What every forecaster of the registry is: history in, future out, and its own training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stpred.models.configs import FrameShape

Sampling = Literal["none", "scheduled", "reverse", "coin"]
"""How true frames are mixed into training: not at all; per future step with a falling probability (scheduled); over the
history too (reverse, PredRNNv2); one coin per batch (PhyDNet)."""


class FrameLoss(NamedTuple):
    """A training objective: what is minimised, and the named terms it is the sum of (for the log)."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


class FrameModel(nn.Module, ABC):
    """A forecaster of frames. Frames are whole (not cut into patches) and on the scale that the model was trained on.

    Subclasses are final.
    """

    sampling: ClassVar[Sampling] = "none"

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any, frame: FrameShape, history: int | None = None) -> FrameModel:
        """Make the model of a configuration of its kind.

        Args:
            config: its sizes and forms.
            frame: channels, rows and columns of the frames.
            history: frames that the model will see, for those whose parameters depend on it.
        """

    @abstractmethod
    def forward(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Continue the history by `horizon` frames, as at test time: nothing of the future is seen."""

    @abstractmethod
    def loss(
        self,
        history: Float[Tensor, "batch time channel height width"],
        future: Float[Tensor, "batch horizon channel height width"],
        *,
        truth: Float[Tensor, "batch step"] | None = None,
        valid: Bool[Tensor, "batch frame channel height width"] | None = None,
    ) -> FrameLoss:
        """Training objective.

        Args:
            history: frames that are given.
            future: frames that follow them.
            truth: 1 where a step is fed with the true frame rather than with the model's own guess; its length and
                meaning follow from `sampling`. None feeds as at test time.
            valid: where history and future, one after the other, hold data; whatever number stands in for a missing
                value (a finite one), the loss does not ask for it. None: everywhere.
        """


def without_missing(
    guesses: Float[Tensor, "*batch channel height width"],
    frames: Float[Tensor, "*batch channel height width"],
    valid: Bool[Tensor, "*batch channel height width"] | None,
) -> Float[Tensor, "*batch channel height width"]:
    """Return the guesses, but what stands in `frames` where no data is: no error there, and no gradient.

    A mean over all values then gives each value that was observed the same weight, in whatever batch it lies.
    """
    return guesses if valid is None else torch.where(valid, guesses, frames)
