"""`svq codebook`: how a trained model uses its codes.

For SVQ the code weights w of sampled tokens are computed in chunks, twice: first their moments, then what is counted
against them. The other quantisers choose codes, so theirs are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.files import to_json, write_atomically
from stcore.frame_reports import spread_ids
from stcore.grids import GridSeries
from stcore.sampling import in_batches
from stcore.training.run import Run
from stcore.windows import find_windows
from svq.models.sparse import SVQ, perplexity
from svq.options import CodebookOptions
from svq.predict import Forecaster, series_for

BINS = 60
"""Of the histogram of |w|."""
DECADES = 4
"""Powers of ten below the largest |w| that the histogram covers."""
NEIGHBOURS = 2048
"""Codes that are compared with all others at once."""


@dataclass(frozen=True, kw_only=True)
class CodebookReport:
    """What was found."""

    kind: str
    """Of the quantiser."""
    codes: int
    """Codes there are, of each quantiser where there are several."""
    tokens: int
    """Latent vectors that were looked at."""
    threshold: float = 0.0
    """Standard deviations beyond which a code counts as active."""
    mean: float = 0.0
    """Of all code weights."""
    deviation: float = 0.0
    kurtosis: float = 0.0
    """Fourth moment over the squared variance: 3 for a normal law, larger where few weights are large."""
    active: float = 0.0
    """Active codes of a token, on average."""
    dead: int = 0
    """Codes that are active for no token."""
    perplexity: list[float] = field(default_factory=list[float])
    """Of the shares of codes in all activity, or for each quantiser in all choices."""
    used: list[float] = field(default_factory=list[float])
    """Codes that are active, or chosen, at all, for each quantiser."""
    nearest: list[float] = field(default_factory=list[float])
    """Cosine of a code and its nearest neighbour: 10 %, 50 % and 90 % of codes are below."""
    edges: list[float] = field(default_factory=list[float])
    """Bounds of the histogram of |w|."""
    counts: list[int] = field(default_factory=list[int])
    """Weights in each of its bins."""
    usage: list[float] = field(default_factory=list[float])
    """Share of tokens for which each code is active, most used first."""

    def text(self) -> str:
        """Return what matters for a terminal."""
        head = f"{self.kind}: {self.codes:,} codes, {self.tokens:,} tokens"
        if not self.edges:
            rows = [f"quantiser {at + 1}: {used:,.0f} codes used, perplexity {value:.1f}"
                    for at, (used, value) in enumerate(zip(self.used, self.perplexity, strict=True))]  # fmt: skip
            return "\n".join([head, *rows])
        low, middle, high = self.nearest
        lines = [
            f"weights: mean {self.mean:.4g}, deviation {self.deviation:.4g}, kurtosis {self.kurtosis:.4g}",
            f"active codes a token (beyond {self.threshold:g} deviations): {self.active:.1f}",
            f"codes active for no token: {self.dead:,}; perplexity of activity: {self.perplexity[0]:.1f}",
            f"cosine of a code and its nearest: {low:.3f}, {middle:.3f}, {high:.3f} (10, 50, 90 % of codes below)",
        ]
        return "\n".join([head, *lines])


def examine(
    forecaster: Forecaster, series: GridSeries, *, limit: int = 64, threshold: float = 2.0, chunk: int = 0
) -> CodebookReport:
    """Look at the codes of a model on windows of `series`.

    Args:
        forecaster: the model.
        series: frames.
        limit: windows at most, spread evenly; 0 takes all.
        threshold: standard deviations beyond which a code counts as active.
        chunk: tokens at a time; 0 chooses by the size of the codebook.

    Raises:
        UserError: the model has no codes, or no window fits.
    """
    quantizer = forecaster.model.quantizer
    kind = forecaster.config.quantizer.kind
    if kind in ("none", "control"):
        raise UserError(f"quantizer.kind: {kind}; expected a model with codes")
    if not threshold > 0.0:
        raise UserError(f"--threshold: {threshold:g}; expected more than 0")
    latents = _Latents(forecaster, series, limit)
    with torch.inference_mode():
        if isinstance(quantizer, SVQ):
            return _examine_weights(quantizer, latents, threshold, chunk or None)
        return _examine_choices(quantizer, latents, kind)


class _Latents:
    """What the quantiser is given, batch by batch; may be gone through several times."""

    def __init__(self, forecaster: Forecaster, series: GridSeries, limit: int) -> None:
        self._forecaster = forecaster
        self._windows = find_windows(series, history=forecaster.history, horizon=0)
        self._ids = spread_ids(len(self._windows), limit)

    def __iter__(self) -> Iterator[Tensor]:
        forecaster = self._forecaster
        for some in in_batches(self._ids, forecaster.batch):
            history = torch.from_numpy(self._windows.load(some)[0].copy())
            yield forecaster.model.encode(forecaster.scaled(history, self._windows.times(some)))


def _examine_weights(svq: SVQ, latents: _Latents, threshold: float, chunk: int | None) -> CodebookReport:
    tokens, mean, deviation, kurtosis, largest = _moments(svq, latents, chunk)
    edges = torch.logspace(-DECADES, 0.0, BINS + 1, dtype=torch.float64) * max(largest, 1e-300)
    counts = torch.zeros(BINS, dtype=torch.int64)
    codes = svq.config.codebook_size
    active = torch.zeros(codes, dtype=torch.float64)
    for latent in latents:
        for weights in svq.code_weights(latent, chunk=chunk):
            active += ((weights - mean).abs() > threshold * deviation).sum(0).double().cpu()
            size = weights.abs().double().cpu().clamp(edges[0], edges[-1])
            counts += torch.histogram(size.flatten(), bins=edges)[0].long()
    return CodebookReport(
        kind="svq", codes=codes, tokens=tokens, threshold=threshold, mean=mean, deviation=deviation,
        kurtosis=kurtosis, active=float(active.sum()) / tokens, dead=int((active == 0).sum()),
        perplexity=[perplexity(active)], used=[float((active > 0).sum())], nearest=_neighbours(svq.codebook),
        edges=edges.tolist(), counts=counts.tolist(), usage=(active.sort(descending=True).values / tokens).tolist(),
    )  # fmt: skip


def _moments(svq: SVQ, latents: _Latents, chunk: int | None) -> tuple[int, float, float, float, float]:
    """Return tokens, and mean, deviation, kurtosis and largest size of the code weights.

    Powers are summed about the mean of the first chunk, so that no digits are lost.
    """
    tokens, count, start, largest = 0, 0, None, 0.0
    sums = torch.zeros(4, dtype=torch.float64)
    for latent in latents:
        for weights in svq.code_weights(latent, chunk=chunk):
            wide = weights.double()
            start = wide.mean() if start is None else start
            off = wide - start
            square = off.square()
            sums += torch.stack([off.sum(), square.sum(), (square * off).sum(), square.square().sum()]).cpu()
            largest = max(largest, float(wide.abs().max()))
            tokens, count = tokens + len(weights), count + weights.numel()
    first, second, third, fourth = (sums / count).tolist()
    variance = max(second - first**2, 0.0)
    central = fourth - 4.0 * first * third + 6.0 * first**2 * second - 3.0 * first**4
    kurtosis = central / variance**2 if variance > 0.0 else math.nan
    return tokens, first + float(start or 0.0), math.sqrt(variance), kurtosis, largest


def _neighbours(codebook: Tensor) -> list[float]:
    """Return quantiles of the cosine of a code and its nearest, computed for some codes at a time."""
    unit = torch.nn.functional.normalize(codebook.detach().float())
    best: list[Tensor] = []
    for first in range(0, len(unit), NEIGHBOURS):
        part = unit[first : first + NEIGHBOURS]
        cosine = part @ unit.T
        cosine[torch.arange(len(part)), first + torch.arange(len(part))] = -2.0  # not itself
        best.append(cosine.max(1).values)
    found = torch.cat(best).clamp_min(-1.0).cpu()
    return torch.quantile(found, torch.tensor([0.1, 0.5, 0.9])).tolist()


def _examine_choices(quantizer: Any, latents: _Latents, kind: str) -> CodebookReport:
    from svq.models.comparison import CodeUsage

    usage, tokens = CodeUsage(quantizer), 0
    for latent in latents:
        usage.update(quantizer(latent).indices)
        tokens += latent.shape[0] * latent.shape[2] * latent.shape[3]
    found = usage.compute()
    return CodebookReport(kind=kind, codes=quantizer.codes, tokens=tokens, perplexity=found["perplexity"],
                          used=found["used"], dead=int(quantizer.codes - max(found["used"])))  # fmt: skip


def command(options: CodebookOptions) -> Outcome:
    """Do `svq codebook`."""
    forecaster = Forecaster.load(options.run, device=options.device)
    folder = options.out or run_of(options.run)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    series = series_for(options, forecaster, part=options.part)
    report = examine(forecaster, series, limit=options.limit, threshold=options.threshold, chunk=options.chunk)
    written = [_write(report, folder / f"codebook-{options.part}.json")]
    if options.figures and report.edges:
        from svq.drawing import draw_codebook

        written.append(draw_codebook(report, Run(folder).figures))
    return Outcome("\n".join([report.text(), "", *written]), {**asdict(report), "files": written})


def _write(report: CodebookReport, path: Path) -> str:
    write_atomically(path, [to_json(asdict(report)).encode()])
    return str(path)
