"""torch_geometric, imported only where a prompt needs it: that takes seconds."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any


@cache
def geometric_nn() -> Any:
    """Return `torch_geometric.nn`; what its import says about deprecated parts of torch concerns its authors."""
    with warnings.catch_warnings(action="ignore"):
        return importlib.import_module("torch_geometric.nn")
