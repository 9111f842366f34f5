"""The forecaster and its parts. Importing this imports no torch; the model is imported when it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svq.models.configs import FrameShape, QuantizerConfig, SimVPConfig

if TYPE_CHECKING:
    from svq.models.simvp import SimVP

__all__ = ["FrameShape", "QuantizerConfig", "SimVPConfig", "build"]


def build(
    simvp: SimVPConfig, quantizer: QuantizerConfig, frame: FrameShape, history: int, *, channels_last: bool = True
) -> SimVP:
    """Make the model that two configurations describe.

    Args:
        simvp: sizes of encoder, translator and decoder.
        quantizer: what the latent frames pass through.
        frame: channels, rows and columns of the frames.
        history: frames that the model reads, and writes in one pass.
        channels_last: let the channels of a cell lie side by side in memory: measured 1.1 to 1.2 times as fast.

    Raises:
        UserError: sizes that do not fit one another.
    """
    from svq.models.simvp import SimVP

    model = SimVP(simvp, quantizer, frame, history)
    model.put_channels_last(channels_last)
    return model
