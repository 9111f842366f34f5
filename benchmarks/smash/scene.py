"""The Earthquake events and a pair of models, ours and the plain one, with the same weights."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.smash.plain import PlainSizes, PlainSmash
from jaxtyping import Float
from torch import Tensor, nn

from smash.config import PRESETS, ModelConfig, TrainConfig
from smash.convert import Converted, convert_state, restore_state
from smash.data import EncodedEvents, Features, TrainingBatches
from smash.model import Smash
from smash.train import Step, make_optimiser
from stcore.events import EventSequences
from stcore.readers import read_event_parts
from stcore.splits import Parts
from stcore.training.loop import StepContext

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


def make_scene(run: str = "") -> Scene:
    """Read the Earthquake set and make both models.

    Args:
        run: a trained run whose weights both take; by default seeded random ones.
    """
    config = PRESETS[PRESET]
    parts = read_event_parts(config.data)
    features = Features.fit(parts.train, log_gap=config.data.log_gap)
    if run:
        from smash.predict import Forecaster

        forecaster = Forecaster.load(Path(run), device="cpu")
        config, features, ours = forecaster.config, forecaster.features, forecaster.model
        plain = PlainSmash(_sizes(config.model, features.num_marks))
        plain.load_original(_original_state(config.model, features.num_marks, ours))
        return Scene(config, parts, features, ours, plain, "trained")
    torch.manual_seed(config.seed)
    plain = PlainSmash(_sizes(config.model, features.num_marks))
    ours = Smash(config.model, num_marks=features.num_marks)
    ours.load_state_dict(convert_state(plain.state_dict(), heads=config.model.heads).state)
    return Scene(config, parts, features, ours, plain, "seeded random")


def trained_scene(*, epochs: int, perturbations: int = 5) -> Scene:
    """Make both models with weights that were trained for some epochs, few perturbations for speed."""
    scene = make_scene()
    config = replace(scene.config, loss=replace(scene.config.loss, perturbations=perturbations))
    batches = TrainingBatches(scene.features.encode(scene.parts.train), scene.parts.train.sequence_id, config)
    optimiser = make_optimiser(scene.ours, config.optimiser)
    for epoch in range(epochs):
        train_our_epoch(replace(scene, config=config), batches, optimiser, epoch=epoch)
    scene.plain.load_original(_original_state(scene.config.model, scene.features.num_marks, scene.ours))
    return replace(scene, weights=f"trained for {epochs} epochs, P = {perturbations}")


def train_our_epoch(scene: Scene, batches: TrainingBatches, optimiser: torch.optim.Optimizer, *, epoch: int) -> float:
    """Take the steps that the training loop takes in one epoch, and return their mean loss."""
    model, step = scene.ours.train(), Step(scene.config)
    losses = []
    for number, ids in enumerate(batches.order(epoch)):
        optimiser.zero_grad()
        loss = step(model, batches.load(epoch, ids), StepContext(number, epoch, ids, torch.device("cpu")))
        loss.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.total.item())
    return statistics.fmean(losses)


def _original_state(config: ModelConfig, num_marks: int, ours: Smash) -> dict[str, Tensor]:
    return restore_state(Converted(config, num_marks, ours.state_dict(), ()))


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
