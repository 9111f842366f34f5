"""An encoder that learned to fill in hidden hours (He et al. 2022, on series; Shao et al. 2022): its state is a prompt.

A day of a node is 24 patches of an hour, each brought to the same number of values whatever the step of the city. The
encoder sees some of them, a small decoder guesses the others; both are trained on the days of all source nodes. For a
prompt the encoder sees whole days, and its outputs are averaged over hours and days; the target city takes no part in
the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor, nn

from gpd.prompts.cities import Cities, clock, observed
from gpd.prompts.configs import TemporalPromptConfig
from gpd.prompts.fitting import minimise, seeded
from gpd.prompts.profile import HOURS, moments, whole_days
from stcore.errors import UserError
from stcore.graphs import DAY_SECONDS, GraphSeries

PATCH = 12
"""Values in the patch of an hour: those of five-minute data."""
CHUNK = 1024
"""Days encoded at once."""


class MaskedAutoencoder(nn.Module):
    """Transformers over the hours of a day."""

    def __init__(self, config: TemporalPromptConfig) -> None:
        super().__init__()
        dim = config.dim
        self.embed = nn.Linear(PATCH, dim)
        self.hour = nn.Parameter(torch.randn(HOURS, dim) * 0.02)
        self.hidden = nn.Parameter(torch.randn(dim) * 0.02)
        self.encoder = _transformer(dim, config.heads, config.layers)
        self.decoder = _transformer(dim, config.heads, 1)
        self.guess = nn.Linear(dim, PATCH)

    def forward(self, days: Float[Tensor, "day 24 value"], seen: Int64[Tensor, "day hour"]) -> Tensor:
        """Guess all hours from those that are seen, numbers of hours for each day."""
        some = _pick(self.embed(days) + self.hour, seen)
        tokens = (self.hidden + self.hour).expand(len(days), -1, -1)
        whole = tokens.scatter(1, seen[..., None].expand(-1, -1, tokens.shape[-1]), self.encoder(some))
        return self.guess(self.decoder(whole + self.hour))

    def encode(self, days: Float[Tensor, "day 24 value"]) -> Float[Tensor, "day dim"]:
        """Return the mean state over the hours of whole days."""
        return self.encoder(self.embed(days) + self.hour).mean(1)


def masked_autoencoder_prompts(cities: Cities, config: TemporalPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Train on the source cities and return the states of all nodes."""
    days = [day_patches(city) for city in cities.series]
    sources = [torch.from_numpy(rearrange(values, "day hour value node -> (day node) hour value"))
               for values, _ in days[: cities.sources]]  # fmt: skip
    known = [torch.from_numpy(rearrange(seen, "day hour value node -> (day node) hour value"))
             for _, seen in days[: cities.sources]]  # fmt: skip
    with seeded(seed, "masked-autoencoder") as generator:
        model = MaskedAutoencoder(config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
        losses = _losses(model, torch.cat(sources), torch.cat(known), config, generator)
        minimise(optimiser, losses, "temporal prompts")
        with torch.no_grad():
            return np.concatenate([_states(model.eval(), values) for values, _ in days])


def day_patches(
    series: GraphSeries,
) -> tuple[Float32[ndarray, "day 24 value node"], Bool[ndarray, "day 24 value node"]]:
    """Return the calendar days of a city but short ones, scaled, and where there are values.

    Raises:
        UserError: the step is no part of an hour that fits, or is not known.
    """
    seconds, step = clock(series), series.step_seconds
    if seconds is None or step is None or 3600 % step or ((3600 // step) % PATCH and PATCH % (3600 // step)):
        raise UserError(f"{series.name or 'graph'}: step of {step} seconds; expected a part of an hour that fits "
                        f"{PATCH} values; use another temporal.kind than masked-autoencoder")  # fmt: skip
    values = observed(series)
    mean, deviation = moments(values)
    number, day = np.unique(seconds // DAY_SECONDS, return_inverse=True)
    steps = DAY_SECONDS // step
    whole = np.full((len(number), steps, series.num_nodes), np.nan)
    whole[day, seconds % DAY_SECONDS // step] = (values - mean) / deviation
    whole = whole[whole_days(day)]
    patches = _to_patches(rearrange(whole, "day (hour step) node -> day hour step node", hour=HOURS))
    return np.nan_to_num(patches).astype(np.float32), np.isfinite(patches)


def _to_patches(hours: Float64[ndarray, "day hour step node"]) -> Float64[ndarray, "day hour value node"]:
    """Repeat the values of an hour, or average neighbours, until there are `PATCH`."""
    steps = hours.shape[2]
    if steps <= PATCH:
        return np.repeat(hours, PATCH // steps, axis=2)
    parts = rearrange(hours, "day hour (value some) node -> day hour value some node", value=PATCH)
    known = np.isfinite(parts)
    count = known.sum(3)
    return np.where(count > 0, np.where(known, parts, 0.0).sum(3) / np.maximum(count, 1), np.nan)


def _losses(model: MaskedAutoencoder, days: Tensor, known: Tensor, config: TemporalPromptConfig,
            generator: torch.Generator) -> Iterator[Callable[[], Tensor]]:  # fmt: skip
    visible = max(1, round(HOURS * (1.0 - config.hidden_share)))
    for _ in range(config.steps):
        ids = torch.randint(len(days), (config.batch,), generator=generator)
        order = torch.rand(config.batch, HOURS, generator=generator).argsort(1)
        yield lambda ids=ids, seen=order[:, :visible]: _error(model, days[ids], known[ids], seen)


def _error(model: MaskedAutoencoder, days: Tensor, known: Tensor, seen: Tensor) -> Tensor:
    """Return the mean square over the values that were hidden and are known."""
    counts = known.scatter(1, seen[..., None].expand(-1, -1, PATCH), torch.zeros_like(known))
    square = (model(days, seen) - days).square()
    return (square * counts).sum() / counts.sum().clamp_min(1)


def _states(model: MaskedAutoencoder, values: Float32[ndarray, "day 24 value node"]) -> Float64[ndarray, "node dim"]:
    days = torch.from_numpy(rearrange(values, "day hour value node -> (node day) hour value"))
    states = torch.cat([model.encode(some) for some in days.split(CHUNK)])
    return rearrange(states, "(node day) dim -> node day dim", day=len(values)).mean(1).double().numpy()


def _pick(tokens: Float[Tensor, "day 24 dim"], place: Int64[Tensor, "day hour"]) -> Float[Tensor, "day hour dim"]:
    return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))


def _transformer(dim: int, heads: int, layers: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
