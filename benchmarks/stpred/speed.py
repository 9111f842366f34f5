"""How fast stpred's recurrent networks run beside a plain step-by-step implementation of the same formulas.

Both sides have the same weights and see the same frames, 64 x 64, ten in and ten out, at the full sizes of the Moving
MNIST presets; they run in one process, in turn, and their outputs are compared before anything is timed. The plain
side (`plain.py`, `plain_predrnn.py`) passes the same recordings of the originals.

Options: `cases` (names, comma-separated), `batch` (sequences at once).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from benchmarks import tables, timing
from benchmarks.stpred.plain import PlainConvLSTM, PlainTrajGRU, plain_frames, plain_patches
from benchmarks.stpred.plain_predrnn import PlainPredRNN
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stcore.training.memory_layout import put_channels_last
from stpred.convert import openstl, reference
from stpred.models import FrameShape, build
from stpred.models.configs import ConvLSTMConfig, PredRNNConfig, TrajGRUConfig
from stpred.models.interface import FrameModel

Row = dict[str, Any]
Run = Callable[[Tensor, Tensor], Tensor]

FRAME = FrameShape(1, 64, 64)
STEPS = 10


class _PlainFrames(nn.Module):
    """The plain ConvLSTM on whole frames."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.net, self.patch = PlainConvLSTM(), patch

    def forward(self, frames: Tensor, horizon: int) -> Tensor:
        return plain_frames(self.net(plain_patches(frames, self.patch), horizon), self.patch)


def run(quick: bool, *, cases: str = "", batch: str = "2") -> Iterator[Row]:
    """Yield one row per case.

    Args:
        quick: fewer rounds; figures then say only that everything works.
        cases: names of `CASES` to run, separated by commas; all by default.
        batch: sequences at once.
    """
    wanted = cases.split(",") if cases else list(CASES)
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise UserError(f"cases: {unknown[0]!r}; expected some of {', '.join(CASES)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name in wanted:
        for row in CASES[name](quick, int(batch), device):
            yield {"threads": torch.get_num_threads(), "device": _name(device), "batch": int(batch), **row}


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table of the README."""
    cells = [[row["what"], row["plain"], row["ours"], row["result"], row["goal"], row["met"]] for row in rows]
    header = ["what", "plain", "stpred", "result", "goal", "met"]
    return f"{tables.markdown(header, cells)}\n\n{tables.provenance(rows)}"


def _pair(kind: str) -> tuple[FrameModel, nn.Module]:
    """Make our network and the plain one with the same weights."""
    torch.manual_seed(0)
    if kind == "convlstm":
        plain: nn.Module = _PlainFrames(4)
        ours = build(ConvLSTMConfig(clamp="none"), FRAME)
        state = reference.to_ours(plain.net.state_dict(), kind)
    elif kind == "trajgru":
        plain, ours = PlainTrajGRU(), build(TrajGRUConfig(clamp="none"), FRAME)
        state = reference.to_ours(plain.state_dict(), kind)
    else:
        plain = PlainPredRNN(1, (64, 64), hidden=(128,) * 4, kernel=5, patch=4)
        ours = build(PredRNNConfig(), FRAME)
        state = openstl.to_ours(plain.state_dict(), kind)
    ours.load_state_dict(state)
    return ours, plain


def _frames(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    drawn = torch.rand(batch, 2 * STEPS, *FRAME, generator=torch.Generator().manual_seed(1)).to(device)
    return drawn[:, :STEPS], drawn[:, STEPS:]


def _objective(model: nn.Module) -> Run:
    """The training objective of either side; PredRNN is fed its own guesses, as at test time."""
    if isinstance(model, FrameModel):
        return lambda history, future: model.loss(history, future).total
    if isinstance(model, PlainPredRNN):
        return lambda history, future: model.loss(history, future, history.new_zeros(len(history), STEPS - 1))
    return lambda history, future: F.mse_loss(model(history, STEPS), future)


def _training(model: nn.Module, history: Tensor, future: Tensor, *, bf16: bool = False) -> Callable[[], None]:
    objective = _objective(model)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(history.device.type, torch.bfloat16, enabled=bf16):
            loss = objective(history, future)
        loss.backward()
        _wait(history.device)

    return step


def _forecast(model: nn.Module, history: Tensor, *, bf16: bool = False) -> Callable[[], None]:
    def step() -> None:
        with torch.inference_mode(), torch.autocast(history.device.type, torch.bfloat16, enabled=bf16):
            model(history, STEPS)
        _wait(history.device)

    return step


def _difference(ours: nn.Module, plain: nn.Module, history: Tensor) -> float:
    with torch.inference_mode():
        expected = plain(history, STEPS)
        return float((ours(history, STEPS) - expected).abs().max() / expected.abs().max())


def _compare(kind: str, goal: float, *, bf16: bool = False, forward: bool = False) -> Callable[..., Iterator[Row]]:
    def case(quick: bool, batch: int, device: torch.device) -> Iterator[Row]:
        ours, plain = (model.to(device) for model in _pair(kind))
        history, future = _frames(batch, device)
        difference = _difference(ours, plain, history)
        if difference > 1e-5:
            raise RuntimeError(f"{kind}: outputs differ by {difference:.1e}, nothing to compare")
        if forward:
            candidates = {"plain": _forecast(plain, history), "ours": _forecast(ours, history, bf16=bf16)}
        else:
            fast = _training(ours, history, future, bf16=bf16)
            candidates = {"plain": _training(plain, history, future), "ours": fast}
        timings = timing.time_in_turn(candidates, repeats=2 if quick else 7)
        pair = timing.compare(timings["plain"], timings["ours"])
        what = f"{kind} {'forward' if forward else 'forward and backward'}{' in bfloat16' if bf16 else ''}, s"
        yield {
            "case": f"{kind}-{'forward' if forward else 'training'}{'-bf16' if bf16 else ''}",
            "what": what,
            "plain": f"{pair['plain_s']:.2f}",
            "ours": f"{pair['ours_s']:.2f}",
            "result": f"{pair['ratio']:.3g} times",
            "goal": f"{goal:g} times" if goal else "",
            "met": _met(pair["ratio"], goal, applies=_has_bf16(device) or not bf16),
            "largest_difference": difference,
            "native_bf16": _has_bf16(device),
            **pair,
        }

    return case


def _met(ratio: float, goal: float, *, applies: bool) -> str:
    if not goal:
        return ""
    return ("yes" if ratio >= goal else "**no**") if applies else "no bfloat16 in this processor"


def _options(quick: bool, batch: int, device: torch.device) -> Iterator[Row]:
    """Time our ConvLSTM as it is, without channels_last, and with torch.compile, in turn."""
    history, future = _frames(batch, device)
    models = {name: _pair("convlstm")[0].to(device) for name in ("as it is", "channels first", "compiled")}
    put_channels_last(models["channels first"], False)
    candidates = {name: _training(model, history, future) for name, model in models.items() if name != "compiled"}
    note = ""
    try:
        models["compiled"].compile()
        candidates["compiled"] = _training(models["compiled"], history, future)
        candidates["compiled"]()
    except Exception as error:  # a compiler is not everywhere; the row says so
        candidates.pop("compiled", None)
        note = type(error).__name__
    timings = timing.time_in_turn(candidates, repeats=2 if quick else 5)
    for case, slow, fast in (
        ("channels_last", "channels first", "as it is"),
        ("compiled", "as it is", "compiled"),
    ):
        what = f"ConvLSTM training, {fast} against {slow}, s"
        if fast not in timings:
            yield {"case": f"convlstm-{case}", "what": what, "plain": "", "ours": "", "result": f"not run: {note}",
                   "goal": "", "met": ""}  # fmt: skip
            continue
        pair = timing.compare(timings[slow], timings[fast])
        yield {
            "case": f"convlstm-{case}",
            "what": what,
            "plain": f"{pair['plain_s']:.2f}",
            "ours": f"{pair['ours_s']:.2f}",
            "result": f"{pair['ratio']:.3g} times",
            "goal": "",
            "met": "",
            **pair,
        }


def _memory(quick: bool, batch: int, device: torch.device) -> Iterator[Row]:
    """Measure the peak memory of a training step beyond that of the process before it, with and without checkpoints."""
    kept, again = (
        timing.call_command("benchmarks.stpred.speed:measure_step", checkpoint_every=every, batch=8) for every in (0, 3)
    )
    plain, ours = (_growth(timing.measure_command(command)) for command in (kept, again))
    yield {
        "case": "checkpointing",
        "what": "peak memory of a ConvLSTM training step beyond the model, batch 8, checkpoints through time, MB",
        "plain": f"{plain:.0f}",
        "ours": f"{ours:.0f}",
        "result": f"{ours / plain:.2f} times",
        "goal": "0.4 times",
        "met": "yes" if ours <= 0.4 * plain else "**no**",
        "kept_mb": plain,
        "checkpointed_mb": ours,
    }


def _growth(cost: timing.Cost) -> float:
    if cost.code != 0:
        raise RuntimeError(cost.output)
    return float(cost.output.split()[-1])


def measure_step(*, checkpoint_every: int, batch: int) -> None:
    """Print by how many MB one training step raised the peak of this process."""
    torch.manual_seed(0)
    model = build(ConvLSTMConfig(checkpoint_every=checkpoint_every), FRAME)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    history, future = _frames(batch, torch.device("cpu"))
    small = model.loss(history[:1, :2], future[:1, :1]).total  # loads what is loaded once
    small.backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.loss(history, future).total.backward()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1.024e-3)


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" or bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CASES: dict[str, Callable[[bool, int, torch.device], Iterator[Row]]] = {
    "convlstm": _compare("convlstm", 1.05),
    "trajgru": _compare("trajgru", 1.4),
    "predrnn": _compare("predrnn", 1.0),
    "convlstm-bf16": _compare("convlstm", 0.0, bf16=True),
    "convlstm-forward": _compare("convlstm", 0.0, forward=True),
    "convlstm-forward-bf16": _compare("convlstm", 1.9, forward=True, bf16=True),
    "options": _options,
    "memory": _memory,
}
