"""What every forecaster of the registry is: history in, future out, and its own training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

from jaxtyping import Float
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
    ) -> FrameLoss:
        """Training objective.

        Args:
            history: frames that are given.
            future: frames that follow them.
            truth: 1 where a step is fed with the true frame rather than with the model's own guess; its length and
                meaning follow from `sampling`. None feeds as at test time.
        """
