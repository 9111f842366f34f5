"""One of several processes that train the networks of a small city together; started by a test.

Arguments: folder. The first process writes the table of each model; each writes what its networks are to `<rank>.pt`.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from node_worlds import MODELS, SHORT, city, name_of

from gpd.pretrain import pretrain

_TRAINING = replace(SHORT, batch=64)
CASES = {
    **{name_of(model): (model, _TRAINING) for model in (MODELS[0], MODELS[1], MODELS[4])},
    "shared": (
        replace(MODELS[4], linear=True, unevenness=True),
        replace(_TRAINING, shared_epochs=1, choose="together", loss="mae"),
    ),
}
"""Models and how they are trained."""


def main(folder: Path) -> None:
    """Train each model on all processes."""
    found = {}
    for name, (model, training) in CASES.items():
        table = pretrain(city(), model, training, run=folder / name, device="cpu", quiet=True)
        found[name] = {"rows": table.rows, "best": torch.tensor(table.metadata["best_epoch"]), **table.states}
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
