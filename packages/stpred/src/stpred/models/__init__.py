"""The forecasters by name. Importing this imports no torch; a model is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from stcore.errors import UserError
from stpred.models.configs import FrameShape, ModelConfig

if TYPE_CHECKING:
    from stpred.models.interface import FrameModel

__all__ = ["MODELS", "FrameShape", "build"]

_PLACES = {
    "convlstm": "convlstm:ConvLSTMForecaster",
    "trajgru": "trajgru:TrajGRUForecaster",
    "openstl-convlstm": "openstl_convlstm:OpenSTLConvLSTM",
    "predrnn": "predrnn:PredRNN",
    "predrnnpp": "predrnnpp:PredRNNpp",
    "predrnnv2": "predrnn:PredRNNv2",
    "mim": "mim:MIM",
    "e3dlstm": "e3dlstm:E3DLSTM",
    "phydnet": "phydnet:PhyDNet",
    "mau": "mau:MAU",
}
"""Module and class of each model."""


class _Models(Mapping[str, "type[FrameModel]"]):
    """The classes by name, each imported at its first use."""

    def __getitem__(self, name: str) -> type[FrameModel]:
        module, _, attribute = _PLACES[name].partition(":")
        return getattr(import_module(f"stpred.models.{module}"), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


MODELS: Mapping[str, type[FrameModel]] = _Models()


def build(
    config: ModelConfig, frame: FrameShape, *, history: int | None = None, channels_last: bool = True
) -> FrameModel:
    """Make the model that a configuration describes.

    Args:
        config: one of the configurations of `stpred.models.configs`.
        frame: channels, rows and columns of the frames.
        history: frames that the model will see, needed by models whose parameters depend on it.
        channels_last: store the weights of convolutions with the channels last: measured 1.1 to 1.4 times as fast.

    Raises:
        UserError: no model has this name, or its sizes do not fit the frame.
    """
    if config.kind not in MODELS:
        raise UserError(f"model.kind: {config.kind!r}; expected one of {', '.join(MODELS)}")
    from stcore.training.memory_layout import put_channels_last

    model = MODELS[config.kind].from_config(config, frame, history)
    put_channels_last(model, channels_last)
    return model
