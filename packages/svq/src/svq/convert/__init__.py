"""Weights of the original implementations under our names, and back."""

from __future__ import annotations

from svq.convert.original import Converted, load_into, plain_state, to_original, to_ours
from svq.convert.sizes import Sizes, read_sizes

__all__ = ["Converted", "Sizes", "load_into", "plain_state", "read_sizes", "to_original", "to_ours"]
