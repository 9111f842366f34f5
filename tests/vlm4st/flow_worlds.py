"""Small flows for tests: windows as a file of UniST has them, in every form of timestamps, and series of frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.generate.crowd_flow import CrowdFlow
from stcore.grids import GridSeries

FRAMES = 12
"""Of a window."""
PARTS = ("train", "val", "test")
Form = Literal["text", "index", "pair"]


def flows(frames: int, *, height: int = 4, width: int = 6, seed: int = 0, step_minutes: int = 30) -> GridSeries:
    """Counts of people, half an hour a frame unless told otherwise, from a Monday on."""
    return CrowdFlow(height=height, width=width, step_minutes=step_minutes).series(frames, seed=seed)


def stamps(times: NDArray[np.datetime64], form: Form) -> list[Any]:
    """What a file says of moments."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    if form == "text":
        return [str(time).replace("T", " ") for time in times.astype("datetime64[s]")]
    slot = seconds % 86_400 // 1_800
    weekday = (seconds // 86_400 + 3) % 7
    if form == "pair":
        return np.stack([weekday, slot], axis=-1).tolist()
    return ((weekday - 2) % 7 * 48 + slot).tolist()  # number 0 is a Wednesday


def unist_tree(series: GridSeries, *, form: Form = "pair", windows: Sequence[int] = (20, 5, 6)) -> dict[str, Any]:
    """Windows of a series, one behind the other, as the nested lists of a file."""
    assert series.times is not None
    tree: dict[str, Any] = {"timestamps": {}}
    start = 0
    for part, count in zip(PARTS, windows, strict=True):
        rows = start + np.arange(count)[:, None] + np.arange(FRAMES)
        values = series.frames(rows.reshape(-1)).reshape(count, FRAMES, series.height, series.width)
        tree[f"X_{part}"] = [values.tolist(), []]
        tree["timestamps"][part] = [stamps(series.times[row], form) for row in rows]
        start += count
    return tree


def write_unist(path: Path, tree: Mapping[str, Any] | None = None, **how: Any) -> Path:
    """Write a file of UniST; without a tree, of flows of four days."""
    path.write_text(json.dumps(unist_tree(flows(200), **how) if tree is None else tree), encoding="utf-8")
    return path
