"""An object whose pickle writes a file when it is loaded: the sign that something was executed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass
class Canary:
    """Pickles as a call of `os.system` that writes `path`."""

    path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo sung > '{self.path}'",)
