"""Encode the history of each event: four Transformer branches, each followed by an LSTM.

Li et al., "Beyond Point Prediction: Score Matching-based Pseudolikelihood Estimation of Neural Marked
Spatio-Temporal Point Process", ICML 2024, section 4 (history encoder); the split into a temporal, a spatial, a
joint and a mark branch follows the authors' code (github.com/zichongli5/SMASH), which took it from DSTPP (KDD 2023).
Differs in: padding comes from lengths (`legacy_masks` infers it from zeros as the authors' code does), attention
keeps no maps, the LSTM runs over the padded batch (padding is on the right and everything is causal, so that real
positions never see it), and parameters that never received a gradient are gone.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from smash.attention import Dropout, attend_causally
from smash.config import ModelConfig

HIDDEN_LOGIT = -1e9
"""Added to a disallowed attention logit under legacy masks. Finite, as in the original: a row in which every logit
has it attends to everything alike."""


class LegacyMasks:
    """The original's masks: an event at time 0 counts as padding, an event at coordinate 0 is no attention key.

    Args:
        time: absolute times, zero where padded.
        location: normalised coordinates, zero where padded.
    """

    def __init__(self, time: Float[Tensor, "sequence event"], location: Float[Tensor, "sequence event 2"]) -> None:
        self.valid: Float[Tensor, "sequence event 1"] = (time != 0).to(time.dtype)[..., None]
        count = time.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=time.device).tril()
        allowed = causal & (location[..., 0] != 0)[:, None, :]
        bias = torch.zeros(allowed.shape, dtype=time.dtype, device=time.device)
        self.bias: Float[Tensor, "sequence 1 event event"] = bias.masked_fill_(~allowed, HIDDEN_LOGIT)[:, None]

    @property
    def lengths(self) -> Int[Tensor, "sequence"]:
        """Events that count, one fewer for each event at time 0."""
        return self.valid[..., 0].sum(1).long()


class AttentionLayer(nn.Module):
    """One post-norm Transformer layer: causal self-attention, then a GELU feed-forward part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        inner = config.feed_forward_width or 2 * width
        self.heads = heads
        self.splits = [heads * config.key_width, heads * config.key_width, heads * config.value_width]
        self.query_key_value = nn.Linear(width, sum(self.splits), bias=False)
        self.output = nn.Linear(heads * config.value_width, width)
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = Dropout(config.dropout)
        for block in self.query_key_value.weight.split(self.splits):
            nn.init.xavier_uniform_(block)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(
        self, x: Float[Tensor, "sequence event width"], masks: LegacyMasks | None = None
    ) -> Float[Tensor, "sequence event width"]:
        query, key, value = (
            rearrange(part, "sequence event (head width) -> sequence head event width", head=self.heads)
            for part in self.query_key_value(x).split(self.splits, dim=-1)
        )
        dropout = self.dropout.p if self.training else 0.0
        if masks:
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=masks.bias, dropout_p=dropout)
        else:
            attended = attend_causally(query, key, value, dropout=dropout)
        attended = rearrange(attended, "sequence head event width -> sequence event (head width)")
        x = self.attention_norm(x + self.dropout(self.output(attended)))
        if masks:
            x = x * masks.valid
        inner = self.dropout(F.gelu(self.expand(x)))
        x = self.feed_forward_norm(x + self.dropout(self.contract(inner)))
        return x * masks.valid if masks else x


class Branch(nn.Module):
    """A stack of attention layers, then an LSTM and a linear map back to the branch width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        recurrent = config.recurrent_width or 4 * config.width
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.layers))
        self.recurrence = nn.LSTM(config.width, recurrent, batch_first=True)
        self.projection = nn.Linear(recurrent, config.width)

    def attend(
        self, code: Float[Tensor, "sequence event width"], masks: LegacyMasks | None = None
    ) -> Float[Tensor, "sequence event width"]:
        """Run the attention layers only."""
        for layer in self.layers:
            code = layer(code, masks)
        return code

    def forward(
        self, code: Float[Tensor, "sequence event width"], masks: LegacyMasks | None = None
    ) -> Float[Tensor, "sequence event width"]:
        return self.projection(self.recurrence(self.attend(code, masks))[0])


class HistoryEncoder(nn.Module):
    """Turn events into conditions: position i summarises events 0 to i.

    Args:
        config: sizes.
        num_marks: kinds of events; 1 means unmarked, which has no mark branch.
    """

    periods: Tensor

    def __init__(self, config: ModelConfig, *, num_marks: int) -> None:
        super().__init__()
        width = config.width
        channel = torch.arange(width, dtype=torch.float64)
        periods = 10000.0 ** (2.0 * torch.div(channel, 2, rounding_mode="floor") / width)
        self.register_buffer("periods", periods.to(torch.get_default_dtype()), persistent=False)
        self.location_code = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width),
        )  # fmt: skip
        self.branches = nn.ModuleDict({name: Branch(config) for name in ("temporal", "spatial", "joint")})
        self.mark_code: nn.Embedding | None = None
        if num_marks > 1:
            self.mark_code = nn.Embedding(num_marks, width)
            self.branches["mark"] = Branch(config)

    def time_code(self, time: Float[Tensor, "sequence event"]) -> Float[Tensor, "sequence event width"]:
        """Sinusoids of the absolute time, in the data's unit (original `Encoder.temporal_enc`)."""
        phase = time[..., None] / self.periods
        even = torch.arange(phase.shape[-1], device=time.device) % 2 == 0
        return torch.where(even, torch.sin(phase), torch.cos(phase))

    def codes(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
        *,
        present: Bool[Tensor, "sequence event"],
        masks: LegacyMasks | None = None,
    ) -> dict[str, Tensor]:
        """Inputs of the branches, in the order in which their outputs are joined to the condition."""
        temporal = self.time_code(time)
        if masks:
            temporal = temporal * masks.valid
        spatial = self.location_code(location)
        if self.mark_code is None:
            return {"temporal": temporal, "spatial": spatial, "joint": temporal + spatial}
        marks = self.mark_code(mark) * present[..., None]
        return {"temporal": temporal, "spatial": spatial, "joint": temporal + spatial + marks, "mark": marks}

    def forward(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
        *,
        present: Bool[Tensor, "sequence event"],
        masks: LegacyMasks | None = None,
    ) -> Float[Tensor, "sequence event condition"]:
        codes = self.codes(time, location, mark, present=present, masks=masks)
        return torch.cat([self.branches[name](code, masks) for name, code in codes.items()], dim=-1)
