"""The named runs, made of the tables of the original's and OpenSTL's configuration files. Standard library only.

A run is named by the path of its original file without `configs/` and `.py`, and has a short name beside it:
`weather/t2m_5_625/SimVPVQ_gSTA_learnable` is also `t2m/svq-gsta`. Where the original writes `frozen` in one file and
`freeze` in the next, both are understood. The runs of SimVP and TAU of OpenSTL's video benchmarks are named
`<data set>/<model>`.

Batches are those of all processes together: the original's files hold the size for one GPU of 1, 2 or 4.

Source: github.com/Pachark/SVQ-Forecasting, `configs/`; github.com/chengtan9907/OpenSTL, `configs/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from stcore.training.config import AdamConfig, LoopConfig
from svq.config import DataConfig, LossConfig, ScheduleConfig, TrainConfig
from svq.models.configs import Kind, QuantizerConfig, SimVPConfig, translator_named

SVQ = QuantizerConfig()
KAIMING = QuantizerConfig(init="kaiming")
NONE = QuantizerConfig(kind="none")
DEFAULT_PRESET = "t2m/svq-gsta"


@dataclass(frozen=True, kw_only=True)
class _Set:
    """What the runs on one data set have in common."""

    folder: str
    """Folder of the original's files."""
    data: DataConfig
    spatial: int = 32
    temporal: int = 256
    depth_spatial: int = 2
    depth_temporal: int = 8
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    epochs: int = 50
    patience: int = 10


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line of the table: what a file says that differs from its neighbours."""

    set: str
    file: str
    short: str
    translator: str
    rate: float
    drop_path: float = 0.1
    warmup: int = 5
    loss: Literal["mae", "mse"] = "mae"
    quantizer: QuantizerConfig = KAIMING
    epochs: int = 0
    """0: those of the set."""
    patience: int = 0
    temporal: int = 0
    batch: int = 16


def _weather(variable: str, history: int = 12, horizon: int = 12) -> DataConfig:
    return DataConfig(source=("weather",), format="weatherbench", variable=(variable,), history=history,
                      horizon=horizon, drop_last=True)  # fmt: skip


def _video(name: str, history: int, horizon: int, **more: Any) -> DataConfig:
    return DataConfig(source=(name,), history=history, horizon=horizon, scaling="auto", drop_last=True, **more)


_SETS = {
    "t2m": _Set(folder="weather/t2m_5_625", data=_weather("t2m")),
    "r": _Set(folder="weather/r_5_625", data=_weather("r")),
    "uv10": _Set(folder="weather/uv10_5_625", data=_weather("uv10")),
    "tcc": _Set(folder="weather/tcc_5_625", data=_weather("tcc")),
    "mv": _Set(folder="weather/mv_4_s6_5_625", data=_weather("mv", 4, 4)),
    "hmv": _Set(folder="weather/hmv_4_s6_5_625", data=_weather("hmv", 4, 4)),
    "taxibj": _Set(folder="taxibj/simvp", data=_video("taxibj", 4, 4)),
    "kth": _Set(folder="kth/simvp", data=_video("kth", 10, 20, windows="kth"), spatial=64, depth_temporal=6,
                schedule="one-cycle", epochs=100, patience=50),
    "kitticaltech": _Set(folder="kitticaltech/simvp", data=_video("kitticaltech", 10, 1), spatial=64,
                         depth_temporal=6, schedule="one-cycle", epochs=100, patience=50),
    "human": _Set(folder="human/simvp", data=_video("human", 4, 4), spatial=64, temporal=512, depth_spatial=4,
                  depth_temporal=6, patience=50),
}  # fmt: skip

_PAIRS = (
    # set, translator, rate, drop path, warm-up, loss, quantiser, spelling of the frozen one
    ("t2m", "gSTA", 5e-3, 0.1, 5, "mae", SVQ, "frozen"),
    ("r", "Swin", 1e-3, 0.2, 5, "mae", KAIMING, "freeze"),
    ("uv10", "Swin", 1e-3, 0.2, 5, "mae", KAIMING, "freeze"),
    ("tcc", "gSTA", 1e-2, 0.1, 5, "mse", KAIMING, "freeze"),
    ("hmv", "gSTA", 2.5e-3, 0.1, 5, "mae", SVQ, "frozen"),
    ("kth", "IncepU", 5e-4, 0.1, 0, "mae", replace(KAIMING, codebook_size=6000), "frozen"),
    ("kitticaltech", "gSTA", 1.25e-3, 0.2, 0, "mae", replace(KAIMING, codebook_size=6000), "freeze"),
    ("human", "gSTA", 2.5e-4, 0.1, 0, "mae", KAIMING, "frozen"),
    ("taxibj", "gSTA", 5e-4, 0.1, 5, "mae", KAIMING, "frozen"),
    ("taxibj", "ConvNeXt", 1e-3, 0.1, 5, "mae", KAIMING, "frozen"),
)
"""Runs with a learnable and with a frozen codebook."""
_NAMES = ("ConvMixer", "ConvNeXt", "HorNet", "IncepU", "MLPMixer", "MogaNet", "Poolformer", "Swin", "Uniformer", "VAN",
          "ViT")  # fmt: skip
_PLUG_IN = dict(zip(_NAMES, (1e-2, 1e-2, 1e-3, 1e-2, 1e-3, 5e-3, 5e-4, 1e-3, 5e-3, 5e-3, 1e-3), strict=True))
"""Learning rates of the study with every translator."""
_PLAIN = {
    # rates in the order of _NAMES, then gSTA; translators with a drop path of 0.2
    "r": ((5e-3, 1e-2, 1e-3, 1e-3, 1e-2, 1e-2, 5e-3, 1e-3, 5e-3, 5e-3, 1e-3, 5e-3),
          ("ConvMixer", "ConvNeXt", "HorNet", "MogaNet", "Poolformer", "Swin", "Uniformer", "VAN")),
    "uv10": ((1e-2, 5e-3, 1e-3, 5e-3, 5e-4, 1e-3, 1e-3, 1e-3, 5e-3, 5e-3, 5e-4, 5e-3),
             ("ConvNeXt", "HorNet", "MLPMixer", "MogaNet", "Poolformer", "Swin", "Uniformer", "VAN", "ViT", "gSTA")),
    "tcc": ((5e-3, 1e-2, 5e-3, 1e-2, 5e-3, 1e-2, 5e-4, 1e-3, 5e-3, 1e-2, 5e-4, 1e-2),
            ("ConvNeXt", "HorNet", "MLPMixer", "Poolformer", "VAN", "gSTA")),
    "taxibj": ((1e-3, 1e-3, 1e-3, 1e-3, 1e-2, 1e-3, 5e-4, 5e-4, 5e-4, 1e-3, 5e-4, 5e-4), ()),
    "mv": ((5e-3, 5e-3, 5e-3, 5e-3, 5e-3, 5e-3, 1e-3, 5e-3, 1e-3, 5e-3, 1e-3, 1e-3), ()),
}  # fmt: skip
"""Plain SimVP, without quantiser."""
_QUANTIZERS: dict[str, tuple[str, Kind, dict[str, Any]]] = {
    "VQ": ("vq", "vq", {"codebook_size": 1024}),
    "ResidualVQ": ("residual-vq", "residual-vq", {"codebook_size": 1024}),
    "ResidualVQ-Stochastic": ("residual-vq-stochastic", "residual-vq-stochastic", {"codebook_size": 1024}),
    "GroupedResidualVQ": ("grouped-residual-vq", "grouped-residual-vq", {"codebook_size": 1024}),
    "MultiHeadVQ": ("multi-head-vq", "multi-head-vq", {"codebook_size": 1024}),
    "LFQ": ("lfq", "lfq", {"codebook_size": 8192}),
    "ResidualLFQ": ("residual-lfq", "residual-lfq", {"codebook_size": 256}),
    "ResidualFSQ": ("residual-fsq", "residual-fsq", {}),
}
"""Short name, kind and sizes of the quantisers to compare with."""
_NOISES = (0.1, 0.2, 0.3, 0.4, 0.5)


def _rows() -> Iterator[_Row]:
    for name, translator, rate, drop_path, warmup, loss, quantizer, frozen in _PAIRS:
        same: dict[str, Any] = {"set": name, "translator": translator, "rate": rate, "drop_path": drop_path,
                                "warmup": warmup, "loss": loss}  # fmt: skip
        short = f"svq-{translator.lower()}"
        yield _Row(file=f"SimVPVQ_{translator}_learnable", short=short, quantizer=quantizer, **same)
        yield _Row(file=f"SimVPVQ_{translator}_{frozen}", short=f"{short}-frozen",
                   quantizer=replace(quantizer, freeze_codebook=True), **same)  # fmt: skip
    yield from _several_variables()
    yield from _plug_ins()
    yield from _ablations()
    for name, (rates, dropping) in _PLAIN.items():
        for translator, rate in zip((*_NAMES, "gSTA"), rates, strict=True):
            yield _Row(set=name, file=f"SimVP_{translator}", short=f"plain-{translator.lower()}", translator=translator,
                       rate=rate, drop_path=0.2 if translator in dropping else 0.1, loss="mse", quantizer=NONE,
                       epochs=50 if name == "taxibj" else 200, warmup=5 if name in ("taxibj", "mv") else 0,
                       temporal=512 if (name, translator) == ("mv", "gSTA") else 0)  # fmt: skip


def _several_variables() -> Iterator[_Row]:
    same: dict[str, Any] = {"set": "mv", "translator": "MogaNet", "rate": 5e-3, "epochs": 200}
    yield _Row(file="SimVPVQ_MogaNet_learnable", short="svq-moganet", **same)
    # The file is called frozen, but what it does is to learn the codebook and to stand behind the translator.
    yield _Row(file="SimVPVQ_MogaNet_frozen", short="svq-moganet-frozen", quantizer=replace(KAIMING, post=True), **same)
    yield _Row(set="hmv", file="SimVP_gSTA", short="plain-gsta", translator="gSTA", rate=2.5e-3, loss="mse",
               quantizer=NONE)  # fmt: skip


def _plug_ins() -> Iterator[_Row]:
    folder = "ablation_modeltype"
    yield _Row(set="t2m", file="SimVP_gSTA", short="plain-gsta", translator="gSTA", rate=5e-3, warmup=0, loss="mse",
               quantizer=NONE, epochs=200)  # fmt: skip
    for translator, rate in _PLUG_IN.items():
        drop_path = 0.2 if translator == "MogaNet" else 0.1
        same: dict[str, Any] = {
            "set": "t2m",
            "translator": translator,
            "rate": rate,
            "drop_path": drop_path,
            "warmup": 0,
        }
        low = translator.lower()
        yield _Row(file=f"{folder}/SimVPVQ_{translator}", short=f"svq-{low}", **same)
        yield _Row(file=f"{folder}/SimVP_{translator}", short=f"plain-{low}", loss="mse", quantizer=NONE, epochs=200,
                   **same)  # fmt: skip


def _ablations() -> Iterator[_Row]:
    same: dict[str, Any] = {"set": "t2m", "translator": "gSTA", "rate": 5e-3}
    for noise in _NOISES:
        yield _Row(file=f"ablation_noise/SVQ-{noise}", short=f"noise-svq-{noise}", warmup=5 if noise == 0.1 else 0,
                   quantizer=replace(SVQ, noise_ratio=noise), patience=5, **same)  # fmt: skip
        yield _Row(file=f"ablation_noise/raw-{noise}", short=f"noise-raw-{noise}", warmup=0, loss="mse", patience=5,
                   quantizer=replace(NONE, noise_ratio=noise), **same)  # fmt: skip
    for file, (short, kind, sizes) in _QUANTIZERS.items():
        yield _Row(file=f"ablation_vq/{file}", short=short, loss="mse", quantizer=QuantizerConfig(kind=kind, **sizes),
                   **same)  # fmt: skip
    folder = "ablation_appendix"
    yield _Row(file=f"{folder}/freeze_projection", short="svq-gsta-freeze-projection",
               quantizer=replace(KAIMING, freeze_projection=True), **same)  # fmt: skip
    yield _Row(file=f"{folder}/freeze_both", short="svq-gsta-freeze-both",
               quantizer=replace(KAIMING, freeze_projection=True, freeze_codebook=True), **same)  # fmt: skip
    yield _Row(file=f"{folder}/SimVPVQ_gSTA_learnable_postvq", short="svq-gsta-post",
               quantizer=replace(KAIMING, post=True, codebook_size=1024), **same)  # fmt: skip
    for hidden in (False, True):
        for out in (False, True):
            yield _Row(file=f"ablation_relu/SimVPVQ_gSTA_relu_{hidden}_{out}", short=f"relu-{hidden}-{out}".lower(),
                       quantizer=replace(SVQ, hidden_relu=hidden, out_relu=out), **same)  # fmt: skip


def _config(row: _Row) -> TrainConfig:
    known = _SETS[row.set]
    return TrainConfig(
        data=replace(known.data, batch=row.batch),
        model=SimVPConfig(
            translator=translator_named(row.translator), hid_spatial=known.spatial,
            hid_temporal=row.temporal or known.temporal, depth_spatial=known.depth_spatial,
            depth_temporal=known.depth_temporal, drop_path=row.drop_path,
        ),
        quantizer=row.quantizer,
        loss=LossConfig(kind=row.loss),
        optimiser=AdamConfig(learning_rate=row.rate),
        schedule=ScheduleConfig(kind=known.schedule, warmup_epochs=row.warmup),
        fit=LoopConfig(epochs=row.epochs or known.epochs, patience=row.patience or known.patience),
    )  # fmt: skip


_BENCHMARKS = {
    # data, sizes S, D, N_S, N_T, drop path, schedule, epochs, and rates of SimVP and TAU
    "moving-mnist": (_video("moving-mnist", 10, 10), (64, 512, 4, 8), 0.0, "one-cycle", 200, 1e-3, 1e-3),
    "kth": (_video("kth", 10, 20, windows="kth"), (64, 256, 2, 6), 0.1, "one-cycle", 100, 1e-3, 1e-3),
    "taxibj": (_video("taxibj", 4, 4), (32, 256, 2, 8), 0.1, "cosine", 50, 1e-3, 5e-4),
}
"""SimVP and TAU in OpenSTL's benchmark of video prediction."""


def _benchmark(dataset: str, translator: str) -> TrainConfig:
    data, (spatial, temporal, ns, nt), drop_path, schedule, epochs, rate, tau_rate = _BENCHMARKS[dataset]
    kind: Any = schedule
    tau = translator == "tau"
    return TrainConfig(
        data=data,
        model=SimVPConfig(
            translator=translator_named(translator), hid_spatial=spatial, hid_temporal=temporal, depth_spatial=ns,
            depth_temporal=nt, drop_path=drop_path,
        ),
        quantizer=NONE,
        loss=LossConfig(kind="mse", divergence=0.1 if tau else 0.0),
        optimiser=AdamConfig(learning_rate=tau_rate if tau else rate),
        schedule=ScheduleConfig(kind=kind),
        fit=LoopConfig(epochs=epochs),
    )  # fmt: skip


DEMO = TrainConfig(
    data=DataConfig(source=("advection",), history=4, horizon=4),
    model=SimVPConfig(
        hid_spatial=16, hid_temporal=64, depth_spatial=2, depth_temporal=3, mlp_ratio=4.0, periodic_longitude=True
    ),
    quantizer=QuantizerConfig(codebook_size=1000, middle=64, init="kaiming"),
    optimiser=AdamConfig(learning_rate=5e-3),
    schedule=ScheduleConfig(kind="one-cycle"),
    fit=LoopConfig(epochs=3),
)
"""Small enough for a minute on two cores."""


def _all() -> dict[str, TrainConfig]:
    """Return the runs by name: first those of files, each followed by its short name, then the others."""
    runs: dict[str, TrainConfig] = {}
    for row in _rows():
        config = _config(row)
        runs[f"{_SETS[row.set].folder}/{row.file}"] = config
        runs[f"{row.set}/{row.short}"] = config
    for dataset in _BENCHMARKS:
        for model, translator in (("simvp-gsta", "gsta"), ("simvp-incepu", "incepu"), ("tau", "tau")):
            runs[f"{dataset}/{model}"] = _benchmark(dataset, translator)
    return {**runs, "demo": DEMO}


def _spellings(name: str) -> tuple[str, ...]:
    """Return other spellings of the name of a run with a frozen codebook."""
    for ending, other in (("_frozen", "_freeze"), ("_freeze", "_frozen"), ("-frozen", "-freeze")):
        if name.endswith(ending):
            return (name.removesuffix(ending) + other,)
    return ()


PRESETS: Mapping[str, TrainConfig] = _all()
"""The runs by name, as `svq config list` prints them."""
ALIASES: dict[str, str] = {other: name for name in PRESETS for other in _spellings(name) if other not in PRESETS}
"""Further spellings."""
KNOWN: Mapping[str, TrainConfig] = {**PRESETS, **{other: PRESETS[name] for other, name in ALIASES.items()}}
"""Runs by every name that is understood."""


def short_names() -> dict[str, str]:
    """Return the short name of each run that has a file."""
    return {f"{_SETS[row.set].folder}/{row.file}": f"{row.set}/{row.short}" for row in _rows()}
