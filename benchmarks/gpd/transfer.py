"""Cities to learn from and to forecast for, and the ways of doing it that are compared.

Beijing's subway and the freeways of Los Angeles are each cut by their graph into cities; hourly series of unlike kinds
are cities to one another. The last city is the target, the first one stands in for it while choices are made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpd.config import DataConfig, EvaluateConfig, RunConfig
from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, SamplingConfig
from gpd.models.configs import NodeLoss, NodeModelConfig, NodeTrainingConfig
from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig
from stcore.graph_partition import partition
from stcore.graph_windows import split_graph
from stcore.graphs import GraphSeries
from stcore.readers.graph_files import read_graph
from stcore.readers.graph_options import GraphReadOptions
from stcore.training.config import LoopConfig

HOURLY = {"melbourne": "melbourne_pedestrian", "taxi": "nyc_taxi_od", "montevideo": "montevideo_bus",
          "wind": "us_wind_57"}  # fmt: skip
BUSIEST = 60
"""Nodes of Montevideo that are looked at: most stops have no passenger in most hours."""
QUICK_PARTS = 12


@dataclass(frozen=True)
class Subject:
    """Cities, the target last."""

    cities: Callable[[bool], list[GraphSeries]]
    """Reads them; small ones where that is asked for."""
    days: tuple[int, ...]
    """Known days of the target; the first is the headline."""
    seeds: int = 1
    """Seeds of the headline."""


def pieces(name: str, parts: int) -> Callable[[bool], list[GraphSeries]]:
    """Return a function that reads a data set and cuts it into cities by its graph."""

    def read(quick: bool) -> list[GraphSeries]:
        whole = read_graph(GraphReadOptions(source=(name,)))
        found = partition(whole.adjacency, QUICK_PARTS if quick else parts, seed=0)
        found = [*found[: parts - 1], found[-1]]
        return [whole.take_nodes(nodes, name=f"{name}-{number + 1}") for number, nodes in enumerate(found)]

    return read


def hourly(target: str) -> Callable[[bool], list[GraphSeries]]:
    """Return a function that reads the hourly cities, `target` last."""

    def read(quick: bool) -> list[GraphSeries]:
        cities = [_hourly(name, 8 if quick else BUSIEST) for name in (*[n for n in HOURLY if n != target], target)]
        return [city.slice(-900, None) for city in cities] if quick else cities

    return read


def _hourly(name: str, most: int) -> GraphSeries:
    city = read_graph(GraphReadOptions(source=(HOURLY[name],)))
    city = replace(city.take_channels(city.channels[:1]).slice(-6000, None), name=name)
    if city.num_nodes <= most:
        return city
    volume = np.nan_to_num(split_graph(city, "chronological").train.values[:, :, 0]).sum(0)
    return city.take_nodes(np.sort(np.argsort(-volume, kind="stable")[:most]))


SUBJECTS: dict[str, Subject] = {
    "subway": Subject(pieces("beijing_subway", 4), (3, 1, 7), seeds=3),
    "metr": Subject(pieces("metr_la_week", 4), (3, 1)),
    **{name: Subject(hourly(name), (3, 1, 7)) for name in HOURLY},
}

BASE = RunConfig(
    data=DataConfig(days=3),
    model=NodeModelConfig(kind="stgcn", channels=16),
    pretrain=NodeTrainingConfig(
        epochs=20, learning_rate=2e-3, weight_decay=0.0, decay="cosine", split="chronological", evaluate_every=2
    ),
    denoiser=DenoiserConfig(width=128, blocks=3, heads=8, feedforward=512),
    diffusion=DiffusionConfig(learning_rate=1e-3, repeat=8, ema_after=50, ema_every=1),
    fit=LoopConfig(epochs=100_000, max_steps=600, checkpoint_every=200, log_every=50, ema_decay=0.99,
                   evaluate_every=5, clip_norm=1.0),
    sampling=SamplingConfig(steps=25),
    finetune=NodeTrainingConfig(
        epochs=60, learning_rate=1e-3, weight_decay=0.0, split="chronological", select_on="tail", evaluate_every=2,
        patience=5,
    ),
    evaluate=EvaluateConfig(scratch_rates=(5e-4, 2e-3, 8e-3)),
)  # fmt: skip
"""The method with node models as published, the rest as this package has it by default, at sizes for a processor."""


@dataclass(frozen=True)
class Variant:
    """A way of doing it."""

    config: RunConfig
    words: str
    nodes_of: str = ""
    """Variant with the same node models, which need no training again."""
    later_of: str = ""
    """Variant with the same diffusion model too; only what comes after it differs."""


def _models(words: str, finetune: dict[str, object] | None = None, **model: object) -> Variant:
    changed = replace(BASE, model=replace(BASE.model, **model))  # pyright: ignore[reportArgumentType]
    return Variant(replace(changed, finetune=replace(changed.finetune, **(finetune or {}))), words)  # pyright: ignore[reportArgumentType]


def _prompted(base: Variant, words: str, nodes_of: str, **parts: object) -> Variant:
    return Variant(replace(base.config, **parts), words, nodes_of)  # pyright: ignore[reportArgumentType]


def _later(base: Variant, words: str, later_of: str, **parts: object) -> Variant:
    """Return the variant with other generation or fine-tuning."""
    return Variant(replace(base.config, **parts), words, later_of=later_of)  # pyright: ignore[reportArgumentType]


def _trained(base: Variant, words: str, **training: object) -> Variant:
    """Return the variant with another training, of the sources and of the target."""
    config = base.config
    parts = {name: replace(getattr(config, name), **training) for name in ("pretrain", "finetune")}
    return Variant(replace(config, **parts), words)  # pyright: ignore[reportArgumentType]


_DEVIATION = _models("deviation from the average, time of day", residual="average", calendar="day")
_UNCERTAIN = Variant(
    replace(_DEVIATION.config, pretrain=replace(_DEVIATION.config.pretrain, average_days=3)),
    "deviation from the average of three days in the sources too, time of day",
)
_LINEAR = Variant(
    replace(_UNCERTAIN.config, model=replace(_UNCERTAIN.config.model, linear=True)),
    "deviation from three days, time of day, beside a linear map",
)
_UNEVEN = Variant(
    replace(
        _LINEAR.config,
        model=replace(_LINEAR.config.model, unevenness=True),
        sampling=replace(_LINEAR.config.sampling, draws=8),
        finetune=replace(_LINEAR.config.finetune, learning_rate=3e-4, choose="together"),
    ),
    "linear, told how uneven averages are; mean of eight draws, tuned as long as all together gain",
)


def _uneven(words: str, *, absolute: bool = False, shared: int = 0, **model: object) -> Variant:
    loss: NodeLoss = "mae" if absolute else "mse"
    config = replace(_UNEVEN.config, model=replace(_UNEVEN.config.model, **model))  # pyright: ignore[reportArgumentType]
    return Variant(
        replace(
            config,
            pretrain=replace(config.pretrain, loss=loss, shared_epochs=shared),
            finetune=replace(config.finetune, loss=loss),
        ),
        words,
    )


_SMALL: dict[str, Any] = {"kind": "mlp", "channels": 16, "layers": 1, "dropout": 0.0}
"""A perceptron that learns what the linear map leaves."""
_ABSOLUTE = _trained(_DEVIATION, "deviation, time of day, absolute errors", loss="mae")

_SHARED = _uneven(
    "uneven-small-absolute, the nodes of a source as one for half of the epochs", absolute=True, shared=10,
    calendar="week", **_SMALL,
)  # fmt: skip

_CHANGE = _uneven(
    "shared-small, but change from the last value, and time of day", absolute=True, shared=10, calendar="day",
    residual="persistence", unevenness=False, **_SMALL,
)  # fmt: skip
_TIMELESS = _uneven(
    "shared-small, blind to the time", absolute=True, shared=10, calendar="none", unevenness=False, **_SMALL
)


def _tried(config: RunConfig) -> NodeTrainingConfig:
    """Return fine-tuning at several rates, the best at the end of the few days being kept; of rivals too."""
    return replace(config.finetune, rates=(3e-4, 1e-3, 3e-3, 1e-2))


def _long(config: RunConfig) -> NodeTrainingConfig:
    """Return fine-tuning for hourly data, of which three days are a single batch."""
    return replace(_tried(config), batch=16, epochs=300, evaluate_every=5, patience=10)


def _closed(config: RunConfig) -> NodeTrainingConfig:
    """Return fine-tuning in closed form; training from scratch, at its rates, stays a rival beside that."""
    return replace(config.finetune, rates=(), closed_form=True)


_TIMELESS_LONG = Variant(
    replace(_TIMELESS.config, finetune=_long(_TIMELESS.config)), "shared-small-long, but blind to the time"
)

VARIANTS: dict[str, Variant] = {
    "plain": _models("forecast as it is"),
    "change": _models("change from the last value", residual="persistence"),
    "deviation": _models("deviation from the average", residual="average"),
    "deviation-day": _DEVIATION,
    "change-day": _models("change from the last value, time of day", residual="persistence", calendar="day"),
    "uncertain": _UNCERTAIN,
    "uncertain-slow": _later(
        _UNCERTAIN, "uncertain, tuned at a third of the rate", "uncertain",
        finetune=replace(_UNCERTAIN.config.finetune, learning_rate=3e-4),
    ),
    "linear": _LINEAR,
    "linear-slow": _later(
        _LINEAR, "linear, tuned at a tenth of the rate", "linear",
        finetune=replace(_LINEAR.config.finetune, learning_rate=1e-4),
    ),
    "uneven": _UNEVEN,
    "uneven-week": _uneven("uneven, time of week", calendar="week"),
    "uneven-small": _uneven("uneven, perceptron without graph", **_SMALL),
    "uneven-small-week": _uneven("uneven-small, time of week", calendar="week", **_SMALL),
    "uneven-small-absolute": _uneven("uneven-small-week, absolute errors", absolute=True, calendar="week", **_SMALL),
    "shared-small": _SHARED,
    "shared-small-guided": _later(
        _SHARED, "shared-small, guidance 2", "shared-small", sampling=replace(_SHARED.config.sampling, guidance=2.0)
    ),
    "shared-small-calm": _later(
        _SHARED, "shared-small, mean of 32 draws with guidance 0.5", "shared-small",
        sampling=replace(_SHARED.config.sampling, guidance=0.5, draws=32),
    ),
    "shared-change": _CHANGE,
    "shared-small-rates": _later(
        _SHARED, "shared-small, tuned at the best of four rates", "shared-small", finetune=_tried(_SHARED.config)
    ),
    "shared-change-rates": _later(
        _CHANGE, "shared-change, tuned at the best of four rates", "shared-change", finetune=_tried(_CHANGE.config)
    ),
    "shared-small-long": _later(
        _SHARED, "shared-small, tuned longer at the best of four rates", "shared-small", finetune=_long(_SHARED.config)
    ),
    "shared-change-long": _later(
        _CHANGE, "shared-change, tuned longer at the best of four rates", "shared-change",
        finetune=_long(_CHANGE.config),
    ),
    "shared-timeless-long": _TIMELESS_LONG,
    "shared-timeless-city": _later(
        _TIMELESS_LONG, "shared-timeless-long, all rows of the city moved alike by its days", "shared-timeless-long",
        finetune=replace(_TIMELESS_LONG.config.finetune, shared_epochs=300),
    ),
    "shared-timeless-calm": _later(
        _TIMELESS_LONG, "shared-timeless-long, mean of 32 draws with guidance 0.5", "shared-timeless-long",
        sampling=replace(_TIMELESS_LONG.config.sampling, guidance=0.5, draws=32),
    ),
    "shared-timeless-squared": _later(
        _TIMELESS_LONG, "shared-timeless-city, tuned by squared errors", "shared-timeless-long",
        finetune=replace(_TIMELESS_LONG.config.finetune, shared_epochs=300, loss="mse"),
    ),
    "shared-small-map": _later(
        _SHARED, "shared-small-calm, tuned in closed form", "shared-small",
        sampling=replace(_SHARED.config.sampling, guidance=0.5, draws=32), finetune=_closed(_SHARED.config),
    ),
    "shared-small-either": _later(
        _SHARED, "shared-small-map or -calm, whichever is better at the end of the days", "shared-small",
        sampling=replace(_SHARED.config.sampling, guidance=0.5, draws=32),
        finetune=replace(_closed(_SHARED.config), rates=(_SHARED.config.finetune.learning_rate,)),
    ),
    "shared-timeless-either": _later(
        _TIMELESS_LONG, "shared-timeless-map or -city, whichever is better at the end of the days",
        "shared-timeless-long",
        finetune=replace(_TIMELESS_LONG.config.finetune, shared_epochs=300, closed_form=True),
    ),
    "shared-change-map": _later(
        _CHANGE, "shared-change, tuned in closed form", "shared-change", finetune=_closed(_CHANGE.config)
    ),
    "shared-timeless-map": _later(
        _TIMELESS_LONG, "shared-timeless-city, tuned in closed form", "shared-timeless-long",
        finetune=replace(_closed(_TIMELESS_LONG.config), shared_epochs=300),
    ),
    "shared-small-city": _later(
        _SHARED, "shared-small-rates, all rows of the city moved alike by its days", "shared-small",
        finetune=replace(_tried(_SHARED.config), shared_epochs=60),
    ),
    "absolute": _ABSOLUTE,
    "absolute-slow": _later(
        _ABSOLUTE, "deviation, time of day, absolute errors, tuned at a third of the rate", "absolute",
        finetune=replace(_ABSOLUTE.config.finetune, learning_rate=3e-4),
    ),
    "perceptron": _models(
        "perceptron without graph, deviation, time of day", kind="mlp", residual="average", calendar="day", channels=32
    ),
    "slow": _later(
        _DEVIATION, "deviation, time of day, tuned at a third of the rate", "deviation-day",
        finetune=replace(_DEVIATION.config.finetune, learning_rate=3e-4),
    ),
    "guided": _later(
        _DEVIATION, "deviation, time of day, guidance 2", "deviation-day",
        sampling=replace(_DEVIATION.config.sampling, guidance=2.0),
    ),
    "mean-of-four": _later(
        _DEVIATION, "deviation, time of day, mean of four draws", "deviation-day",
        sampling=replace(_DEVIATION.config.sampling, draws=4),
    ),
    "no-prompts": _prompted(
        _DEVIATION, "deviation, time of day, the same prompts for all", "deviation-day",
        spatial=SpatialPromptConfig(kind="none"), temporal=TemporalPromptConfig(kind="none"),
    ),
}  # fmt: skip
"""What is tried, by name."""
CONTROLS = ("no-prompts",)
"""Variants that are there to be compared with, not to be chosen."""


def quickened(config: RunConfig) -> RunConfig:
    """Return a configuration that only shows that everything works."""
    return replace(
        config,
        data=replace(config.data, nodes=6),
        model=replace(config.model, channels=8),
        pretrain=replace(config.pretrain, epochs=1),
        denoiser=replace(config.denoiser, width=16, blocks=1, heads=2, feedforward=16),
        diffusion=replace(config.diffusion, repeat=1),
        fit=replace(config.fit, max_steps=2),
        sampling=replace(config.sampling, steps=2),
        finetune=replace(config.finetune, epochs=1, evaluate_every=1),
        evaluate=replace(config.evaluate, stride=8),
    )


__all__ = ["BASE", "CONTROLS", "SUBJECTS", "VARIANTS", "Subject", "Variant", "quickened"]
