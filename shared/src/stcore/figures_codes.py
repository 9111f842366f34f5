"""How large the weights of codes are, and how often each code is used. The style is that of `stcore.figures`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from stcore.figures import BLUE, GREY, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def code_usage(
    edges: Float[ndarray, "edge"],
    counts: Int[ndarray, "bin"],
    usage: Float[ndarray, "code"],
    *,
    deviation: float,
    kurtosis: float,
) -> Figure:
    """Draw the histogram of the sizes of weights beside the usage of codes.

    Args:
        edges: bounds of the bins of sizes, rising from above 0.
        counts: weights in each bin.
        usage: share of vectors that each code is active for, falling.
        deviation: of the weights, marked in the histogram.
        kurtosis: of the weights, named in the title.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.stairs(counts / max(int(counts.sum()), 1), edges, color=BLUE, fill=True, alpha=0.8)
    left.axvline(deviation, color=GREY, lw=1.0, ls="--")
    left.text(0.02, 0.97, "dashed: one deviation", color=GREY, transform=left.transAxes, va="top", fontsize=8.0)
    left.set(xscale="log", xlabel="size of a code weight", ylabel="share of weights",
             title=f"Code weights (kurtosis {kurtosis:.3g})")  # fmt: skip
    right.plot(np.arange(1, len(usage) + 1), usage, color=ORANGE)
    right.set(xlabel="code, most used first", ylabel="share of tokens it is active for", ylim=(0.0, None),
              title=f"Usage ({int((usage == 0).sum()):,} of {len(usage):,} never active)")  # fmt: skip
    return figure
