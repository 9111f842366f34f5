"""SVQ: every latent vector becomes a weighted sum of codes, whose weights a small perceptron computes.

`q = Mᵀ w` with `w = W2 ReLU(W1 z + b1) + b2` and the codebook M (paper, equations 4 to 6). There is no penalty, no
choice of a nearest code and no gradient estimator. Behind the ReLU everything is linear: `q = F a + c` with
`F = Mᵀ W2`, `c = Mᵀ b2` and the hidden values a. The layer computes F and c once a step, inside autograd, and never a
weight for every token and code; parameters, gradients and the course of training are those of the long form. Without
that ReLU, or with one linear layer, the whole is one affine map of z. A ReLU on w forbids the short form: then tokens
pass in chunks that are computed again in the backward pass.

Source: SVQ (Chen et al., arXiv 2312.03406, section 3), the authors' `SVQ` module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from svq.models.configs import QuantizerConfig

CHUNK_VALUES = 2**23
"""Code weights that are held at once by default."""


class Quantized(NamedTuple):
    """What a quantiser makes of latent frames."""

    values: Float[Tensor, "frame channel rows columns"]
    loss: Float[Tensor, ""]
    """Auxiliary loss, to be added to that of the forecast."""
    indices: Tensor | None = None
    """Chosen codes, of quantisers that choose."""


class Fold(NamedTuple):
    """The affine map from hidden values to the output."""

    matrix: Float[Tensor, "channel hidden"]
    offset: Float[Tensor, "channel"]


def first_codebook(codes: int, channels: int, init: str) -> Float[Tensor, "codes channels"]:
    """Draw the first codebook."""
    book = torch.empty(codes, channels)
    match init:
        case "kaiming":
            return nn.init.kaiming_uniform_(book)
        case "xavier":
            return nn.init.xavier_uniform_(book, gain=nn.init.calculate_gain("relu"))
        case "sparse":
            return nn.init.sparse_(book, sparsity=0.9)
        case "trunc":
            return nn.init.trunc_normal_(book)
        case "orthogonal":
            return nn.init.orthogonal_(book)
        case _:
            return nn.init.normal_(book)


class SVQ(nn.Module):
    """Sparse vector quantisation of latent frames.

    Args:
        config: codes, hidden width, form.
        channels: of the latent frames.
    """

    def __init__(self, config: QuantizerConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(channels, config.hidden) if config.nonlinear else None
        self.codes = nn.Linear(config.hidden if config.nonlinear else channels, config.codebook_size)
        self.codebook = nn.Parameter(first_codebook(config.codebook_size, channels, config.init))
        self.codebook.requires_grad_(not config.freeze_codebook)
        for layer in (self.hidden, self.codes):
            if layer is not None:
                layer.requires_grad_(not config.freeze_projection)
        self._kept: tuple[tuple[object, ...], Fold] | None = None

    @property
    def folds(self) -> bool:
        """Whether the output can be had without the code weights."""
        return not self.config.out_relu and not self.config.sparsity

    def forward(self, latent: Float[Tensor, "frame channel rows columns"]) -> Quantized:
        """Return the weighted sums of codes, and the penalty on the weights, 0 unless one was asked for."""
        if self.folds:
            return Quantized(self.folded(latent), latent.new_zeros(()))
        values, magnitude = self.unfolded(latent)
        return Quantized(values, self.config.sparsity * magnitude)

    def folded(
        self, latent: Float[Tensor, "frame channel rows columns"]
    ) -> Float[Tensor, "frame channel rows columns"]:
        """Return the output by way of F and c; not with a ReLU on the code weights."""
        fold = self.fold()
        return F.conv2d(self._activate(latent), fold.matrix[:, :, None, None], fold.offset)

    def unfolded(
        self, latent: Float[Tensor, "frame channel rows columns"], *, chunk: int | None = None
    ) -> tuple[Float[Tensor, "frame channel rows columns"], Float[Tensor, ""]]:
        """Return the output by way of the code weights, and the mean absolute weight.

        Args:
            latent: latent frames.
            chunk: tokens at a time.
        """
        tokens = rearrange(latent, "frame channel rows columns -> (frame rows columns) channel")
        sums: list[Tensor] = []
        total = latent.new_zeros(())
        for part in tokens.split(chunk or self.default_chunk):
            # Keeping the weights of all chunks for the backward pass is what this form has to avoid.
            summed, magnitude = checkpoint(self._weigh, part, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportGeneralTypeIssues]
            sums.append(summed)
            total = total + magnitude
        frames, _, rows, columns = latent.shape
        values = rearrange(torch.cat(sums), "(frame rows columns) channel -> frame channel rows columns",
                           frame=frames, rows=rows, columns=columns)  # fmt: skip
        return values, total / (len(tokens) * self.config.codebook_size)

    def code_weights(
        self, latent: Float[Tensor, "frame channel rows columns"], *, chunk: int | None = None
    ) -> Iterator[Float[Tensor, "token codes"]]:
        """Yield the code weights of all tokens, frame by frame and row by row.

        Args:
            latent: latent frames.
            chunk: tokens at a time.
        """
        tokens = rearrange(latent, "frame channel rows columns -> (frame rows columns) channel")
        for part in tokens.split(chunk or self.default_chunk):
            yield self._weights(part)

    @property
    def default_chunk(self) -> int:
        """Tokens whose code weights are held at once."""
        return max(1, CHUNK_VALUES // self.config.codebook_size)

    def fold(self) -> Fold:
        """Return F and c; without gradients they are kept until a parameter changes."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._multiply()
        state = self._fingerprint()
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._multiply())
        return self._kept[1]

    def train(self, mode: bool = True) -> SVQ:
        """Switch to training or evaluation; what was kept is forgotten."""
        self._kept = None
        return super().train(mode)

    def _multiply(self) -> Fold:
        # Sums over thousands of codes need more digits than half precision has.
        with torch.autocast(self.codebook.device.type, enabled=False):
            dtype = torch.promote_types(self.codebook.dtype, torch.float32)
            book = self.codebook.to(dtype).T
            matrix, offset = book @ self.codes.weight.to(dtype), book @ self.codes.bias.to(dtype)
        return Fold(matrix.to(self.codebook.dtype), offset.to(self.codebook.dtype))

    def _fingerprint(self) -> tuple[object, ...]:
        """Tell one state of the parameters from another.

        Averaging libraries write through `.data`, which no version counter sees; sums do.
        """
        parts = (self.codebook, self.codes.weight, self.codes.bias)
        seen = [(part.data_ptr(), part._version, part.dtype) for part in parts]
        return (*seen, *torch.stack([part.sum(dtype=torch.float64) for part in parts]).tolist())

    def _activate(
        self, latent: Float[Tensor, "frame channel rows columns"]
    ) -> Float[Tensor, "frame hidden rows columns"]:
        if self.hidden is None:
            return latent
        hidden = F.conv2d(latent, self.hidden.weight[:, :, None, None], self.hidden.bias)
        return F.relu(hidden) if self.config.hidden_relu else hidden

    def _weights(self, tokens: Float[Tensor, "token channel"]) -> Float[Tensor, "token codes"]:
        if self.hidden is not None:
            tokens = self.hidden(tokens)
            tokens = F.relu(tokens) if self.config.hidden_relu else tokens
        weights = self.codes(tokens)
        return F.relu(weights) if self.config.out_relu else weights

    def _weigh(self, tokens: Float[Tensor, "token channel"]) -> tuple[Tensor, Tensor]:
        weights = self._weights(tokens)
        return weights @ self.codebook.to(weights.dtype), weights.abs().sum()


class Control(nn.Module):
    """The perceptron of SVQ without a codebook: the same functions (see above), with other parameters.

    Args:
        config: hidden width, form.
        channels: of the latent frames.
    """

    def __init__(self, config: QuantizerConfig, channels: int) -> None:
        super().__init__()
        self.hidden_relu = config.hidden_relu
        self.hidden = nn.Linear(channels, config.hidden) if config.nonlinear else None
        self.out = nn.Linear(config.hidden if config.nonlinear else channels, channels)

    def forward(self, latent: Float[Tensor, "frame channel rows columns"]) -> Quantized:
        """Return the perceptron's output; its loss is 0."""
        x = latent
        if self.hidden is not None:
            x = F.conv2d(x, self.hidden.weight[:, :, None, None], self.hidden.bias)
            x = F.relu(x) if self.hidden_relu else x
        return Quantized(F.conv2d(x, self.out.weight[:, :, None, None], self.out.bias), latent.new_zeros(()))


class Nothing(nn.Module):
    """Latent frames as they are."""

    def forward(self, latent: Float[Tensor, "frame channel rows columns"]) -> Quantized:
        """Return the latent frames."""
        return Quantized(latent, latent.new_zeros(()))


def usage_perplexity(
    svq: SVQ,
    latent: Float[Tensor, "frame channel rows columns"],
    *,
    thresholds: tuple[float, ...] = (2.0, 3.0),
    chunk: int | None = None,
) -> list[float]:
    """Perplexity of the codes that are used: those whose standardised weight exceeds a threshold.

    Weights are standardised over all tokens and codes; each code's count of exceedances, divided by that of all codes,
    is its probability. The weights are computed twice, in chunks.

    Args:
        svq: the module.
        latent: what it is given.
        thresholds: in standard deviations.
        chunk: tokens at a time.

    Returns:
        For each threshold exp of the entropy; 0 where no weight exceeds it.

    Source: the authors' `SVQ` module, `evaluate_usage`.
    """
    with torch.no_grad():
        first = second = count = 0.0
        for weights in svq.code_weights(latent, chunk=chunk):
            variance, mean = torch.var_mean(weights.double(), correction=0)
            first, second = first + weights.numel() * float(mean), second + weights.numel() * float(variance + mean**2)
            count += weights.numel()
        mean = first / count
        deviation = math.sqrt(max(second / count - mean**2, 0.0) * count / max(count - 1, 1))
        hits = torch.zeros(len(thresholds), svq.config.codebook_size, dtype=torch.float64, device=latent.device)
        for weights in svq.code_weights(latent, chunk=chunk):
            distance = ((weights - mean) / deviation).abs()
            hits += torch.stack([(distance > threshold).sum(0) for threshold in thresholds])
    return [perplexity(row) for row in hits]


def perplexity(counts: Float[Tensor, "codes"]) -> float:
    """Exp of the entropy of how often each code is used; 0 when none is.

    >>> round(perplexity(torch.tensor([2.0, 2.0, 0.0])), 6)
    2.0
    """
    if not bool(counts.sum() > 0):
        return 0.0
    share = counts / counts.sum()
    return float(torch.exp(-(share * (share + 1e-10).log()).sum()))
