"""One of several processes that normalise their part of a batch; started by the test of batch normalisation.

Arguments: folder, rank, number of processes. Reads `in.pt` there, writes `<case>-<rank>.pt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, distributed

from stcore.training.batch_norm import BatchNorm2d

MOMENTA = {"moving": 0.1, "cumulative": None}


def normalise(
    x: Tensor, cotangent: Tensor, state: dict[str, Tensor], momentum: float | None
) -> dict[str, Tensor | dict[str, Tensor]]:
    """Go forward and backward in training, forward in half precision, then forward in evaluation."""
    norm = BatchNorm2d(x.shape[1], momentum=momentum)  # pyright: ignore[reportArgumentType]
    norm.load_state_dict(state)
    x.requires_grad_()
    y = norm(x)
    (y * cotangent).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        half = norm(x.detach().bfloat16())
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    found = {"y": y.detach(), "half": half.detach(), "state": norm.state_dict(), "x": x.grad,
             "weight": norm.weight.grad, "bias": norm.bias.grad}  # fmt: skip
    return found | {"later": norm.eval()(x.detach()).detach()}


def main(folder: Path, rank: int, ranks: int) -> None:
    """Do every case."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    given = torch.load(folder / "in.pt", weights_only=True)
    # Parts of different sizes: the statistics have to be weighed by them.
    cut = len(given["x"]) // 3
    own = slice(0, cut) if rank == 0 else slice(cut, None)
    for case, momentum in MOMENTA.items():
        found = normalise(given["x"][own].clone(), given["cotangent"][own], given["state"], momentum)
        torch.save(found, folder / f"{case}-{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
