"""Let timm be imported beside a CPU-only torch.

timm imports torchvision for image transforms that nothing here uses. The torchvision of the package index is linked
against CUDA: beside a CPU-only torch its compiled part does not load, and its import then fails where it describes
two operators that this part would have defined. Naming these operators is enough.
"""

from __future__ import annotations

import importlib
from functools import cache

import torch

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def prepare_timm() -> torch.library.Library | None:
    """Name torchvision's operators if it cannot be imported without; call it before importing timm.

    Returns:
        What keeps the names alive (the cache holds it); None where nothing had to be done.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(name + SIGNATURE)
    importlib.import_module("torchvision")
    return library
