"""Read a checkpoint of the original in a process of its own: `checkpoint_child.py SOURCE TARGET MEMORY`.

`torch.load(weights_only=True)` under a limit of memory; the tensors go to TARGET as safetensors, what is wrong goes
to stdout as one line (exit code 3). Nothing found in the file is imported or called.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

REFUSED = 3


def _tensors(found: object) -> dict[str, Tensor]:
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}; expected a dict of parameters")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"entry {str(name)[:60]!r} is a {type(value).__name__}; expected a dict of parameters")
    if not found:
        raise ValueError("no parameters; expected a dict of parameters")
    return {name: value.detach().clone().contiguous() for name, value in found.items()}


def main(source: str, target: str, memory: str) -> int:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(memory), used + int(memory)))
    try:
        save_file(_tensors(torch.load(source, map_location="cpu", weights_only=True)), target)
    except Exception as error:  # whatever a broken or hostile file provokes here is the file's fault
        lines = str(error).splitlines() or [type(error).__name__]
        reason = lines[0] if isinstance(error, ValueError) else f"not a checkpoint of tensors ({lines[0][:120]})"
        print(reason)  # noqa: T201
        return REFUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
