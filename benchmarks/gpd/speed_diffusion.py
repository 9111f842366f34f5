"""What generation by diffusion costs, in seconds and in memory: DDIM, banded attention, rows for 1,683 nodes.

Cases for `speed.py`, which runs them beside those of the node models. Sides compute the same where that can be: the
banded attention and the dense one have the same weights, and their outputs are compared before anything is timed.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import timing
from benchmarks.gpd.plain_diffusion import PlainWindowAttention

from gpd.diffusion.attention import WindowAttention
from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, SamplingConfig, StageConfig
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.schedule import Schedule
from gpd.diffusion.tokens import RowScaling, make_layout
from gpd.diffusion.trained import TrainedDiffusion
from gpd.generate import generate
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, row_size
from gpd.prompts.table import Prompts
from stcore.errors import UserError

Row = dict[str, Any]

PROMPT = 128
NODES = 1683
"""Rows of the original's largest table."""
WIDTH, TOKENS, ROWS = 512, 359, 8
"""Sizes at which attention is timed: those of the original's Graph WaveNets."""
SAME = 1e-5
"""Largest difference of outputs, relative to the largest, between sides that compute the same."""


def untrained(*, width: int, device: torch.device) -> TrainedDiffusion:
    """Return a diffusion model over rows of v_GWN with random weights; cost does not depend on what was learnt."""
    torch.manual_seed(0)
    model, stage = NodeModelConfig(kind="gwn"), StageConfig(denoiser=DenoiserConfig(width=width, feedforward=4 * width))
    spec = build_node_model(model, 2).spec
    numbers = row_size(spec)
    layout = make_layout(spec, "layerwise", stage.denoiser.channels_for(numbers))
    denoiser = Denoiser(stage.denoiser, TokenTable.of(layout, stage.denoiser), PROMPT, PROMPT).eval().to(device)
    ones = torch.ones(numbers)
    diffusion = DiffusionConfig()
    return TrainedDiffusion(
        denoiser=denoiser, stage=stage, layout=layout, model=model, features=2, dims=(PROMPT, PROMPT),
        scaling=RowScaling(mean=0.0 * ones, deviation=ones, low=-3.0 * ones, high=3.0 * ones),
        schedule=Schedule.make(diffusion.steps, diffusion.schedule), checkpoint=Path("untrained"),
    )  # fmt: skip


def prompts_of(nodes: int) -> Prompts:
    """Return random prompts, the same every time."""
    both = np.random.default_rng(0).normal(size=(2, nodes, PROMPT)).astype(np.float32)
    return Prompts(spatial=both[0], temporal=both[1], cities=("city",) * nodes, nodes=tuple(map(str, range(nodes))))


def _ddim(quick: bool, device: torch.device) -> Iterator[Row]:
    """Time DDIM with 25 steps beside all 500 steps, with the same denoiser and prompts."""
    trained, nodes = untrained(width=32 if quick else 256, device=device), 1 if device.type == "cpu" else 8
    prompts = prompts_of(nodes)
    ways = {"ancestral": SamplingConfig(method="ancestral"), "ddim": SamplingConfig(steps=25)}

    def way(sampling: SamplingConfig) -> Callable[[], object]:
        return lambda: generate(trained, prompts, sampling, device=device.type)

    timings = timing.time_in_turn({name: way(each) for name, each in ways.items()}, repeats=1 if quick else 5)
    pair = timing.compare(timings["ancestral"], timings["ddim"])
    yield {
        "case": "ddim",
        "what": f"generating a v_GWN row, DDIM with 25 steps beside ancestral sampling with {len(trained.schedule)}, s",
        **pair,
        "plain": f"{pair['plain_s'] / nodes:.2f}",
        "ours": f"{pair['ours_s'] / nodes:.3f}",
        "result": f"{pair['ratio']:.3g} times faster",
        "goal": "15 times faster",
        "met": "yes" if pair["ratio"] >= 15.0 else "**no**",
        "rows": nodes,
    }


def attention_pair(device: torch.device) -> tuple[PlainWindowAttention, WindowAttention]:
    """Return the dense and the banded attention with the same weights."""
    torch.manual_seed(0)
    plain = PlainWindowAttention(WIDTH, 10, 10, 10, 5)
    ours = WindowAttention(WIDTH, heads=10, key_dim=10, value_dim=10, window=5, scale="tokens")
    names = {"_W_q": "query", "_W_k": "key", "_W_v": "value", "_W_o": "leave"}
    state = {f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": value
             for name, value in plain.state_dict().items()}  # fmt: skip
    ours.load_state_dict(state)
    return plain.to(device), ours.to(device)


def _banded(quick: bool, device: torch.device) -> Iterator[Row]:
    """Time a layer of banded attention, forward and backward, beside the dense one."""
    plain, ours = attention_pair(device)
    x = torch.randn(ROWS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.no_grad():
        expected = plain(x)
        difference = float((ours(x) - expected).abs().max() / expected.abs().max())
    if difference > SAME:
        raise UserError(f"banded: outputs differ by {difference:.1e}; expected at most {SAME:g}")

    def step(layer: torch.nn.Module) -> Callable[[], None]:
        entering = x.clone().requires_grad_()

        def once() -> None:
            layer.zero_grad(set_to_none=True)
            entering.grad = None
            layer(entering).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return once

    timings = timing.time_in_turn({"plain": step(plain), "ours": step(ours)}, repeats=3 if quick else 21, warm_up=3)
    pair = timing.compare(timings["plain"], timings["ours"])
    yield {
        "case": "banded",
        "what": f"attention over {TOKENS} tokens {WIDTH} wide, forward and backward, banded beside dense, s for "
        f"{ROWS} rows",
        **pair,
        "plain": f"{pair['plain_s']:.3f}",
        "ours": f"{pair['ours_s']:.3f}",
        "result": f"{pair['ratio']:.3g} times faster",
        "goal": "2 times faster",
        "met": "yes" if pair["ratio"] >= 2.0 else "**no**",
        "largest_difference": difference,
    }


def _memory(quick: bool, device: torch.device) -> Iterator[Row]:
    """Measure what generating rows for all nodes of the largest table takes over the model, in a process of its own."""
    nodes = 64 if quick else NODES
    command = timing.call_command(f"{__name__}:measure_generation", nodes=nodes, width=32 if quick else 512)
    # Memory that is given back leaves the process at once, so that a peak is that of what was in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    cost = timing.measure_command(command, environment=environment)
    if cost.code != 0:
        raise UserError(f"measure_generation: ended with {cost.code}; expected 0")
    found = json.loads(cost.output.strip().splitlines()[-1])
    yield {
        "case": "memory",
        "what": f"peak memory of generating {nodes:,} v_GWN rows, over the model, GB",
        "plain": "",
        "ours": f"{found['peak_gb']:.2f}",
        "result": f"{found['rows_gb']:.2f} GB of it the rows",
        "goal": "2 GB",
        "met": "yes" if found["peak_gb"] <= 2.0 else "**no**",
        **found,
        "wall_s": cost.wall_s,
    }


def measure_generation(*, nodes: int, width: int) -> None:
    """Print by how many GB generating rows raises the memory of this process.

    Two steps are enough: further ones use the same memory again.
    """
    torch.set_num_threads(2)
    trained, sampling = untrained(width=width, device=torch.device("cpu")), SamplingConfig(steps=2)
    generate(trained, prompts_of(1), replace(sampling, batch=1), device="cpu")  # loads what is loaded once
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    rows = generate(trained, prompts_of(nodes), sampling, device="cpu")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(json.dumps({"peak_gb": peak / 1e9, "rows_gb": rows.numel() * 4e-9, "batch": sampling.batch,
                      "steps": sampling.steps}))  # fmt: skip


CASES: dict[str, Callable[[bool, torch.device], Iterator[Row]]] = {
    "ddim": _ddim,
    "banded": _banded,
    "memory": _memory,
}
"""What can be measured; `speed.py` joins them with its own."""
