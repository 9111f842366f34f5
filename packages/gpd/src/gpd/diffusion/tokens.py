"""Rows of parameters as tokens, and back; and the scale on which they diffuse.

The paper cuts a row layer by layer, so that a token holds neighbouring numbers of one layer; the original's code
reshapes a row to (channels, tokens), so that token l holds the numbers l, L + l, 2 L + l, … of all layers. Both are
here as tables of places; `layerwise` fills up each kind of layer with zeros to whole tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpd.diffusion.configs import Layout, Scaling
from stcore.errors import UserError

if TYPE_CHECKING:
    from gpd.models.spec import ParamSpec

Rows = Float[Tensor, "row number"]
TokenRows = Float[Tensor, "row token channel"]

_MARGIN = 0.1
"""Share of their range that numbers may lie beyond the training rows' own."""
_AT_ONCE = 4096
"""Columns of a table that are looked at together, so that statistics take little memory beside it."""
_LEAST = 1e-8
"""Deviation below which numbers count as constant."""
ON_GRAPH = frozenset({"block1.Theta1", "gconv"})
"""Kinds of layers that mix over the graph."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLayout:
    """Which number of a row each entry of each token is."""

    places: Int[Tensor, "token channel"]
    """Places in the row; -1 where an entry is filled up with zero."""
    numbers: int
    """Numbers in a row (P)."""
    trained: Bool[Tensor, "token channel"]
    """Entries that count: neither filled up, nor without influence on forecasts."""
    kind: Int[Tensor, " token"]
    """Kind of layer that a token is from; 0 for all where tokens are strided."""
    layer: Int[Tensor, " token"]
    """Depth of the layer that a token begins in."""
    kinds: tuple[str, ...]
    """Names of the kinds of layers."""
    layers: int
    """Depths that there are."""
    on_graph: Bool[Tensor, " token"]
    """Tokens of layers that mix over the graph."""
    kind_of_number: Int[Tensor, " number"]
    """Kind of layer of each number of the row."""

    @property
    def tokens(self) -> int:
        return self.places.shape[0]

    @property
    def channels(self) -> int:
        return self.places.shape[1]

    def to_tokens(self, rows: Rows) -> TokenRows:
        """Cut rows into tokens."""
        places = self.places.to(rows.device)
        cut = rows[:, places.clamp_min(0).flatten()].unflatten(1, tuple(places.shape))
        return cut.where(places >= 0, 0.0)

    def to_rows(self, tokens: TokenRows) -> Rows:
        """Put tokens together to rows; what was filled up is left out."""
        rows = tokens.new_zeros(len(tokens), self.numbers)
        flat = self.places.to(tokens.device).flatten()
        real = flat >= 0
        rows[:, flat[real]] = rearrange(tokens, "row token channel -> row (token channel)")[:, real]
        return rows


def make_layout(spec: Sequence[ParamSpec], kind: Layout, channels: int) -> TokenLayout:
    """Return how rows of these parameters are cut into tokens of so many numbers.

    Raises:
        UserError: the row of a strided layout is no multiple of `channels`.
    """
    sizes = [math.prod(each.shape) for each in spec]
    kinds = tuple(dict.fromkeys(each.group for each in spec))
    of_number = torch.repeat_interleave(torch.tensor([kinds.index(each.group) for each in spec]), torch.tensor(sizes))
    used = torch.repeat_interleave(torch.tensor([each.used for each in spec]), torch.tensor(sizes))
    depth = torch.repeat_interleave(torch.tensor([each.layer for each in spec]), torch.tensor(sizes))
    numbers = sum(sizes)
    if kind == "legacy":
        places = _strided(numbers, channels)
        token_kind = token_layer = torch.zeros(len(places), dtype=torch.int64)
        on_graph = _as_if_contiguous(spec, sizes, len(places), channels)
    else:
        places = _by_kind(of_number, len(kinds), channels)
        token_kind, token_layer = of_number[places[:, 0]], depth[places[:, 0]]
        # Where no layer is on the graph, the place of a node concerns all of them.
        anywhere = ON_GRAPH.isdisjoint(kinds)
        on_graph = torch.tensor([anywhere or name in ON_GRAPH for name in kinds])[token_kind]
    trained = (places >= 0) & used[places.clamp_min(0)]
    return TokenLayout(
        places=places, numbers=numbers, trained=trained, kind=token_kind, layer=token_layer, kinds=kinds,
        layers=int(depth.max()) + 1, on_graph=on_graph, kind_of_number=of_number,
    )  # fmt: skip


def _strided(numbers: int, channels: int) -> Int[Tensor, "token channel"]:
    if numbers % channels:
        raise UserError(f"denoiser.channels: {channels} for rows of {numbers:,} numbers; expected a divisor with the "
                        "legacy layout; use layerwise")  # fmt: skip
    return rearrange(torch.arange(numbers), "(channel token) -> token channel", channel=channels).contiguous()


def _as_if_contiguous(
    spec: Sequence[ParamSpec], sizes: Sequence[int], tokens: int, channels: int
) -> Bool[Tensor, " token"]:
    """Return the tokens that the original takes for those of graph layers: as if a token were a slice of the row."""
    found, start = torch.zeros(tokens, dtype=torch.bool), 0
    for each, size in zip(spec, sizes, strict=True):
        if each.group in ON_GRAPH:
            found[start // channels : -(-(start + size) // channels)] = True
        start += size
    return found


def _by_kind(of_number: Int[Tensor, " number"], kinds: int, channels: int) -> Int[Tensor, "token channel"]:
    """Cut the numbers of each kind of layer, in their order, into tokens of their own."""
    found: list[Tensor] = []
    for kind in range(kinds):
        places = (of_number == kind).nonzero()[:, 0]
        missing = -len(places) % channels
        found.append(torch.cat([places, places.new_full((missing,), -1)]).unflatten(0, (-1, channels)))
    return torch.cat(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowScaling:
    """Shift and scale of each number of a row, and the bounds of training rows on that scale."""

    mean: Float[Tensor, " number"]
    deviation: Float[Tensor, " number"]
    low: Float[Tensor, " number"]
    """Least scaled value that a generated number may take; a tenth below the training rows' own."""
    high: Float[Tensor, " number"]

    @classmethod
    def fit(cls, rows: Rows, layout: TokenLayout, how: Scaling) -> RowScaling:
        """Measure training rows.

        Args:
            rows: of the source cities' nodes that are trained on.
            layout: tells the kinds of layers.
            how: whether means are those of each number or of each kind of layer; `raw` leaves rows as they are.
        """
        mean, deviation = torch.zeros(rows.shape[1]), torch.ones(rows.shape[1])
        low, high = torch.empty(rows.shape[1]), torch.empty(rows.shape[1])
        for kind in range(len(layout.kinds)):
            places = (layout.kind_of_number == kind).nonzero()[:, 0]
            if how != "raw":
                centres = torch.cat([rows[:, part].double().mean(0) for part in places.split(_AT_ONCE)])
                mean[places] = (centres if how == "entry" else centres.mean().expand(len(places))).float()
            spread, least, most = _range(rows, mean, places)
            if how != "raw" and spread > _LEAST:
                deviation[places], least, most = spread, least / spread, most / spread
            margin = _MARGIN * (most - least)
            low[places], high[places] = least - margin, most + margin
        return cls(mean=mean, deviation=deviation, low=low, high=high)

    def scale(self, rows: Rows) -> Rows:
        """Return rows on the scale that they diffuse on."""
        return (rows - self.mean.to(rows.device)) / self.deviation.to(rows.device)

    def restore(self, rows: Rows) -> Rows:
        """Return scaled rows as parameters."""
        return rows * self.deviation.to(rows.device) + self.mean.to(rows.device)

    def constants(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {f"rows/{name}": getattr(self, name) for name in ("mean", "deviation", "low", "high")}

    @classmethod
    def from_constants(cls, constants: Mapping[str, Tensor]) -> RowScaling:
        """Rebuild the scaling from a checkpoint's constants.

        Raises:
            UserError: one is missing.
        """
        names = ("mean", "deviation", "low", "high")
        if missing := [name for name in names if f"rows/{name}" not in constants]:
            raise UserError(f"checkpoint: no scaling of rows ({', '.join(missing)}); expected one of a diffusion model")
        return cls(**{name: constants[f"rows/{name}"] for name in names})


def _range(rows: Rows, mean: Float[Tensor, " number"], places: Int[Tensor, " place"]) -> tuple[float, float, float]:
    """Return root mean square, least and largest of what is left of some columns without their means."""
    squares, least, most = 0.0, math.inf, -math.inf
    for part in places.split(_AT_ONCE):
        left = rows[:, part].double() - mean[part]
        squares += float(left.square().sum())
        least, most = min(least, float(left.min())), max(most, float(left.max()))
    return math.sqrt(squares / (len(rows) * len(places))), least, most
