"""One of several processes that train a small SimVP on their part of a batch; started by a test.

Arguments: folder, rank, number of processes, kind of quantiser. Writes losses, gradients (means over the processes) and
buffers to `<kind>-<rank>.pt`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.configs import Kind

SIZES = {"codebook_size": 16, "quantizers": 3, "heads": 2, "head_dim": 4}


def step(kind: Kind, rank: int, ranks: int) -> dict[str, Tensor]:
    """Do a forward and a backward pass on a share of a batch of four."""
    torch.manual_seed(0)
    sizes = SimVPConfig(hid_spatial=8, hid_temporal=16, depth_spatial=2, depth_temporal=2, mlp_ratio=2.0)
    model = build(sizes, QuantizerConfig(kind=kind, **SIZES), FrameShape(1, 8, 8), 2)
    frames = torch.rand(4, 4, 1, 8, 8).chunk(ranks)[rank]
    future, auxiliary = model.loss_terms(frames[:, :2])
    loss = F.mse_loss(future, frames[:, 2:]) + auxiliary
    loss.backward()
    found = {"loss": loss.detach()} | {name: value.grad for name, value in model.named_parameters()
                                       if value.grad is not None}  # fmt: skip
    if ranks > 1:
        for value in found.values():
            distributed.all_reduce(value)
            value /= ranks
    return found | {name: value.double() for name, value in model.state_dict().items() if name not in found}


def main(folder: Path, rank: int, ranks: int, kinds: list[str]) -> None:
    """Do a step with each kind of quantiser."""
    os.environ["WORLD_SIZE"] = str(ranks)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    for kind in kinds:
        torch.save(step(kind, rank, ranks), folder / f"{kind}-{rank}.pt")  # pyright: ignore[reportArgumentType]
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
