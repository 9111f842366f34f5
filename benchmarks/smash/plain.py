"""SMASH written down plainly: the formulas of the paper and of the original, in library operations.

This is what the package is timed against, and a second opinion on the recordings. Nothing here is clever: batches in
random order are padded to their longest sequence, attention keeps its maps, the gap score is differentiated by
autograd (twice in training), the chain draws a few samples of each event at a time and forgets nothing it could
have kept. Nothing is needlessly slow either: no loop over events, boolean masks do the flattening.

Modules carry the names of the original's state, so its weights load without translation.

Source: Li et al., "Beyond Point Prediction", ICML 2024 (arXiv 2310.16310), and the authors' code
(github.com/zichongli5/SMASH), whose formulas these are; written anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

SMALLEST_PROBABILITY = 1e-10
HIDDEN_LOGIT = -1e9


@dataclass(frozen=True, kw_only=True)
class PlainSizes:
    """Sizes of one model; `marks` is 1 for unmarked data. The defaults are those of the Earthquake runs."""

    marks: int
    width: int = 16
    layers: int = 4
    heads: int = 4
    key_width: int = 16
    value_width: int = 16
    feed_forward_width: int = 32
    recurrent_width: int = 64
    units: int = 64

    @property
    def condition_width(self) -> int:
        return (4 if self.marks > 1 else 3) * self.width


@dataclass(frozen=True, kw_only=True)
class PlainBatch:
    """Padded sequences; gap and location scaled to [0, 1], time raw, marks 1-based with 0 for padding."""

    time: Float[Tensor, "sequence event"]
    gap: Float[Tensor, "sequence event"]
    mark: Int[Tensor, "sequence event"] | None
    location: Float[Tensor, "sequence event 2"]
    valid: Bool[Tensor, "sequence event"]


@dataclass(frozen=True, kw_only=True)
class PlainTargets:
    """Every event but the first of each sequence, with the condition its history gives; coordinates in [-1, 1]."""

    condition: Float[Tensor, "event 1 condition"]
    x: Float[Tensor, "event 1 3"]
    mark: Int[Tensor, " event"] | None


class PlainAttention(nn.Module):
    """Multi-head self-attention with explicit maps, residual and post-norm."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        keys, values = sizes.heads * sizes.key_width, sizes.heads * sizes.value_width
        self.heads = sizes.heads
        self.w_qs = nn.Linear(sizes.width, keys, bias=False)
        self.w_ks = nn.Linear(sizes.width, keys, bias=False)
        self.w_vs = nn.Linear(sizes.width, values, bias=False)
        self.fc = nn.Linear(values, sizes.width)
        self.layer_norm = nn.LayerNorm(sizes.width, eps=1e-6)
        self.dropout = nn.Dropout(0.1)
        for linear in (self.w_qs, self.w_ks, self.w_vs, self.fc):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, x: Float[Tensor, "sequence event width"], allowed: Bool[Tensor, "sequence 1 event event"]
    ) -> Float[Tensor, "sequence event width"]:
        query, key, value = (
            rearrange(linear(x), "sequence event (head key) -> sequence head event key", head=self.heads)
            for linear in (self.w_qs, self.w_ks, self.w_vs)
        )
        logits = query @ key.transpose(-1, -2) / math.sqrt(key.shape[-1])
        weights = self.dropout(torch.softmax(logits.masked_fill(~allowed, HIDDEN_LOGIT), dim=-1))
        attended = rearrange(weights @ value, "sequence head event key -> sequence event (head key)")
        return self.layer_norm(self.dropout(self.fc(attended)) + x)


class PlainFeedForward(nn.Module):
    """Two linear maps around a GELU, residual and post-norm."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.w_1 = nn.Linear(sizes.width, sizes.feed_forward_width)
        self.w_2 = nn.Linear(sizes.feed_forward_width, sizes.width)
        self.layer_norm = nn.LayerNorm(sizes.width, eps=1e-6)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Float[Tensor, "sequence event width"]) -> Float[Tensor, "sequence event width"]:
        hidden = self.dropout(nn.functional.gelu(self.w_1(x)))
        return self.layer_norm(self.dropout(self.w_2(hidden)) + x)


class PlainLayer(nn.Module):
    """One encoder layer; padded events are zeroed after each half."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.slf_attn = PlainAttention(sizes)
        self.pos_ffn = PlainFeedForward(sizes)

    def forward(
        self,
        x: Float[Tensor, "sequence event width"],
        allowed: Bool[Tensor, "sequence 1 event event"],
        real: Float[Tensor, "sequence event 1"],
    ) -> Float[Tensor, "sequence event width"]:
        return self.pos_ffn(self.slf_attn(x, allowed) * real) * real


class PlainBranches(nn.Module):
    """Event codes and the attention stacks of the branches temporal, spatial, joint and (marked data) mark."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        width = sizes.width
        self.width = width
        self.event_emb_loc = nn.Sequential(
            nn.Linear(2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        self.layer_stack = nn.ModuleList(PlainLayer(sizes) for _ in range(sizes.layers))
        self.layer_stack_temporal = nn.ModuleList(PlainLayer(sizes) for _ in range(sizes.layers))
        self.layer_stack_loc = nn.ModuleList(PlainLayer(sizes) for _ in range(sizes.layers))
        if sizes.marks > 1:
            self.event_emb_mark = nn.Embedding(sizes.marks + 1, width, padding_idx=0)
            self.layer_stack_mark = nn.ModuleList(PlainLayer(sizes) for _ in range(sizes.layers))

    def temporal_code(self, time: Float[Tensor, "sequence event"]) -> Float[Tensor, "sequence event width"]:
        channel = torch.arange(self.width, device=time.device)
        period = 10000.0 ** (2 * (channel // 2) / self.width)
        angle = time[..., None] / period
        return torch.where(channel % 2 == 0, angle.sin(), angle.cos())

    def forward(
        self, batch: PlainBatch, visible: Bool[Tensor, "sequence event"]
    ) -> list[Float[Tensor, "sequence event width"]]:
        """Return the attention output of each branch in the order of the condition; `visible` marks usable keys."""
        real = batch.valid[..., None].float()
        length = batch.time.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=batch.time.device).tril()
        allowed = (causal & visible[:, None, :])[:, None]
        temporal = self.temporal_code(batch.time) * real
        spatial = self.event_emb_loc(batch.location)
        branches = [(temporal, self.layer_stack_temporal), (spatial, self.layer_stack_loc)]
        if batch.mark is None:
            branches.append((temporal + spatial, self.layer_stack))
        else:
            mark = self.event_emb_mark(batch.mark)
            branches += [(temporal + spatial + mark, self.layer_stack), (mark, self.layer_stack_mark)]
        outputs = []
        for code, stack in branches:
            for layer in stack:
                code = layer(code, allowed, real)
            outputs.append(code)
        return outputs


class PlainRecurrence(nn.Module):
    """An LSTM over the real events and a projection back to the branch width."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.rnn = nn.LSTM(sizes.width, sizes.recurrent_width, batch_first=True)
        self.projection = nn.Linear(sizes.recurrent_width, sizes.width)

    def forward(
        self, x: Float[Tensor, "sequence event width"], lengths: Int[Tensor, " sequence"]
    ) -> Float[Tensor, "sequence longest width"]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.projection(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class PlainEncoder(nn.Module):
    """Histories to conditions: the branches, each with its own recurrence."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.encoder = PlainBranches(sizes)
        self.rnn_temporal = PlainRecurrence(sizes)
        self.rnn_spatial = PlainRecurrence(sizes)
        self.rnn = PlainRecurrence(sizes)
        self.marked = sizes.marks > 1
        if self.marked:
            self.rnn_mark = PlainRecurrence(sizes)

    def forward(
        self, batch: PlainBatch, visible: Bool[Tensor, "sequence event"] | None = None
    ) -> Float[Tensor, "sequence longest condition"]:
        """Return the condition after each event; rows of padded events mean nothing.

        Args:
            batch: padded sequences.
            visible: the events attention may look at; the real ones by default.
        """
        outputs = self.encoder(batch, batch.valid if visible is None else visible)
        lengths = batch.valid.sum(1)
        heads = [self.rnn_temporal, self.rnn_spatial, self.rnn, *([self.rnn_mark] if self.marked else [])]
        return torch.cat([head(output, lengths) for head, output in zip(heads, outputs, strict=True)], dim=-1)


class PlainScore(nn.Module):
    """The score network.

    Args:
        sizes: widths and number of marks.
        share_trunk: evaluate the temporal trunk once for the intensity and the location score, which the original
            evaluates one after the other.
    """

    def __init__(self, sizes: PlainSizes, *, share_trunk: bool = False) -> None:
        super().__init__()
        units, width = sizes.units, sizes.width
        self.share_trunk = share_trunk
        self.marks = sizes.marks
        self.marked = sizes.marks > 1
        self.linears_temporal = self._trunk(1, units)
        self.linears_spatial = self._trunk(2, units)
        self.cond_temporal = nn.ModuleList(nn.Linear(width, units) for _ in range(3))
        self.cond_spatial = nn.ModuleList(nn.Linear(width, units) for _ in range(3))
        self.cond_joint = nn.ModuleList(nn.Linear(width, units) for _ in range(3))
        self.cond_all = nn.Sequential(nn.Linear(sizes.condition_width, units), nn.ReLU(), nn.Linear(units, units))
        self.linear_t = self._gate(units)
        self.linear_s = self._gate(units)
        self.output_intensity = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.Linear(units, sizes.marks))
        self.output_score = nn.Sequential(nn.Linear(2 * units, units), nn.ReLU(), nn.Linear(units, 2))

    @staticmethod
    def _trunk(inputs: int, units: int) -> nn.ModuleList:
        widths = (inputs, units, units, units)
        layers: list[nn.Module] = []
        for before in widths:
            layers += [nn.Linear(before, units), nn.ReLU()]
        return nn.ModuleList(layers[:-1])

    @staticmethod
    def _gate(units: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(units, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 2)
        )

    def temporal_trunk(
        self, gap: Float[Tensor, "event sample 1"], condition: Float[Tensor, "event 1 condition"]
    ) -> Float[Tensor, "event sample units"]:
        parts = condition.chunk(4 if self.marked else 3, dim=-1)
        own = parts[0] + parts[3] if self.marked else parts[0]
        return self._run_trunk(gap, own, parts[2], self.linears_temporal, self.cond_temporal)

    def spatial_trunk(
        self, location: Float[Tensor, "event sample 2"], condition: Float[Tensor, "event 1 condition"]
    ) -> Float[Tensor, "event sample units"]:
        parts = condition.chunk(4 if self.marked else 3, dim=-1)
        return self._run_trunk(location, parts[1], parts[2], self.linears_spatial, self.cond_spatial)

    def _run_trunk(
        self, hidden: Tensor, own: Tensor, joint: Tensor, linears: nn.ModuleList, injections: nn.ModuleList
    ) -> Tensor:
        for index, (inject, inject_joint) in enumerate(zip(injections, self.cond_joint, strict=True)):
            hidden = torch.relu(linears[2 * index](hidden) + inject_joint(joint) + inject(own))
        return linears[6](hidden)

    def intensity(self, temporal: Float[Tensor, "event sample units"]) -> Float[Tensor, "event sample mark"]:
        return nn.functional.softplus(self.output_intensity(temporal))

    def gates(
        self, condition: Float[Tensor, "event 1 condition"]
    ) -> tuple[Float[Tensor, "event 1 2"], Float[Tensor, "event 1 2"]]:
        z = self.cond_all(condition)
        return torch.softmax(self.linear_t(z), dim=-1), torch.softmax(self.linear_s(z), dim=-1)

    def location_score(
        self,
        temporal: Float[Tensor, "event sample units"],
        location: Float[Tensor, "event sample 2"],
        condition: Float[Tensor, "event 1 condition"],
    ) -> Float[Tensor, "event sample 2"]:
        spatial = self.spatial_trunk(location, condition)
        mixed = [gate[..., :1] * temporal + gate[..., 1:] * spatial for gate in self.gates(condition)]
        return self.output_score(torch.cat(mixed, dim=-1))

    def forward(
        self,
        x: Float[Tensor, "event sample 3"],
        mark: Int[Tensor, "event sample"] | None,
        condition: Float[Tensor, "event 1 condition"],
    ) -> tuple[Float[Tensor, "event sample 3"], Float[Tensor, "event sample mark"]]:
        """Return score and intensity at points of the box [-1, 1], given 0-based marks.

        The gap score is differentiated by autograd, with a graph of its own when gradients are on.
        """
        train = torch.is_grad_enabled()
        gap, location = x[..., :1], x[..., 1:]
        with torch.enable_grad():
            moved = gap.detach().requires_grad_()
            temporal = self.temporal_trunk(moved, condition)
            intensity = self.intensity(temporal)
            given = intensity if mark is None else intensity.gather(-1, mark[..., None])
            slope = torch.autograd.grad((given + SMALLEST_PROBABILITY).log().sum(), moved, create_graph=train)[0]
        if not train:
            temporal, intensity = temporal.detach(), intensity.detach()
        gap_score = slope - intensity.sum(-1, keepdim=True)
        if not self.share_trunk:
            temporal = self.temporal_trunk(gap, condition)
        return torch.cat([gap_score, self.location_score(temporal, location, condition)], dim=-1), intensity


class PlainDecoder(nn.Module):
    """Holds the score network under the original's name."""

    def __init__(self, sizes: PlainSizes, *, share_trunk: bool) -> None:
        super().__init__()
        self.model = PlainScore(sizes, share_trunk=share_trunk)


class PlainSmash(nn.Module):
    """The whole model, named as the original's state."""

    def __init__(self, sizes: PlainSizes, *, share_trunk: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.transformer = PlainEncoder(sizes)
        self.decoder = PlainDecoder(sizes, share_trunk=share_trunk)

    @property
    def score(self) -> PlainScore:
        return self.decoder.model

    def load_original(self, state: dict[str, Tensor]) -> None:
        """Load the original's state; entries it never uses are passed over, a missing one is an error."""
        missing, _unused = self.load_state_dict(state, strict=False)
        if missing:
            raise KeyError(f"the state lacks {missing[0]} and {len(missing) - 1} more")


def flatten_targets(batch: PlainBatch, condition: Float[Tensor, "sequence longest condition"]) -> PlainTargets:
    """Pair each event but the first of its sequence with the condition after the event before it."""
    valid = batch.valid
    predicted = valid.clone()
    predicted[:, 0] = False
    followed = predicted.roll(-1, dims=1)
    scaled = torch.cat([batch.gap[..., None], batch.location], dim=-1)
    return PlainTargets(
        condition=condition[followed[:, : condition.shape[1]]][:, None],
        x=2.0 * scaled[predicted][:, None] - 1.0,
        mark=None if batch.mark is None else batch.mark[predicted] - 1,
    )


def denoising_terms(
    score: Float[Tensor, "event sample 3"], noise: Float[Tensor, "event sample 3"], sigma: Float[Tensor, "3"]
) -> Float[Tensor, "event sample 3"]:
    """Denoising score matching per coordinate, weighted by the noise variance (paper, eq. 9)."""
    return 0.5 * (sigma * score + noise) ** 2


def mark_terms(
    intensity: Float[Tensor, "event sample mark"], mark: Int[Tensor, " event"], *, smoothing: float
) -> Float[Tensor, "event sample"]:
    """Smoothed cross entropy of the mark; the label weights sum to 1 - smoothing / K, as in the original."""
    marks = intensity.shape[-1]
    probability = intensity / (intensity.sum(-1, keepdim=True) + SMALLEST_PROBABILITY)
    true = nn.functional.one_hot(mark, marks).bool()
    weight = torch.where(true, 1.0 - smoothing, smoothing / marks)[:, None]
    return -(weight * (probability + SMALLEST_PROBABILITY).log()).sum(-1)


def training_loss(
    model: PlainSmash,
    batch: PlainBatch,
    noise: Float[Tensor, "event sample 3"] | int,
    *,
    sigma: Float[Tensor, "3"],
    mark_weight: float = 0.5,
    location_weight: float = 1.0,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the training loss of one padded batch; `noise` is the draws or how many to draw per event."""
    targets = flatten_targets(batch, model.transformer(batch))
    if isinstance(noise, int):
        noise = torch.randn(targets.x.shape[0], noise, 3)
    given = None if targets.mark is None else targets.mark[:, None].expand(noise.shape[:2])
    score, intensity = model.score(targets.x + sigma * noise, given, targets.condition)
    terms = denoising_terms(score, noise, sigma)
    if targets.mark is None:
        return terms.mean()
    terms = terms * terms.new_tensor([1.0, location_weight, location_weight])
    return terms.mean() + mark_weight * mark_terms(intensity, targets.mark, smoothing=smoothing).mean()


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Where the chain takes its randomness from: normals of a shape, and marks of a distribution."""

    normal: Callable[[tuple[int, ...]], Tensor]
    mark: Callable[[Float[Tensor, "event sample mark"]], Int[Tensor, "event sample"]]

    @classmethod
    def seeded(cls, seed: int) -> Draws:
        generator = torch.Generator().manual_seed(seed)

        def draw_mark(weight: Float[Tensor, "event sample mark"]) -> Int[Tensor, "event sample"]:
            rows = rearrange(weight, "event sample mark -> (event sample) mark")
            flat = torch.multinomial(rows, 1, generator=generator)
            return rearrange(flat, "(event sample) 1 -> event sample", sample=weight.shape[1])

        return cls(normal=lambda shape: torch.randn(shape, generator=generator), mark=draw_mark)


@dataclass(frozen=True, kw_only=True)
class PlainChain:
    """The Langevin chain of the original, some samples of each event at a time (its `n_samples`).

    Args:
        sigma: noise levels of gap, longitude and latitude, normalised units.
        step: Langevin step.
        stages: number of steps of each stage; the law is that of one long chain.
        refine_steps: location-only steps after denoising, marked data only.
    """

    sigma: Float[Tensor, "3"]
    step: float
    stages: tuple[int, ...]
    refine_steps: int = 200

    @torch.no_grad()
    def sample(
        self, score: PlainScore, condition: Float[Tensor, "event 1 condition"], samples: int, draws: Draws
    ) -> tuple[Float[Tensor, "event sample 3"], Float[Tensor, "event sample mark"] | None]:
        """Draw next events of each condition: gap and location in [0, 1], and the mark distribution."""
        *_, last = self.run_stages(score, condition, samples, draws)
        return last

    @torch.no_grad()
    def run_stages(
        self, score: PlainScore, condition: Float[Tensor, "event 1 condition"], samples: int, draws: Draws
    ) -> Iterator[tuple[Float[Tensor, "event sample 3"], Float[Tensor, "event sample mark"] | None]]:
        """Yield each stage's samples in [0, 1] and its mark distribution; the last one's are denoised."""
        x = draws.normal((condition.shape[0], samples, 3)) * (0.5 if score.marked else 1.0)
        probability = x.new_ones(*x.shape[:2], score.marks) if score.marked else None
        for index, steps in enumerate(self.stages):
            mark = None if probability is None else draws.mark(probability + SMALLEST_PROBABILITY)
            for _ in range(steps):
                x, mark, probability = self._move(score, condition, x, mark, draws)
            if index == len(self.stages) - 1:
                x, probability = self._finish(score, condition, x, mark, draws)
            out = x / 2.0 + 0.5
            yield out, probability
            x = 2.0 * out - 1.0

    def _move(
        self, score: PlainScore, condition: Tensor, x: Tensor, mark: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        slope, intensity = score(x, mark, condition)
        noise = draws.normal(tuple(x.shape))
        x = (x + 0.5 * self.step * slope + math.sqrt(self.step) * noise).clamp(-1.0, 1.0)
        if mark is None:
            return x, None, None
        probability = _mark_distribution(intensity)
        return x, draws.mark(probability + SMALLEST_PROBABILITY), probability

    def _finish(
        self, score: PlainScore, condition: Tensor, x: Tensor, mark: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        x = x + self.sigma**2 * score(x, mark, condition)[0]
        if mark is None:
            return x, None
        gap, location = x[..., :1], x[..., 1:]
        probability = _mark_distribution(score.intensity(score.temporal_trunk(gap, condition)))
        draws.mark(
            probability + SMALLEST_PROBABILITY
        )  # the original draws it, and the location score has no use for it
        for _ in range(self.refine_steps):
            slope = score.location_score(score.temporal_trunk(gap, condition), location, condition)
            location = location + 0.5 * self.step * slope + math.sqrt(self.step) * draws.normal(tuple(location.shape))
        return torch.cat([gap, location], dim=-1).clamp(-1.0, 1.0), probability


def _mark_distribution(intensity: Float[Tensor, "event sample mark"]) -> Float[Tensor, "event sample mark"]:
    return intensity / (intensity.sum(-1, keepdim=True) + SMALLEST_PROBABILITY)


def pad_batch(sequences: list[Float[Tensor, "event column"]], *, marked: bool) -> PlainBatch:
    """Pad sequences of columns time, scaled gap, [1-based mark,] scaled longitude, latitude to their longest."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    columns = pad_sequence(sequences, batch_first=True)
    return PlainBatch(
        time=columns[..., 0],
        gap=columns[..., 1],
        mark=columns[..., 2].long() if marked else None,
        location=columns[..., -2:],
        valid=torch.arange(columns.shape[1]) < lengths[:, None],
    )


def random_batches(
    sequences: list[Float[Tensor, "event column"]], size: int, *, marked: bool, seed: int
) -> Iterator[PlainBatch]:
    """Yield the batches of one epoch: sequences in random order, `size` at a time, padded."""
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(seed)).tolist()
    for start in range(0, len(order), size):
        yield pad_batch([sequences[index] for index in order[start : start + size]], marked=marked)


def train_epoch(
    model: PlainSmash,
    batches: Iterator[PlainBatch],
    optimiser: torch.optim.Optimizer,
    *,
    sigma: Float[Tensor, "3"],
    perturbations: int,
) -> list[float]:
    """Take one optimiser step per batch, gradients clipped to norm 1; return the losses."""
    model.train()
    losses = []
    for batch in batches:
        optimiser.zero_grad()
        loss = training_loss(model, batch, perturbations, sigma=sigma)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses
