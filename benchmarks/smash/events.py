"""The Earthquake events and a pair of models, ours and the plain one, with the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.smash.plain import PlainSizes, PlainSmash
from jaxtyping import Float
from torch import Tensor

from smash.config import PRESETS, ModelConfig, TrainConfig
from smash.convert import Converted, convert_state, restore_state
from smash.data import EncodedEvents, Features
from smash.model import Smash
from stcore.events import EventSequences
from stcore.readers import read_event_parts
from stcore.splits import Parts

PRESET = "earthquake"


@dataclass(frozen=True)
class Scene:
    """What a comparison needs: configuration, events, and both models with equal weights."""

    config: TrainConfig
    parts: Parts[EventSequences]
    features: Features
    ours: Smash
    plain: PlainSmash
    weights: str
    """Where the weights come from, in words."""

    @property
    def sigma(self) -> Float[Tensor, "3"]:
        """Noise levels of gap, longitude and latitude."""
        noise = self.config.noise
        return torch.tensor([noise.sigma_time, noise.sigma_location, noise.sigma_location])

    def columns(self, encoded: EncodedEvents) -> list[Float[Tensor, "event 5"]]:
        """Return sequences as the plain side takes them: time, gap, 1-based mark, longitude, latitude."""
        mark = torch.zeros(len(encoded.time), dtype=torch.int64) if encoded.mark is None else encoded.mark
        flat = torch.cat([torch.stack([encoded.time, encoded.gap, mark + 1.0], dim=1), encoded.location], dim=1)
        return list(flat.split(encoded.lengths.tolist()))


def make_scene(run: str = "", *, strength: float = 1.8) -> Scene:
    """Read the Earthquake set and make both models.

    Args:
        run: a trained run whose weights both take; by default seeded random ones.
        strength: factor on the score network's weight matrices of random weights, so that laws vary visibly (the
            recordings of the original have 1.8).
    """
    config = PRESETS[PRESET]
    parts = read_event_parts(config.data)
    features = Features.fit(parts.train, log_gap=config.data.log_gap)
    if run:
        from smash.predict import Forecaster

        forecaster = Forecaster.load(Path(run), device="cpu")
        config, features, ours = forecaster.config, forecaster.features, forecaster.model
        plain = PlainSmash(_sizes(config.model, features.num_marks))
        plain.load_original(restore_state(Converted(config.model, features.num_marks, ours.state_dict(), ())))
        return Scene(config, parts, features, ours, plain, "trained")
    torch.manual_seed(config.seed)
    plain = PlainSmash(_sizes(config.model, features.num_marks)).strengthen(strength)
    ours = Smash(config.model, num_marks=features.num_marks)
    ours.load_state_dict(convert_state(plain.state_dict(), heads=config.model.heads).state)
    return Scene(config, parts, features, ours, plain, f"seeded random, times {strength:g}")


def _sizes(config: ModelConfig, num_marks: int) -> PlainSizes:
    return PlainSizes(
        marks=num_marks,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        key_width=config.key_width,
        value_width=config.value_width,
        feed_forward_width=config.feed_forward_width or 2 * config.width,
        recurrent_width=config.recurrent_width or 4 * config.width,
        units=config.units,
    )


@torch.no_grad()
def held_out_conditions(scene: Scene, count: int) -> Float[Tensor, "event condition"]:
    """Return the conditions of `count` events of the test part, chosen at random."""
    encoded = scene.features.encode(scene.parts.test)
    model = scene.ours.eval()
    chosen = np.random.default_rng(0).choice(len(encoded.lengths), size=min(count, len(encoded.lengths)), replace=False)
    batch = encoded.batch(chosen)
    targets = model.targets(batch)
    picked = torch.from_numpy(np.random.default_rng(1).choice(len(targets.condition), size=count, replace=False))
    return targets.condition[picked]
