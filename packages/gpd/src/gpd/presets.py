"""The named runs: the seven cities of the original with the values of its README. Standard library only.

A run is named `<target city>/<node model>/<strategy>`, such as `metr-la/gwn/pre-inductive`: the other cities of the
same family are its sources. With the original's own names, `metr-la/v_GWN/Trans1`, it also does what the original does
where that is left behind here: strided tokens, attention over the batch, rows with numbers that no output depends on,
statistics of the whole time, and weights that are chosen on the test part. `pemes-bay`, as the original's README
writes, is understood. `few-days` and `few-days-hourly` are what did best on real cities here, `demo` what `gpd demo`
runs.

Source: github.com/tsinghua-fib-lab/GPD, `README.md`, `GPD/1Dmain.py`, `Pretrain/main.py`, `Pretrain/config.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from gpd.config import DataConfig, EvaluateConfig, RunConfig
from gpd.diffusion.configs import STRATEGIES, DenoiserConfig, DiffusionConfig, SamplingConfig, original_denoiser
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.prompts.configs import SpatialPromptConfig
from stcore.training.config import LoopConfig

DEFAULT_PRESET = "default"
FAMILIES = {"traffic": ("metr-la", "pems-bay", "shenzhen", "chengdu_m"), "crowd": ("DC", "BM", "man")}
"""Cities whose rows one diffusion model is trained on, in the order of the original's tables for traffic and crowds."""
CITIES: dict[str, str] = {city: family for family, cities in FAMILIES.items() for city in cities}
ORIGINAL_MODELS = {"stgcn": "v_STGCN5", "gwn": "v_GWN"}
README_STEPS, README_DAYS, README_EPOCHS, README_WIDTH = 80_000, 7, 600, 512
MISSPELT = {"pemes-bay": "pems-bay"}
"""Names of cities as the original's README has them."""

LOOP = LoopConfig(epochs=100_000, max_steps=README_STEPS, checkpoint_every=2000, log_every=100, ema_decay=0.995)


def sources_of(city: str) -> tuple[str, ...]:
    """Return the cities that rows for `city` are learnt from."""
    return tuple(other for other in FAMILIES[CITIES[city]] if other != city)


def _corrected(city: str, model: str, strategy: str) -> RunConfig:
    """Return the method at the sizes of the original's README."""
    denoiser = replace(
        original_denoiser(strategy, width=README_WIDTH), layout="layerwise", token_embeddings=True, final_norm=True,
        zero_gates=True, scale="head", legacy_batch_attention=False,
    )  # fmt: skip
    return RunConfig(
        data=DataConfig(source=sources_of(city), target=city, days=README_DAYS),
        model=_model(model),
        pretrain=NodeTrainingConfig(epochs=30),
        denoiser=denoiser,
        diffusion=DiffusionConfig(),
        fit=LOOP,
        finetune=NodeTrainingConfig(epochs=README_EPOCHS, select_on="tail"),
    )


def _original(city: str, model: str, strategy: str) -> RunConfig:
    """Return what the original does, its flaws included."""
    corrected = _corrected(city, model, strategy)
    crowd = CITIES[city] == "crowd"
    return replace(
        corrected,
        model=replace(corrected.model, row="legacy"),
        pretrain=replace(
            corrected.pretrain, split="legacy", select_on="test", statistics="full", start="own", drop_last=True
        ),
        # The prompts of the traffic cities are ones.
        spatial=SpatialPromptConfig() if crowd else SpatialPromptConfig(kind="none"),
        denoiser=replace(original_denoiser(strategy, width=README_WIDTH), spatial_on="graph" if crowd else "none"),
        diffusion=DiffusionConfig(scaling="raw", prompt_dropout=0.0, validation=0.0, beta_scale="legacy"),
        sampling=SamplingConfig(method="ancestral", clip="legacy"),
        finetune=replace(
            corrected.finetune, split="legacy", select_on="test", statistics="full", start="own", drop_last=True
        ),
    )


def _model(kind: str) -> NodeModelConfig:
    return NodeModelConfig(kind="gwn", norm="batch") if kind == "gwn" else NodeModelConfig(kind="stgcn")


FEW_DAYS = RunConfig(
    data=DataConfig(days=3),
    model=NodeModelConfig(
        kind="mlp", residual="average", linear=True, unevenness=True, calendar="week", channels=16, layers=1,
        dropout=0.0,
    ),
    pretrain=NodeTrainingConfig(
        epochs=20, learning_rate=2e-3, weight_decay=0.0, decay="cosine", loss="mae", split="chronological",
        evaluate_every=2, average_days=3, shared_epochs=10,
    ),
    denoiser=DenoiserConfig(width=128, blocks=3, heads=8, feedforward=512),
    diffusion=DiffusionConfig(learning_rate=1e-3, repeat=8, ema_after=50, ema_every=1),
    fit=LoopConfig(epochs=100_000, max_steps=600, checkpoint_every=200, log_every=50, ema_decay=0.99, evaluate_every=5,
                   clip_norm=1.0),
    sampling=SamplingConfig(steps=25, draws=32, guidance=0.5),
    finetune=NodeTrainingConfig(
        epochs=60, learning_rate=3e-4, weight_decay=0.0, loss="mae", split="chronological", select_on="tail",
        evaluate_every=2, patience=5, choose="together",
    ),
    evaluate=EvaluateConfig(scratch_rates=(5e-4, 2e-3, 8e-3)),
)  # fmt: skip
"""What did best on pieces of one network of which three days are known, fine-tuned by gradients; in closed form errors
are the same within a hundredth (`benchmarks/gpd/quality.py`). Minutes on a processor."""

FEW_DAYS_HOURLY = replace(
    FEW_DAYS,
    model=replace(FEW_DAYS.model, unevenness=False, calendar="none"),
    sampling=SamplingConfig(steps=25, draws=8),
    finetune=replace(
        FEW_DAYS.finetune, closed_form=True, batch=16, epochs=300, evaluate_every=5, patience=10, shared_epochs=300
    ),
)
"""The same for hourly readings of cities that are unlike: blind to the time, of which three days of 24 readings tell
nothing, and fitted in closed form. Epochs and batch are for training from scratch."""

DEMO = RunConfig(
    data=DataConfig(source=("simulated",), target="simulated", days=3),
    model=NodeModelConfig(kind="mlp", residual="average", channels=16, layers=1, dropout=0.0),
    pretrain=NodeTrainingConfig(
        epochs=10, learning_rate=3e-3, weight_decay=1e-4, decay="cosine", evaluate_every=2
    ),
    denoiser=DenoiserConfig(
        width=48, blocks=2, heads=4, head_dim=8, value_dim=8, feedforward=128, dropout=0.0
    ),
    diffusion=DiffusionConfig(steps=100, scaling="entry", batch=32, learning_rate=2e-3, validation=0.0),
    fit=LoopConfig(epochs=1000, max_steps=900, checkpoint_every=300, log_every=25, ema_decay=0.99),
    sampling=SamplingConfig(draws=8),
    finetune=NodeTrainingConfig(
        epochs=6, learning_rate=5e-4, weight_decay=1e-4, evaluate_every=1, select_on="tail"
    ),
    evaluate=EvaluateConfig(stride=3),
    seed=0,
)  # fmt: skip
"""Small enough for two minutes on two cores."""


class _Runs(Mapping[str, RunConfig]):
    """Runs by name, each built when it is asked for: there are many of them, and `--help` needs one."""

    def __init__(self, makers: Mapping[str, Callable[[], RunConfig]]) -> None:
        self.makers = dict(makers)

    def __getitem__(self, name: str) -> RunConfig:
        return self.makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def _all() -> _Runs:
    """Return the runs by name."""
    makers: dict[str, Callable[[], RunConfig]] = {DEFAULT_PRESET: RunConfig}
    for city in CITIES:
        for model, theirs in ORIGINAL_MODELS.items():
            for number, strategy in enumerate(STRATEGIES, start=1):
                makers[f"{city}/{model}/{strategy}"] = partial(_corrected, city, model, strategy)
                makers[f"{city}/{theirs}/Trans{number}"] = partial(_original, city, model, strategy)
    return _Runs(
        {**makers, "few-days": lambda: FEW_DAYS, "few-days-hourly": lambda: FEW_DAYS_HOURLY, "demo": lambda: DEMO}
    )


_RUNS = _all()
PRESETS: Mapping[str, RunConfig] = _RUNS
"""The runs by name, as `gpd config list` prints them."""
ALIASES: dict[str, str] = {
    name.replace(city, wrong, 1): name for name in PRESETS for wrong, city in MISSPELT.items()
    if name.startswith(f"{city}/")
}  # fmt: skip
"""Further spellings."""
KNOWN: Mapping[str, RunConfig] = _Runs(
    {**_RUNS.makers, **{other: _RUNS.makers[name] for other, name in ALIASES.items()}}
)
"""Runs by every name that is understood."""
