"""What a file of the original holds, by its name and the first bytes, before anything of it is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from stcore.errors import UserError
from stcore.readers.limits import shown

Kind = Literal["rows", "samples", "prompts", "diffusion", "node"]

_NAMES: tuple[tuple[str, Kind], ...] = (
    (r"ModelParams_.*\.npy", "rows"),
    (r"sample(Res|Seq)_.*\.npy", "samples"),
    (r".*Emb\.npy", "prompts"),
    (r"model-.*\.pt", "diffusion"),
    (r"task4_\d+\.pt", "node"),
)


def kind_of(path: Path) -> Kind:
    """Return what a file of the original holds, or a folder of networks.

    Raises:
        UserError: its name is none that the original gives.

    >>> kind_of(Path("model-80000.pt")), kind_of(Path("trafficTimeEmb.npy"))
    ('diffusion', 'prompts')
    """
    if path.is_dir() and any(path.glob("task4_*.pt")):
        return "node"
    for pattern, kind in _NAMES:
        if re.fullmatch(pattern, path.name):
            return kind
    raise UserError(f"{shown(path)}: no name that the original gives its files; expected ModelParams_*.npy, "
                    "sampleRes_*.npy, *Emb.npy, model-*.pt or task4_*.pt; or say what it is with --kind")  # fmt: skip
