"""What the server of warm processes imports before it forks them: starting torch costs more than a miniature run."""

from __future__ import annotations

import importlib

import accelerate  # noqa: F401
import torch._dynamo  # noqa: F401  optimisers import it when they are made
from faults import PACKAGES

for package in PACKAGES.values():
    for module in (package.module, *package.warm):
        importlib.import_module(module)
