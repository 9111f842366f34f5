"""The lines of Python in the README work, on a miniature."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_runs import SIZES, flow_file
from flow_worlds import flows

from stcore.cli import parse
from vlm4st.cli import PROGRAM
from vlm4st.options import TrainOptions

README = Path(__file__).parents[3] / "packages/vlm4st/README.md"


def test_five_lines_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    flow_file(tmp_path, "bikes.npz")
    import vlm4st.presets

    options: TrainOptions = parse(PROGRAM.commands["train"], ["--preset", "tiny", *SIZES], prog="train")
    miniature = replace(options.settings, fit=replace(options.settings.fit, max_steps=1))
    monkeypatch.setitem(vlm4st.presets.PRESETS, "small", miniature)
    past = flows(6)
    assert past.times is not None
    names: dict[str, Any] = {"frames": past.frames(range(6))[:, 0], "moments": past.times}
    exec(code, names)
    assert names["forecast"].shape == (6, 4, 6)
    assert np.isfinite(names["forecast"]).all()
