"""The scale and the grid that the model works on, per data set, and the way back to units and cells of the data.

Values go to [-1, 1] by the lowest and highest value of each channel (VLM4ST, `dataset.py`: one pair per data set), as
they are after resizing. The original takes them from all parts; here they come from the training part unless asked
otherwise. Where anomalies are asked for, what is usual at the time is taken off first and put back last, and the range
is as wide on both sides, so that what is usual is 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor

from stcore.errors import UserError
from vlm4st.resizing import Resizing, masked
from vlm4st.usual import HistoricalAverage

_log = logging.getLogger(__name__)
Values = TypeVar("Values", NDArray[Any], Tensor)
Kind = Literal["bilinear", "pad"]
Clocks = Int64[ndarray, "sample frame 2"] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Space:
    """Scale and grid of one data set."""

    low: Float64[ndarray, "channel"]
    """Lowest value of each channel in the part it was taken from."""
    high: Float64[ndarray, "channel"]
    resizing: Resizing
    fit: str = "train"
    """Part that the values were taken from."""
    usual: HistoricalAverage | None = None
    """What is taken off values, in units of the data; None where they stay as they are."""

    @classmethod
    def fit_range(
        cls,
        blocks: Iterable[Float32[ndarray, "frame channel row column"]],
        resizing: Resizing,
        *,
        part: str,
        constant: Literal["refuse", "span"] = "refuse",
        where: str = "training part",
        channels: tuple[str, ...] = (),
        usual: HistoricalAverage | None = None,
    ) -> Space:
        """Take lowest and highest value of each channel on the grid of the model.

        Args:
            blocks: frames in units of the data, less what is usual where that is taken off; missing cells are NaN.
            resizing: how they come to the grid of the model.
            part: what they are, to be kept.
            constant: what to do with a channel of one value only.
            where: what they are, for messages.
            channels: names, for messages.
            usual: what was taken off the frames.

        Raises:
            UserError: a channel has no value, or one only.
        """
        low, high = cast("Any", None), cast("Any", None)
        for block in blocks:
            frames = torch.from_numpy(np.ascontiguousarray(block))
            filled, known = masked(frames, torch.zeros(()))
            sized, kept = resizing.to_model(filled), resizing.mask_to_model(known)
            if not bool(kept.any()):  # no model cell lies wholly on data
                sized, kept = filled, known
            inf = torch.tensor(torch.inf)
            lows = torch.where(kept, sized, inf).amin(dim=(0, 2, 3)).double().numpy()
            highs = torch.where(kept, sized, -inf).amax(dim=(0, 2, 3)).double().numpy()
            low = lows if low is None else np.minimum(low, lows)
            high = highs if high is None else np.maximum(high, highs)
        if low is None:
            raise UserError(f"{where}: no frames; expected some to take lowest and highest value from")
        for at, (least, most) in enumerate(zip(low, high, strict=True)):
            name = f"channel {channels[at]}" if len(channels) > 1 else "values"
            if not np.isfinite(least):
                raise UserError(f"{where}: {name} without data; expected some finite values")
            if least == most and constant == "refuse":
                raise UserError(
                    f"{where}: {name} constant at {least:g}; expected some that vary; leave the data set out, or pass "
                    "--data.constant span"
                )
            if least == most:
                _log.warning("%s: %s constant at %g: scaled by a span of 1", where, name, least)
        if usual is not None:
            high = np.maximum(np.abs(low), np.abs(high))
            low = -high
        return cls(low=low, high=high, resizing=resizing, fit=part, usual=usual)

    @property
    def span(self) -> Float64[ndarray, "channel"]:
        """Width of each channel; 1 where it is constant, so that nothing is divided by 0."""
        return np.where(self.high > self.low, self.high - self.low, 1.0)

    def transform(self, values: Values, channel: Any = 0) -> Values:
        """Map values of samples to the model's scale.

        Args:
            values: (sample, …), or of any shape where there is one channel.
            channel: of each sample, or of all.
        """
        low, span = self._like(values, channel)
        return cast("Values", 2.0 * (values - low) / span - 1.0)

    def inverse(self, values: Values, channel: Any = 0) -> Values:
        """Undo `transform`."""
        low, span = self._like(values, channel)
        return cast("Values", (values + 1.0) / 2.0 * span + low)

    def _like(self, values: Any, channel: Any) -> tuple[Any, Any]:
        """Return lowest value and span of each sample, as what `values` is: array or tensor, type and device."""
        which = channel.cpu().numpy() if isinstance(channel, Tensor) else np.asarray(channel)
        shape = (-1, *(1,) * (values.ndim - 1)) if which.ndim else ()
        constants = (self.low[which].reshape(shape), self.span[which].reshape(shape))
        if isinstance(values, Tensor):
            return tuple(values.new_tensor(one) for one in constants)  # pyright: ignore[reportReturnType]
        return tuple(one.astype(values.dtype) if values.dtype.kind == "f" else one for one in constants)  # pyright: ignore[reportReturnType]

    def to_model(
        self,
        values: Float32[Tensor, "sample frame row column"],
        channel: Int64[Tensor, "sample"],
        clock: Clocks = None,
    ) -> tuple[Float32[Tensor, "sample frame height width"], Bool[Tensor, "sample frame height width"] | None]:
        """Return frames on the grid and scale of the model, and where they count; None for everywhere.

        Missing cells (NaN) lie half-way between lowest and highest value, cells beyond the data at the lowest.
        `clock` is that of each frame; needed where what is usual is taken off.
        """
        usual = self._usual(channel, clock)
        scaled = self.transform(values if usual is None else values - usual, channel)
        if not bool(scaled.isnan().any()):
            mask = None
            if self.resizing.pads:
                mask = self.resizing.mask_to_model(torch.ones(scaled.shape, dtype=torch.bool))
            return self.resizing.to_model(scaled, fill=-1.0), mask
        filled, known = masked(scaled, scaled.new_zeros(()))
        return self.resizing.to_model(filled, fill=-1.0), self.resizing.mask_to_model(known)

    def finer(
        self,
        values: Float32[Tensor, "sample frame row column"],
        channel: Int64[Tensor, "sample"],
        clock: Clocks = None,
    ) -> Float32[Tensor, "sample frame row column"] | None:
        """Return what the model's grid cannot hold of frames, on the model's scale; None where it holds everything.

        Args:
            values: frames in units of the data; missing cells (NaN) yield 0.
            channel: of each sample.
            clock: of each frame; needed where what is usual is taken off.
        """
        if self.resizing.same or self.resizing.pads:
            return None
        usual = self._usual(channel, clock)
        scaled = self.transform(values if usual is None else values - usual, channel)
        filled, known = masked(scaled, scaled.new_zeros(()))
        return (filled - self.resizing.to_native(self.resizing.to_model(filled))).where(known, 0.0)

    def to_native(
        self,
        scaled: Float[Tensor, "sample frame height width"],
        channel: Int64[Tensor, "sample"],
        clock: Clocks = None,
        *,
        finer: Tensor | None = None,
        clamp: bool = False,
        native: bool = True,
    ) -> Float[Tensor, "sample frame row column"]:
        """Return forecasts in units and on the grid of the data.

        Args:
            scaled: on the model's scale and grid.
            channel: of each sample.
            clock: of each frame; needed where what is usual is put back.
            finer: what the model's grid cannot hold of them, on the model's scale and the grid of the data.
            clamp: keep them between lowest and highest value.
            native: false stays on the grid of the model.
        """
        scaled = scaled.clamp(-1.0, 1.0) if clamp else scaled
        if native:
            scaled = self.resizing.to_native(scaled)
            if finer is not None:
                scaled = scaled + finer.to(scaled)
                scaled = scaled.clamp(-1.0, 1.0) if clamp else scaled
        found = self.inverse(scaled, channel)
        usual = self._usual(channel, clock)
        if usual is None:
            return found
        return found + (usual if native else self.resizing.to_model(usual)).to(found)

    def _usual(self, channel: Tensor, clock: Clocks) -> Float32[Tensor, "sample frame row column"] | None:
        """Return what is usual; 0 where the training part had nothing."""
        if self.usual is None:
            return None
        if clock is None:
            raise UserError("frames without times; expected some, which what is usual goes by (data.anomalies)")
        return torch.from_numpy(np.nan_to_num(self.usual.at(clock, channel.cpu().numpy())))

    def constants(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps, under names that begin with `prefix`."""
        return {
            f"{prefix}/low": torch.from_numpy(self.low.copy()),
            f"{prefix}/high": torch.from_numpy(self.high.copy()),
            **({} if self.usual is None else self.usual.constants(f"{prefix}/usual")),
        }

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the tensors, as plain values."""
        kept = {} if self.usual is None else self.usual.facts()
        return {"fit": self.fit, "resize": self.resizing.kind, "native": list(self.resizing.native),
                "model": list(self.resizing.model), **kept}  # fmt: skip

    @classmethod
    def restore(cls, constants: Mapping[str, Tensor], prefix: str, facts: Mapping[str, Any]) -> Space:
        """Rebuild what `constants` and `facts` kept."""
        resizing = Resizing(
            kind=cast("Kind", facts["resize"]), native=_pair(facts["native"]), model=_pair(facts["model"])
        )
        low, high = (constants[f"{prefix}/{name}"].double().cpu().numpy() for name in ("low", "high"))
        usual = HistoricalAverage.restore(constants, f"{prefix}/usual", facts)
        return cls(low=low, high=high, resizing=resizing, fit=str(facts["fit"]), usual=usual)


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = values
    return int(rows), int(columns)
