"""The quantisers that the paper compares with, from vector-quantize-pytorch (lucidrains, MIT).

Settings: SVQ (Chen et al.), comparison of quantisers. In training mode the library's present version updates a shared
codebook once for all residual quantisers, where the one the authors used did so after each; the residual FSQ has
other levels now. The others agree in evaluation mode to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from vector_quantize_pytorch import (
    LFQ,
    GroupedResidualVQ,
    ResidualFSQ,
    ResidualLFQ,
    ResidualVQ,
    VectorQuantize,
    lookup_free_quantization,
)

from stcore.errors import UserError
from stcore.training.batch_norm import in_company, sum_over_ranks
from stcore.training.ranks import world_size
from svq.models.configs import QuantizerConfig
from svq.models.sparse import Quantized, perplexity


def make_inner(config: QuantizerConfig, channels: int) -> nn.Module:
    """Make the library's module.

    Raises:
        UserError: channels that the groups or codes do not fit.
    """
    # Averages of the codes are summed over processes; the plain gradient estimator is the paper's.
    book: dict[str, Any] = {
        "codebook_size": config.codebook_size,
        "decay": config.decay,
        "commitment_weight": config.commitment,
        "rotation_trick": False,
        "sync_codebook": world_size() > 1,
    }
    entropy: dict[str, Any] = {"entropy_loss_weight": config.entropy_weight, "diversity_gamma": config.diversity}
    row: dict[str, Any] = {"dim": channels, "num_quantizers": config.quantizers}
    match config.kind:
        case "vq":
            return VectorQuantize(dim=channels, **book)
        case "multi-head-vq":
            return VectorQuantize(dim=channels, heads=config.heads, codebook_dim=config.head_dim,
                                  separate_codebook_per_head=False, **book)  # fmt: skip
        case "residual-vq":
            return ResidualVQ(shared_codebook=True, **row, **book)
        case "residual-vq-stochastic":
            return ResidualVQ(shared_codebook=True, stochastic_sample_codes=True,
                              sample_codebook_temp=config.temperature, **row, **book)  # fmt: skip
        case "grouped-residual-vq":
            if channels % config.groups:
                raise UserError(f"quantizer.groups: {config.groups} on {channels} channels; expected a divisor of them")
            return GroupedResidualVQ(groups=config.groups, shared_codebook=True, **row, **book)
        case "lfq":
            return LFQ(dim=channels, codebook_size=config.codebook_size, **entropy)
        case "residual-lfq":
            return ResidualLFQ(codebook_size=config.codebook_size, **row, **entropy)
        case "residual-fsq":
            return ResidualFSQ(levels=list(config.levels), **row)
        case _:
            raise UserError(f"quantizer.kind: {config.kind!r}; expected one of vector-quantize-pytorch")


class LibraryQuantizer(nn.Module):
    """A quantiser of the library on latent frames.

    Args:
        config: kind and sizes.
        channels: of the latent frames.
    """

    def __init__(self, config: QuantizerConfig, channels: int) -> None:
        super().__init__()
        _mend_mean()
        self.config = config
        self.on_maps = config.kind == "lfq"
        self.inner = make_inner(config, channels)
        # Their constant 0 asks for a gradient, which a buffer that processes exchange must not.
        for buffer in self.inner.buffers():
            buffer.requires_grad_(False)
        # Codebooks are drawn, never clustered; asking a tensor whether that is still to be done stops every export.
        for part in cast("Iterable[Any]", self.inner.modules()):
            if hasattr(part, "init_embed_"):
                part.init_embed_ = _start_as_drawn

    def forward(self, latent: Float[Tensor, "frame channel rows columns"]) -> Quantized:
        """Return the codes' vectors, the library's loss (its mean), and the codes' numbers."""
        # Distances to codes lose their meaning in half precision.
        with torch.autocast(latent.device.type, enabled=False):
            x = latent.to(torch.promote_types(latent.dtype, torch.float32))
            if not self.on_maps:
                x = rearrange(x, "frame channel rows columns -> frame (rows columns) channel")
            values, indices, *loss = self.inner(x)
        if not self.on_maps:
            values = rearrange(values, "frame (rows columns) channel -> frame channel rows columns",
                               rows=latent.shape[-2])  # fmt: skip
        return Quantized(values.to(latent.dtype), loss[0].mean() if loss else latent.new_zeros(()), indices)

    def by_quantizer(self, indices: Int[Tensor, "..."]) -> Int[Tensor, "quantizer token"]:
        """Sort the codes' numbers by the quantiser (or head, or group and quantiser) that chose them."""
        if self.config.kind in ("vq", "lfq"):
            return indices.reshape(1, -1)
        if self.config.kind == "grouped-residual-vq":
            return rearrange(indices, "group frame token quantizer -> (group quantizer) (frame token)")
        return rearrange(indices, "frame token quantizer -> quantizer (frame token)")

    @property
    def codes(self) -> int:
        """Codes that each quantiser chooses from."""
        return int(torch.tensor(self.config.levels).prod()) if self.config.kind == "residual-fsq" else (
            self.config.codebook_size)  # fmt: skip


class CodeUsage:
    """Counts over batches of how often each code was chosen, for each quantiser.

    Args:
        quantizer: whose codes they are.
    """

    def __init__(self, quantizer: LibraryQuantizer) -> None:
        self._quantizer = quantizer
        self._counts: Tensor | None = None

    def update(self, indices: Int[Tensor, "..."]) -> None:
        """Count the codes of a batch, as the quantiser returned them."""
        rows = self._quantizer.by_quantizer(indices).long()
        counts = torch.stack([torch.bincount(row, minlength=self._quantizer.codes) for row in rows]).double()
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> dict[str, list[float]]:
        """Return, for each quantiser, how many codes were used and their perplexity.

        Raises:
            UserError: nothing was counted.
        """
        if self._counts is None:
            raise UserError("codes: none were counted; expected at least one batch")
        return {"used": (self._counts > 0).sum(1).double().tolist(),
                "perplexity": [perplexity(row) for row in self._counts]}  # fmt: skip


def _start_as_drawn(*_: object, **__: object) -> None:
    """Do nothing in place of clustering the first batch."""


def _mean_over_ranks(values: Tensor) -> Tensor:
    return sum_over_ranks(values) / distributed.get_world_size() if in_company() else values


@cache
def _mend_mean() -> None:
    """Let LFQ's entropy be that of the codes of all processes.

    The library (1.32) reduces a copy, throws it away, and divides what one process has by their number.
    """
    library: Any = lookup_free_quantization
    library.maybe_distributed_mean = _mean_over_ranks
