"""What a density needs to know of the past beside the encoder's summary: rates, shares of marks, and recent events.

The encoder sees absolute times and has to learn what a rate is. Here it is counted: sums over past events that fade at
several speeds (the sufficient statistics of a self-exciting process with a mixture of exponential kernels: Hawkes,
Biometrika 1971), compared with what the mean rate would have given. The latest events themselves are kept as well, for
kernels around them (`smash.places`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from smash.config import DensityConfig

CLIP = 5.0
"""Standardised features are kept within this many standard deviations: new data may lie anywhere."""
PRIOR = 2.0
"""Events that the training shares of marks and the mean rate count for, beside those that were seen."""
LATEST = 3
"""Gaps, and places and marks but one, of the latest events that are features as they are."""
RECENT_COLUMNS = 5
PHASES = 24
"""Bins of a period."""
AHEAD = ((0, 1), (1, 2), (2, 3), (3, 5), (5, 8), (8, 12))
"""Windows of bins ahead of the current phase that a profile is read in: first, and the one after the last."""


@dataclass(frozen=True, eq=False)
class Recent:
    """The latest events before each target, the last one first."""

    location: Float[Tensor, "target recent 2"]
    """In the unit box."""
    ago: Float[Tensor, "target recent"]
    """Time from the event to the last known one, in mean gaps."""
    mark: Int[Tensor, "target recent"]
    present: Float[Tensor, "target recent"]
    """1 for an event, 0 where the sequence is shorter."""

    @classmethod
    def unpack(cls, packed: Float[Tensor, "target packed"]) -> Recent:
        """Take apart what `HistoryFeatures.recent` packed."""
        columns = packed.unflatten(-1, (RECENT_COLUMNS, -1))
        x, y, ago, mark, present = columns.unbind(-2)
        return cls(torch.stack([x, y], dim=-1), ago, mark.long(), present)


class HistoryFeatures(nn.Module):
    """Features of the events up to each position.

    Args:
        config: speeds, periods, and how many events are kept.
        num_marks: kinds of events.
    """

    scale: Tensor
    shares: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: DensityConfig, *, num_marks: int) -> None:
        super().__init__()
        self.config, self.num_marks = config, num_marks
        self.register_buffer("scale", torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64))
        self.register_buffer("shares", torch.full((num_marks,), 1.0 / num_marks, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(self.width, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(self.width, dtype=torch.float64))

    @property
    def width(self) -> int:
        """Number of features."""
        marks = self.num_marks if self.num_marks > 1 else 0
        faded = (self.config.speeds + 1) * (1 + marks + 2 + 1)
        periodic = 4 * len(self.config.periods) + len(AHEAD) * len(self.config.profiles)
        return faded + LATEST + (LATEST - 1) * (2 + marks) + 3 + periodic

    @property
    def packed_width(self) -> int:
        """Numbers that the recent events of one target take."""
        return RECENT_COLUMNS * self.config.recent

    def set_scale(self, *, low: float, span: float, log_gap: bool, mean_gap: float, shares: Tensor) -> None:
        """Set what belongs to the training part.

        Args:
            low, span: (log-)gap at 0 of the unit box, and between 0 and 1.
            log_gap: whether it is the logarithm.
            mean_gap: in the data's unit of time.
            shares: of the marks.
        """
        self.scale.copy_(torch.tensor([low, span, float(log_gap), mean_gap]))
        self.shares.copy_(shares)

    def gap_in_means(self, unit: Float[Tensor, "*point"]) -> Float[Tensor, "*point"]:
        """Turn normalised gaps into multiples of the mean gap."""
        low, span, log_gap, mean_gap = self.scale.tolist()
        feature = unit * span + low
        return (feature.exp() if log_gap else feature) / mean_gap

    @torch.no_grad()
    def forward(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
    ) -> Float[Tensor, "sequence event feature"]:
        """Standardised features of events 0 to i at every position i, in float32."""
        raw = self.raw(time.double(), location.double(), mark)
        return ((raw - self.mean) / self.deviation).clamp_(-CLIP, CLIP).float()

    def raw(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
    ) -> Float[Tensor, "sequence event feature"]:
        """Features before they are standardised. Float64, so that rounding does not depend on the batch's shape."""
        box = 2.0 * location - 1.0
        marks = self._one_hot(mark, box)
        gap = F.pad(time.diff(dim=1), (1, 0)).clamp_min(0.0)
        elapsed = (time - time[:, :1]) / self.scale[3]
        place = torch.arange(1, time.shape[1] + 1, device=time.device).expand_as(time)
        parts = [
            *self._counted(gap, elapsed, box, marks),
            self._latest_gaps(gap),
            *(_delayed(part, step) for step in range(LATEST - 1) for part in (box, marks)),
            torch.stack([torch.log1p(elapsed), torch.log(place), time], dim=-1),
            *(self._phase(time, period) for period in self.config.periods),
            *(self._profile(time, period) for period in self.config.profiles),
        ]
        return torch.cat(parts, dim=-1)

    def _counted(
        self, gap: Tensor, elapsed: Tensor, box: Float[Tensor, "sequence event 2"], marks: Tensor
    ) -> list[Tensor]:
        """At each speed of fading: events beside those expected, their centre and spread, and the shares of the marks.

        Args:
            gap: time since the event before.
            elapsed: time since the first event, in mean gaps.
            box: locations in [-1, 1].
            marks: a one for each event's mark, no columns when unmarked.
        """
        values = torch.cat([torch.ones_like(box[..., :1]), box, box.square().sum(-1, keepdim=True), marks], dim=-1)
        count, place, square, by_mark = self._faded(gap, values).split([1, 2, 1, marks.shape[-1]], dim=-1)
        centre = place / count
        spread = (square / count - centre.square().sum(-1, keepdim=True)).clamp_min(0.0)
        rate = torch.log((count[..., 0] + 1.0) / (self._expected(elapsed) + 2.0))
        parts = [rate, centre.flatten(2), torch.log(spread[..., 0] + 1e-4)]
        if marks.shape[-1]:
            parts.append(torch.log((by_mark + PRIOR * self.shares) / (count + PRIOR)).flatten(2))
        return parts

    def _one_hot(self, mark: Tensor | None, like: Tensor) -> Float[Tensor, "sequence event mark"]:
        if self.num_marks == 1 or mark is None:
            return like.new_empty(*like.shape[:2], 0)
        return F.one_hot(mark, self.num_marks).to(like)

    def _time_scales(self, like: Tensor) -> Float[Tensor, "speed"]:
        """Time constants of the fading sums in mean gaps; the last never fades."""
        constants = [4.0**power for power in range(self.config.speeds)]
        return torch.tensor([*constants, math.inf], dtype=like.dtype, device=like.device)

    def _faded(
        self, gap: Float[Tensor, "sequence event"], values: Float[Tensor, "sequence event value"]
    ) -> Float[Tensor, "sequence event speed value"]:
        """Sum the values of all events so far, each weighted by how much it has faded."""
        keep = torch.exp(-(gap / self.scale[3])[..., None] / self._time_scales(gap))
        state = values.new_zeros(len(gap), keep.shape[-1], values.shape[-1])
        states: list[Tensor] = []
        for factor, value in zip(keep.unbind(1), values.unbind(1), strict=True):
            state = torch.addcmul(value[:, None], state, factor[..., None])
            states.append(state)
        return torch.stack(states, dim=1)

    def _expected(self, elapsed: Float[Tensor, "sequence event"]) -> Float[Tensor, "sequence event speed"]:
        """Count of faded events that the mean rate would have given since the start of the sequence."""
        scales = self._time_scales(elapsed)[:-1]
        faded = -scales * torch.expm1(-elapsed[..., None] / scales)
        return torch.cat([faded, elapsed[..., None]], dim=-1)

    def _latest_gaps(self, gap: Float[Tensor, "sequence event"]) -> Float[Tensor, "sequence event latest"]:
        """Normalised gaps of the latest events; 1, a long one, where there was none yet."""
        low, span, log_gap, _ = self.scale.tolist()
        feature = gap.clamp_min(1e-4).log() if log_gap else gap
        unit = ((feature - low) / span).clamp(-0.5, 1.5)
        unit = torch.cat([torch.ones_like(unit[:, :1]), unit[:, 1:]], dim=1)[..., None]
        return torch.cat([_delayed(unit, step, fill=1.0) for step in range(LATEST)], dim=-1)

    @staticmethod
    def _phase(time: Float[Tensor, "sequence event"], period: float) -> Float[Tensor, "sequence event 4"]:
        angle = 2.0 * math.pi / period * time
        return torch.stack([angle.sin(), angle.cos(), (2.0 * angle).sin(), (2.0 * angle).cos()], dim=-1)

    @staticmethod
    def _profile(time: Float[Tensor, "sequence event"], period: float) -> Float[Tensor, "sequence event window"]:
        """Compare how often events came at the phases ahead with the mean rate so far, as log ratios."""
        width = period / PHASES
        bins = torch.arange(PHASES, device=time.device)
        here = torch.remainder(time, period).div(width).long().clamp_max(PHASES - 1)
        counts = (here[..., None] == bins).to(time).cumsum(1)
        spent = torch.floor(time / period)[..., None] * width
        spent = spent + (torch.remainder(time, period)[..., None] - bins * width).clamp(0.0, width)
        spent = spent - spent[:, :1]
        usual = torch.arange(1, time.shape[1] + 1, device=time.device) / (time - time[:, :1] + width)
        ahead = torch.remainder(here[..., None] + bins, PHASES)
        counts, expected = counts.gather(2, ahead), spent.gather(2, ahead) * usual[..., None]
        windows = [
            torch.log((counts[..., first:last].sum(-1) + PRIOR) / (expected[..., first:last].sum(-1) + PRIOR))
            for first, last in AHEAD
        ]
        return torch.stack(windows, dim=-1)

    @torch.no_grad()
    def recent(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
    ) -> Float[Tensor, "sequence event packed"]:
        """Pack the latest events up to every position, see `Recent`."""
        count = self.config.recent
        if count == 0:
            return time.new_empty(*time.shape, 0)
        ones = torch.ones_like(time, dtype=torch.float64)
        marks = torch.zeros_like(ones) if mark is None else mark.double()
        columns = torch.stack([location[..., 0], location[..., 1], time.double() / self.scale[3], marks, ones], dim=1)
        windows = F.pad(columns, (count - 1, 0)).unfold(2, count, 1).flip(-1)
        x, y, when, kind, present = windows.unbind(1)
        ago = (when[..., :1] - when) * present
        packed = torch.stack([x, y, ago, kind, present], dim=2).float()
        return packed.flatten(2)


def _delayed(values: Float[Tensor, "sequence event value"], step: int, *, fill: float = 0.0) -> Tensor:
    """Values of `step` events before."""
    return F.pad(values, (0, 0, step, 0), value=fill)[:, : values.shape[1]] if step else values
