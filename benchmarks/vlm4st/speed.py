"""What a forecast and a step of training cost, in seconds and in memory, beside the same in plain library operations.

Both sides have the sizes of the original's configuration (32 x 32 cells, six frames in and out, ViT-B/16, six layers of
BERT that attend to it, standard adapters), the same random weights, the same frames, and attention dropout 0; batch 1.
The plain side (`plain.py`) passes the same recordings and computes what the original computes. Times are taken in one
process, in turn, after outputs were compared; memory in a process of its own for each side.

Options: `cases` (names, comma-separated), `batch`.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import tables, timing
from benchmarks.vlm4st.plain import PlainMemory, PlainVLM4ST, plain_loss, without_attention_dropout
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stcore.errors import UserError
from vlm4st.convert import load_reference
from vlm4st.models import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
)
from vlm4st.models.adapters import merge, unmerge
from vlm4st.models.prompt_forge import PatternMemory
from vlm4st.models.vlm4st import VLM4ST

Row = dict[str, Any]
Work = Callable[[], None]

FULL = ModelConfig(
    dix_attention=DixConfig(attention_dropout=0.0),
    vlm=VlmConfig(bert_config=BertSizes(attention_probs_dropout_prob=0.0), allow_random_backbone=True),
)
"""The original's configuration."""
_QUICK_BERT = BertSizes(hidden_size=64, encoder_width=64, num_hidden_layers=4, num_attention_heads=4,
                        intermediate_size=128, fusion_layer=2, attention_probs_dropout_prob=0.0)  # fmt: skip
QUICK = ModelConfig(
    H=8, W=8, d_model=32, dix_attention=DixConfig(num_heads=4, attention_dropout=0.0),
    prompt_forge=PromptForgeConfig(d_prompt=16),
    format_transformer=FormatTransformerConfig(spatial_pool_size=4, num_latents=20, vlm_hidden_dim=64),
    vlm=VlmConfig(image_res=48, vision_width=64, embed_dim=16, vit=VitSizes(depth=2, num_heads=4),
                  bert_config=_QUICK_BERT, lora_rank=4, allow_random_backbone=True),
    prediction_head=PredictionHeadConfig(hidden_dim=32),
)  # fmt: skip
"""Says only that everything works."""
WORDS = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2}
SAME = 1e-4
"""Largest difference of outputs, relative to the largest, between sides that compute the same."""
RATE, DECAY, CLIP = 1e-4, 0.05, 1.0
FORWARD_GOAL, STEP_GOAL = 0.75, 0.65
STEP_GB, LEAN_GB = 4.8, 3.5
WEIGHTS_GB, RESUMABLE_GB = 0.4, 1.05


def run(quick: bool, *, cases: str = "", batch: str = "1") -> Iterator[Row]:
    """Yield the rows of each case.

    Args:
        quick: a small model and fewer rounds; figures then say only that everything works.
        cases: names of `CASES` to run, separated by commas; all by default.
        batch: samples at once.
    """
    wanted = cases.split(",") if cases else list(CASES)
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise UserError(f"cases: {unknown[0]!r}; expected some of {', '.join(CASES)}")
    place = Place(torch.device("cuda" if torch.cuda.is_available() else "cpu"), int(batch), quick)
    for name in wanted:
        for row in CASES[name](place):
            yield {"threads": torch.get_num_threads(), "device": place.name, "batch": place.batch, **row}


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table of the README."""
    cells = [[row["what"], row["plain"], row["ours"], row["result"], row["goal"], row["met"]] for row in rows]
    header = ["what", "plain", "vlm4st", "result", "goal", "met"]
    return f"{tables.markdown(header, cells)}\n\n{tables.provenance(rows)}"


@dataclass(frozen=True)
class Place:
    """Where and on how much is measured."""

    device: torch.device
    batch: int
    quick: bool

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    @property
    def config(self) -> ModelConfig:
        return QUICK if self.quick else FULL

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def frames(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return known frames, timestamps and truth, the same every time."""
        draw, config = torch.Generator().manual_seed(1), self.config
        x = torch.rand(self.batch, config.T + config.T_out, config.H, config.W, generator=draw) * 2 - 1
        slots = torch.arange(config.T) % 48
        stamps = torch.stack([torch.zeros_like(slots), slots], -1).expand(self.batch, -1, -1)
        return x[:, : config.T].to(self.device), stamps.to(self.device), x[:, config.T :].to(self.device)


def plain_model(config: ModelConfig) -> PlainVLM4ST:
    """Return the plain side, drawn with a fixed seed, without dropout of attention weights."""
    torch.manual_seed(0)
    table = asdict(config)
    model = PlainVLM4ST(table, {**table["vlm"]["bert_config"], **WORDS}, table["vlm"]["vit"])
    without_attention_dropout(model)
    for part in model.modules():  # as after some training: an update of 0 hides its errors
        for name in ("lora_B", "lora_A"):
            if isinstance(getattr(part, name, None), nn.Parameter):
                nn.init.normal_(getattr(part, name), std=0.02)
    return model


def _forward(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return (lambda x, stamps: model(x, stamps)[0]) if isinstance(model, PlainVLM4ST) else model


def _forecast(model: nn.Module, place: Place, *, bf16: bool = False) -> Work:
    x, stamps, _ = place.frames()
    forward = _forward(model.eval())

    def work() -> None:
        with torch.inference_mode(), torch.autocast(place.device.type, torch.bfloat16, enabled=bf16):
            forward(x, stamps)
        place.wait()

    return work


def _training(model: nn.Module, place: Place, *, bf16: bool = False) -> Work:
    """Return a step: loss, gradients, clipping, AdamW. Ours as `vlm4st train` does it, with one pass for the update."""
    x, stamps, target = place.frames()
    forward, ours = _forward(model.train()), not isinstance(model, PlainVLM4ST)
    trained = [part for part in model.parameters() if part.requires_grad or not ours]
    options = {"fused": True} if ours else {}
    optimiser = torch.optim.AdamW(trained, RATE, weight_decay=DECAY, **options)

    def work() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=bf16):
            loss = plain_loss(forward(x, stamps).float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP)
        optimiser.step()
        place.wait()

    return work


def _sides(place: Place) -> dict[str, nn.Module]:
    """Make both sides with the same weights, and compare their forecasts."""
    plain, ours = plain_model(place.config), VLM4ST(place.config)
    load_reference(ours, plain.state_dict())
    sides: dict[str, nn.Module] = {"plain": plain.to(place.device).eval(), "ours": ours.to(place.device).eval()}
    x, stamps, _ = place.frames()
    with torch.inference_mode():
        expected, found = (_forward(model)(x, stamps) for model in sides.values())
    difference = float((found - expected).abs().max() / expected.abs().max())
    if difference > SAME:
        raise RuntimeError(f"outputs differ by {difference:.1e}, nothing to compare")
    return sides


def _times(name: str, what: str, task: Callable[[nn.Module, Place], Work], goal: float) -> Callable[..., Iterator[Row]]:
    """Time a task on both sides in turn."""

    def case(place: Place) -> Iterator[Row]:
        sides = {side: task(model, place) for side, model in _sides(place).items()}
        timings = timing.time_in_turn(sides, repeats=2 if place.quick else 7)
        yield _row(name, what, timings, goal, place)

    return case


def _row(name: str, what: str, timings: dict[str, timing.Timings], goal: float | None, place: Place) -> Row:
    pair = timing.compare(timings["plain"], timings["ours"])
    ratio = statistics.median(ours / plain for ours, plain in
                              zip(timings["ours"].wall_s, timings["plain"].wall_s, strict=True))  # fmt: skip
    return {
        "case": name,
        "what": f"{what}, s a sample",
        "plain": f"{pair['plain_s'] / place.batch:.3f}",
        "ours": f"{pair['ours_s'] / place.batch:.3f}",
        "result": f"{ratio:.3g} times the time",
        "goal": f"at most {goal:g} times" if goal else "",
        "met": ("yes" if ratio <= goal else "**no**") if goal else "",
        **pair,
        "ratio": ratio,
        "cpu_ratio": 1 / pair["cpu_ratio"],
        "ratio_per_round": [round(1 / each, 3) for each in pair["ratio_per_round"]],
    }


def _merged(place: Place) -> Iterator[Row]:
    """Time a forecast with updates added to the weights below, as a trained model is used."""
    sides = _sides(place)
    merge(sides["ours"])
    timings = timing.time_in_turn({side: _forecast(model, place) for side, model in sides.items()},
                                  repeats=2 if place.quick else 7)  # fmt: skip
    unmerge(sides["ours"])
    yield _row("forward-merged", "forecast, updates merged", timings, None, place)


def _memory(place: Place) -> Iterator[Row]:
    """Measure the peak memory of two steps of training, each side in a process of its own."""
    sides = {"plain": "plain", "ours": "ours", "recomputing": "ours"}
    found = {side: _measured("measure_step", side=kind, recompute=side == "recomputing", quick=place.quick,
                             batch=place.batch) for side, kind in sides.items()}  # fmt: skip
    for name, side, goal in (("memory", "ours", STEP_GB), ("memory-recomputing", "recomputing", LEAN_GB)):
        peak = found[side]["peak_gb"]
        yield {
            "case": name,
            "what": "peak memory of a process that trains"
            + (", inner values computed again" if side == "recomputing" else "") + ", GB",
            "plain": f"{found['plain']['peak_gb']:.2f}",
            "ours": f"{peak:.2f}",
            "result": f"{peak / found['plain']['peak_gb']:.2f} times",
            "goal": f"at most {goal:g} GB",
            "met": "yes" if peak <= goal else "**no**",
            "loss": found[side]["loss"],
            "weights_gb": found[side]["weights_gb"],
        }  # fmt: skip


def _measured(function: str, **arguments: object) -> dict[str, Any]:
    """Call one of our functions in a fresh process and return what it prints."""
    cost = timing.measure_command(timing.call_command(f"{__name__}:{function}", **arguments), environment=os.environ)
    if cost.code != 0:
        raise RuntimeError(f"{function}: ended with {cost.code}: {cost.output}")
    return json.loads(cost.output.splitlines()[-1])


def measure_step(*, side: str, recompute: bool, quick: bool, batch: int) -> None:
    """Print the peak memory of this process after two steps of training: the second has the optimiser's state."""
    place = Place(torch.device("cpu"), batch, quick)
    torch.manual_seed(0)
    model = plain_model(place.config) if side == "plain" else VLM4ST(place.config)
    if isinstance(model, VLM4ST):
        model.set_gradient_checkpointing(recompute)
    work = _training(model, place)
    work()
    work()
    x, stamps, target = place.frames()
    with torch.no_grad():
        loss = float(plain_loss(_forward(model.eval())(x, stamps), target))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    weights = sum(part.numel() * part.element_size() for part in model.parameters())
    print(json.dumps({"peak_gb": peak / 1e9, "loss": loss, "weights_gb": weights / 1e9}))


def _files(place: Place) -> Iterator[Row]:
    """Measure the files that a training of the full size leaves behind."""
    found = _measured("measure_files", quick=place.quick)
    for case, name, goal in (("file-weights", "best", WEIGHTS_GB), ("file-resumable", "step", RESUMABLE_GB)):
        what = "weights alone" if name == "best" else "everything to go on with"
        yield {
            "case": case,
            "what": f"size of a checkpoint, {what}, GB",
            "plain": f"{found['frozen_gb']:.2f} frozen, in neither",
            "ours": f"{found[name]:.2f}",
            "result": f"{found['frozen_names']} frozen tensors in it",
            "goal": f"at most {goal:g} GB",
            "met": "yes" if found[name] <= goal and not found["frozen_names"] else "**no**",
        }


def measure_files(*, quick: bool) -> None:
    """Train for one step through the public function, and print the sizes of its files in GB."""
    from safetensors import safe_open

    from vlm4st.data_options import DataConfig
    from vlm4st.presets import PRESETS
    from vlm4st.train import train

    default = PRESETS["default"]
    with tempfile.TemporaryDirectory() as folder:
        series = Path(folder) / "series.npz"
        np.savez(series, frames=np.random.default_rng(0).random((84, 32, 32), dtype=np.float32))
        data = DataConfig(source=(str(series),), batch=1, start="2024-01-01T00:00", step="30 minutes")
        config = replace(default, data=data, model=QUICK if quick else FULL,
                         fit=replace(default.fit, epochs=1, max_steps=1, checkpoint_every=1))  # fmt: skip
        run = train(config, run=Path(folder) / "run", device="cpu", quiet=True).run.folder
        names: dict[str, set[str]] = {}
        places = {"frozen": run / "backbone.safetensors", "best": run / "checkpoints/best.safetensors",
                  "step": run / "checkpoints/step-1.safetensors"}  # fmt: skip
        for which, path in places.items():
            with safe_open(path, "pt") as file:
                names[which] = {name.partition("/")[2].removeprefix("module.") for name in file.keys()}  # noqa: SIM118
        sizes = {which: path.stat().st_size / 1e9 for which, path in places.items()}
        both = names["frozen"] & (names["best"] | names["step"])
        print(json.dumps({**sizes, "frozen_gb": sizes["frozen"], "frozen_names": len(both)}))


class Operations(TorchDispatchMode):
    """Count operations, and those that wait for a device to hand a number out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        self.waits += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def _prompts(place: Place) -> Iterator[Row]:
    """Count the operations of a pool of patterns for one sample and for many."""
    width, config = place.config.d_model, place.config.prompt_forge
    found: dict[str, dict[int, Operations]] = {}
    for side, memory in (("plain", PlainMemory(width, asdict(config))), ("ours", PatternMemory(width, config))):
        for size in (1, 16):
            with Operations() as operations, torch.no_grad():
                memory(torch.randn(size, width))
            found.setdefault(side, {})[size] = operations
    ours, plain = found["ours"], found["plain"]
    calm = ours[16].count == ours[1].count and ours[16].waits == 0
    said = {side: f"{each[1].count}, {each[16].count} ({each[16].waits} waits)" for side, each in found.items()}
    yield {
        "case": "prompts",
        "what": "operations of a pool of patterns for 1 and for 16 samples",
        "plain": said["plain"],
        "ours": said["ours"],
        "result": f"{plain[16].count / ours[16].count:.0f} times fewer for 16",
        "goal": "no loop, no wait",
        "met": "yes" if calm else "**no**",
    }


def _options(place: Place) -> Iterator[Row]:
    """Time ours as it is beside bfloat16, and beside bfloat16 compiled where there is a GPU."""
    names = ["eager", "bf16", *(["bf16-compiled"] if place.device.type == "cuda" else [])]
    for name, task in (("training", _training), ("forward", _forecast)):
        works: dict[str, Work] = {}
        for option in names:
            torch.manual_seed(0)
            model = VLM4ST(replace(place.config)).to(place.device)
            if option.endswith("compiled"):
                model.compile()
            works[option] = task(model, place, bf16=option != "eager")
        timings = timing.time_in_turn(works, repeats=2 if place.quick else 5)
        for option in names[1:]:
            pair = timing.compare(timings["eager"], timings[option])
            yield {"case": f"{name}-{option}", "what": f"{name}, {option} beside float32, s a sample",
                   "goal": "", "met": "", **pair, "plain": f"{pair['plain_s'] / place.batch:.3f}",
                   "ours": f"{pair['ours_s'] / place.batch:.3f}",
                   "result": f"{pair['ratio']:.3g} times faster"}  # fmt: skip


CASES: dict[str, Callable[[Place], Iterator[Row]]] = {
    "forward": _times("forward", "forecast (evaluation forward)", _forecast, FORWARD_GOAL),
    "training": _times("training", "step of training", _training, STEP_GOAL),
    "forward-merged": _merged,
    "memory": _memory,
    "files": _files,
    "prompts": _prompts,
    "options": _options,
}
