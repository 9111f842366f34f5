"""Trace a small model into one graph, and say so when the graph computes the same.

No compiler of machine code is needed, which is not everywhere; a break of the graph would be an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from vlm4st_models import MINI, batch, made


def main() -> None:
    """Trace the model."""
    x, stamps, _ = batch()
    model = made(MINI)
    graph = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(graph(x, stamps), model(x, stamps), atol=1e-6, rtol=1e-5)
    sys.stdout.write("the same\n")


if __name__ == "__main__":
    main()
