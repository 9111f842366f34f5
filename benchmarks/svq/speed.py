"""What sparse vector quantisation costs in SimVP, in seconds and in memory, beside library operations.

All sides have the same weights and see the same frames, at the sizes of the 2 m temperature preset: 12 hourly frames
of 32 x 64 in and out, latent frames of 32 channels, 8 gSTA blocks 256 wide, 10 000 codes. They run in one process, in
turn, and their outputs are compared before anything is timed. The plain side (`plain.py`) passes the same recordings
of the originals; it computes the weights of all codes at every position and multiplies them by the codebook.

Options: `cases` (names, comma-separated), `batch` (sequences at once).
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from benchmarks import tables, timing
from benchmarks.svq.plain import PlainSimVP
from benchmarks.svq.store import write_store
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stcore.errors import UserError
from svq.convert import to_ours
from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.simvp import SimVP

Row = dict[str, Any]
Forward = Callable[[Tensor], Tensor]

FRAME = FrameShape(1, 32, 64)
STEPS = 12
SIZES = SimVPConfig(translator="gsta", hid_spatial=32, hid_temporal=256, depth_spatial=2, depth_temporal=8)
CODES = 10_000
MIDDLE = 128
NONE = QuantizerConfig(kind="none")
SAME = 1e-4
"""Largest difference of outputs, relative to the largest, between sides that compute the same."""
SMALL_MODEL = ("--model.hid-spatial", "8", "--model.hid-temporal", "32", "--model.depth-spatial", "2",
               "--model.depth-temporal", "2", "--model.mlp-ratio", "2")  # fmt: skip


def run(quick: bool, *, cases: str = "", batch: str = "2") -> Iterator[Row]:
    """Yield the rows of each case.

    Args:
        quick: fewer rounds and smaller stores; figures then say only that everything works.
        cases: names of `CASES` to run, separated by commas; all by default.
        batch: sequences at once.
    """
    wanted = cases.split(",") if cases else list(CASES)
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise UserError(f"cases: {unknown[0]!r}; expected some of {', '.join(CASES)}")
    place = Place(torch.device("cuda" if torch.cuda.is_available() else "cpu"), int(batch))
    for name in wanted:
        for row in CASES[name](quick, place):
            yield {"threads": torch.get_num_threads(), "device": place.name, "batch": place.batch, **row}


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table of the README."""
    cells = [[row["what"], row["plain"], row["ours"], row["result"], row["goal"], row["met"]] for row in rows]
    header = ["what", "beside", "svq", "result", "goal", "met"]
    return f"{tables.markdown(header, cells)}\n\n{tables.provenance(rows)}"


@dataclass(frozen=True)
class Place:
    """Where and on how much is measured."""

    device: torch.device
    batch: int

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def frames(self) -> tuple[Tensor, Tensor]:
        """Return histories and futures, the same every time."""
        drawn = torch.randn(self.batch, 2 * STEPS, *FRAME, generator=torch.Generator().manual_seed(1)).to(self.device)
        return drawn[:, :STEPS], drawn[:, STEPS:]


def _sides(device: torch.device) -> dict[str, nn.Module]:
    """Make SVQ and SimVP, ours and plain, in pairs with the same weights."""
    pairs: dict[str, nn.Module] = {}
    codes = {"input_dim": SIZES.hid_spatial, "codebook_size": CODES, "middim": MIDDLE}
    for name, plain_name, quantizer, arguments in (
        ("svq", "unfolded", QuantizerConfig(codebook_size=CODES, middle=MIDDLE), codes),
        ("simvp", "plain", NONE, None),
    ):
        torch.manual_seed(0)
        plain = PlainSimVP((STEPS, *FRAME), vq_kwargs=arguments)
        for part in plain.modules():  # as after some training: a branch that is scaled to nothing hides its errors
            if hasattr(part, "layer_scale_1"):
                nn.init.constant_(part.layer_scale_1, 0.5)
                nn.init.constant_(part.layer_scale_2, 0.5)
        ours = build(SIZES, quantizer, FRAME, STEPS)
        ours.load_state_dict(to_ours(plain.state_dict())[0])
        pairs |= {name: ours.to(device), plain_name: plain.to(device)}
    return pairs


def _forward(model: nn.Module) -> Forward:
    """Return what maps a history to a future of the same length."""
    return model if isinstance(model, PlainSimVP) else lambda history: model(history, STEPS)


def _training(model: nn.Module, place: Place, *, bf16: bool = False) -> Callable[[], None]:
    history, future = place.frames()
    forward = _forward(model)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=bf16):
            loss = F.l1_loss(forward(history), future)
        loss.backward()
        place.wait()

    return step


def _forecast(model: nn.Module, place: Place, *, bf16: bool = False) -> Callable[[], None]:
    history, _ = place.frames()
    model.eval()
    forward = _forward(model)

    def step() -> None:
        with torch.inference_mode(), torch.autocast(place.device.type, torch.bfloat16, enabled=bf16):
            forward(history)
        place.wait()

    return step


def _difference(ours: nn.Module, plain: nn.Module, place: Place) -> float:
    """Return how far outputs in training mode are apart, relative to the largest."""
    history, _ = place.frames()
    with torch.inference_mode():
        expected = _forward(plain)(history)
        return float((_forward(ours)(history) - expected).abs().max() / expected.abs().max())


def _compare(*, forward: bool) -> Callable[[bool, Place], Iterator[Row]]:
    """Time SVQ beside SimVP without it, ours and plain, and beside the unfolded form."""
    name = "forward" if forward else "training"
    what = "forward" if forward else "forward and backward"

    def case(quick: bool, place: Place) -> Iterator[Row]:
        sides = _sides(place.device)
        differences = {pair: _difference(sides[pair[0]], sides[pair[1]], place) for pair in _PAIRS}
        if max(differences.values()) > SAME:
            raise RuntimeError(f"outputs differ by {max(differences.values()):.1e}, nothing to compare")
        task = _forecast if forward else _training
        timings = timing.time_in_turn(
            {side: task(model, place) for side, model in sides.items()}, repeats=2 if quick else 7
        )
        about = {"seconds": {side: found.median_s for side, found in timings.items()},
                 "largest_difference": max(differences.values()), "codes": CODES}  # fmt: skip
        for side, said in (("simvp", "ours"), ("plain", "library operations")):
            ratio = _median_ratio(timings["svq"], timings[side])
            goal = None if forward else 1.05
            yield {
                "case": f"{name}-{side}",
                "what": f"{what}, beside SimVP without codes ({said}), s a sample",
                **_seconds(timings, side, place),
                "result": f"{ratio:.3g} times the time",
                "goal": f"at most {goal:g} times" if goal else "",
                "met": ("yes" if ratio <= goal else "**no**") if goal else "",
                "ratio": ratio,
                "ratio_per_round": [round(each, 3) for each in timing.ratios(timings["svq"], timings[side])],
                **about,
            }
        ratio = _median_ratio(timings["unfolded"], timings["svq"])
        yield {
            "case": f"{name}-unfolded",
            "what": f"{what}, beside SVQ with all code weights (library operations), s a sample",
            **_seconds(timings, "unfolded", place),
            "result": f"{ratio:.3g} times faster",
            "goal": "" if forward else "2.3 times faster",
            "met": "" if forward else ("yes" if ratio >= 2.3 else "**no**"),
            "ratio": ratio,
            "ratio_per_round": [round(each, 3) for each in timing.ratios(timings["unfolded"], timings["svq"])],
            **about,
        }

    return case


_PAIRS = (("svq", "unfolded"), ("simvp", "plain"))


def _seconds(timings: dict[str, timing.Timings], beside: str, place: Place) -> dict[str, str]:
    each = {"plain": beside, "ours": "svq"}
    return {column: f"{timings[side].median_s / place.batch:.3f}" for column, side in each.items()}


def _median_ratio(slow: timing.Timings, fast: timing.Timings) -> float:
    return statistics.median(timing.ratios(slow, fast))


def _options(quick: bool, place: Place) -> Iterator[Row]:
    """Time SVQ as it is beside channels first, torch.compile and bfloat16, training and forward, in turn."""
    for name, task in (("training", _training), ("forward", _forecast)):
        models = {option: _sides(place.device)["svq"] for option in ("eager", "channels_first", "compiled", "bf16")}
        cast(SimVP, models["channels_first"]).put_channels_last(False)
        models["compiled"].compile()
        steps = {option: task(model, place, bf16=option == "bf16") for option, model in models.items()}
        missing = _without(steps, "compiled")
        timings = timing.time_in_turn(steps, repeats=2 if quick else 5)
        for option in ("channels_first", "compiled", "bf16"):
            row: Row = {"case": f"{name}-{option}", "what": f"{name}, {option} beside eager, s a sample",
                        "plain": "", "ours": "", "goal": "", "met": "",
                        "native_bf16": _has_bf16(place.device)}  # fmt: skip
            if option not in timings:
                yield {**row, "result": f"not run: {missing}"}
                continue
            pair = timing.compare(timings["eager"], timings[option])
            seconds = {"plain": f"{pair['plain_s'] / place.batch:.3f}", "ours": f"{pair['ours_s'] / place.batch:.3f}"}
            yield {**row, **pair, **seconds, "result": f"{pair['ratio']:.3g} times faster"}


def _without(steps: dict[str, Callable[[], None]], name: str) -> str:
    """Run a step once and take it out where it cannot run; return why. A compiler is not everywhere."""
    try:
        steps[name]()
    except Exception as error:
        del steps[name]
        return type(error).__name__
    return ""


def _memory(quick: bool, place: Place) -> Iterator[Row]:
    """Measure what a training step takes beyond weights, gradients and optimiser state, for few codes and for many."""
    sizes = (1000, 4000) if quick else (1000, 10_000, 100_000)
    found = {codes: _measured("measure_step", codes=codes, batch=2 * place.batch) for codes in sizes}
    peaks = [found[codes]["peak_mb"] for codes in sizes]
    spread = max(peaks) / min(peaks) - 1.0
    yield {
        "case": "memory",
        "what": f"peak memory of a step from {sizes[0]:,} to {sizes[-1]:,} codes, "
        "beyond weights, gradients and optimiser state, MB",
        "plain": f"{peaks[0]:.0f}",
        "ours": f"{peaks[-1]:.0f}",
        "result": f"differs by {100 * spread:.1f} %",
        "goal": "at most 5 %",
        "met": "yes" if spread <= 0.05 else "**no**",
        "spread": spread,
        "by_codes": found,
    }
    largest, limit = (found[sizes[-1]][name] for name in ("largest_beside_weights", "positions_times_codes"))
    below = all(each["largest"] < each["positions_times_codes"] for each in found.values())
    yield {
        "case": "largest-tensor",
        "what": f"largest tensor of a step with {sizes[-1]:,} codes, beside those shaped as weights, numbers",
        "plain": f"{limit:,} (positions x codes)",
        "ours": f"{largest:,}",
        "result": f"{found[sizes[-1]]['largest_beside_weights_shape']}",
        "goal": "none of positions x codes",
        "met": "yes" if below else "**no**",
        "by_codes": found,
    }


def _measured(function: str, **arguments: object) -> dict[str, Any]:
    """Call one of our functions in a fresh process and return what it prints."""
    # Memory that is given back leaves the process at once, so that a peak is that of what was in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = timing.call_command(f"{__name__}:{function}", **arguments)
    cost = timing.measure_command(command, environment=environment)
    if cost.code != 0:
        raise RuntimeError(f"{function}: ended with {cost.code}: {cost.output}")
    return json.loads(cost.output.splitlines()[-1])


class LargestTensor(TorchDispatchMode):
    """Note the largest tensor that any operation makes, forward or backward; with and without those shaped as weights.

    Args:
        weights: shapes of parameters, which gradients and the optimiser's intermediate results share.
    """

    def __init__(self, weights: set[tuple[int, ...]]) -> None:
        super().__init__()
        self._weights = weights | {shape[::-1] for shape in weights}
        self.largest: tuple[int, ...] = ()
        self.beside_weights: tuple[int, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in pytree.tree_leaves(found):
            if isinstance(one, Tensor):
                shape = tuple(one.shape)
                self.largest = max(self.largest, shape, key=prod)
                if shape not in self._weights:
                    self.beside_weights = max(self.beside_weights, shape, key=prod)
        return found


def measure_step(*, codes: int, batch: int) -> None:
    """Print by how many MB a training step raises the memory of this process, and the largest tensor of another."""
    torch.manual_seed(0)
    model = build(SIZES, QuantizerConfig(codebook_size=codes, middle=MIDDLE), FRAME, STEPS)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    history, future = Place(torch.device("cpu"), batch).frames()

    def step(count: int) -> None:
        # Gradients stay where they are, so that they are there before, too.
        optimiser.zero_grad(set_to_none=False)
        F.l1_loss(model(history[:count], STEPS), future[:count]).backward()
        optimiser.step()

    step(1)  # makes gradients and the optimiser's state, and loads what is loaded once
    before = _resident_bytes()
    step(batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    with LargestTensor(shapes) as seen:
        step(batch)
    positions = batch * STEPS * FRAME.height * FRAME.width // 2**SIZES.depth_spatial
    print(json.dumps({
        "peak_mb": peak / 1e6, "weights_mb": sum(each.numel() for each in model.parameters()) * 4e-6,
        "largest": prod(seen.largest), "largest_shape": " x ".join(map(str, seen.largest)),
        "largest_beside_weights": prod(seen.beside_weights),
        "largest_beside_weights_shape": " x ".join(map(str, seen.beside_weights)),
        "positions_times_codes": positions * codes, "batch": batch,
    }))  # fmt: skip


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _streaming(quick: bool, place: Place) -> Iterator[Row]:
    """Measure the memory that metrics take for few windows and for ten times as many."""
    few = 20 if quick else 200
    once, tenfold = (_measured("measure_metrics", windows=windows)["peak_mb"] for windows in (few, 10 * few))
    yield {
        "case": "streaming",
        "what": f"memory of weather metrics for {few:,} and {10 * few:,} windows of 12 x 1 x 32 x 64, MB",
        "plain": f"{once:.1f}",
        "ours": f"{tenfold:.1f}",
        "result": f"{tenfold - once:+.1f} MB",
        "goal": "constant (within 2 MB)",
        "met": "yes" if tenfold - once <= 2.0 else "**no**",
    }


def measure_metrics(*, windows: int) -> None:
    """Print by how many MB the metrics of so many windows raise the memory of this process."""
    from stcore.metrics.weather import WeatherMetrics

    metrics = WeatherMetrics(np.linspace(-87.0, 87.0, FRAME.height), torch.zeros(FRAME))
    draw = torch.Generator().manual_seed(0)
    before = 0
    for number in range(windows // 4):
        truth = torch.randn(4, STEPS, *FRAME, generator=draw)
        metrics.update(truth + 0.1 * torch.randn(truth.shape, generator=draw), truth)
        if number == 0:
            before = _resident_bytes()
    metrics.compute()
    print(json.dumps({"peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6}))


def _store(quick: bool, place: Place) -> Iterator[Row]:
    """Train from a store larger than the memory it may take."""
    gigabytes = 0.06 if quick else 6.0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "fields.zarr"
        frames = write_store(store, gigabytes=gigabytes)
        command = ["train", "--preset", "demo", "--data", str(store), "--run", str(Path(folder) / "run"), "--quiet",
                   "--device", "cpu", "--data.history", "4", "--data.horizon", "4", "--data.stride", "16",
                   "--data.batch", "8", *SMALL_MODEL, "--fit.max-steps", "5" if quick else "40"]  # fmt: skip
        cost = timing.measure_command([sys.executable, "-m", "svq.cli", *command])
    if cost.code != 0:
        raise UserError(f"svq train: ended with {cost.code}; expected 0")
    yield {
        "case": "store",
        "what": f"peak memory of `svq train` on a store of {gigabytes:g} GB, GB",
        "plain": "",
        "ours": f"{cost.peak_mb / 1e3:.2f}",
        "result": f"{cost.wall_s:.0f} s",
        "goal": "1.5 GB",
        "met": "yes" if cost.peak_mb <= 1500.0 else "**no**",
        "peak_mb": cost.peak_mb,
        "wall_s": cost.wall_s,
        "cpu_s": cost.cpu_s,
        "frames": frames,
    }


def _help(quick: bool, place: Place) -> Iterator[Row]:
    """Measure `svq train --help`: CPU seconds of a fresh process, and whether it imported torch."""
    command = [sys.executable, "-m", "svq.cli", "train", "--help"]
    costs = [timing.measure_command(command) for _ in range(3 if quick else 7)]
    listing = timing.measure_command(
        [sys.executable, "-c", "import sys, svq.cli\ntry: svq.cli.main(['train', '--help'])\nexcept SystemExit: pass\n"
         "print('imported torch:', 'torch' in sys.modules)"]
    )  # fmt: skip
    clean = costs[0].code == 0 and listing.output.strip().endswith("imported torch: False")
    seconds = statistics.median(cost.cpu_s for cost in costs)
    yield {
        "case": "help",
        "what": "`svq train --help`, CPU s",
        "plain": "",
        "ours": f"{seconds:.2f}",
        "result": "without torch" if clean else "with torch",
        "goal": "0.5 s without torch",
        "met": "yes" if clean and seconds <= 0.5 else "**no**",
        "cpu_s": seconds,
        "repeats": len(costs),
    }


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" or bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]


CASES: dict[str, Callable[[bool, Place], Iterator[Row]]] = {
    "training": _compare(forward=False),
    "forward": _compare(forward=True),
    "memory": _memory,
    "streaming": _streaming,
    "store": _store,
    "options": _options,
    "help": _help,
}
"""What can be measured; a case may yield several rows."""
