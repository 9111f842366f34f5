"""Turn nested state (optimisers, schedules, counters) into named tensors and JSON, and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

_TENSOR, _ITEMS, _TUPLE, _FLOAT = "__tensor__", "__items__", "__tuple__", "__float__"


def pack(tree: object, prefix: str) -> tuple[dict[str, Tensor], Any]:
    """Split `tree` into tensors, named by their path under `prefix`, and a JSON-like skeleton that refers to them.

    Dicts with any hashable plain keys, lists, tuples, numbers (infinities too), strings, None and tensors are
    allowed, and come back from `unpack` with the same types.

    Raises:
        TypeError: the tree holds something else, which no file of ours may carry.
    """
    tensors: dict[str, Tensor] = {}

    def visit(node: object, path: str) -> Any:
        if isinstance(node, Tensor):
            tensors[path] = node
            return {_TENSOR: path}
        if isinstance(node, Mapping):
            items = cast("Mapping[object, object]", node).items()
            return {_ITEMS: [[visit(key, f"{path}/key"), visit(value, f"{path}/{key}")] for key, value in items]}
        if isinstance(node, (list, tuple)):
            values = [visit(value, f"{path}/{i}") for i, value in enumerate(cast("list[object]", node))]
            return {_TUPLE: values} if isinstance(node, tuple) else values
        if isinstance(node, float) and not math.isfinite(node):
            return {_FLOAT: repr(node)}
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise TypeError(f"{path}: state of type {type(node).__name__} cannot be kept in a checkpoint")

    return tensors, visit(tree, prefix)


def unpack(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild the tree that `pack` split."""
    if isinstance(skeleton, list):
        return [unpack(value, tensors) for value in cast("list[Any]", skeleton)]
    if not isinstance(skeleton, dict):
        return skeleton
    (kind, value), *_ = cast("dict[str, Any]", skeleton).items()
    if kind == _TENSOR:
        return tensors[value]
    if kind == _TUPLE:
        return tuple(unpack(entry, tensors) for entry in value)
    if kind == _FLOAT:
        return float(value)
    return {unpack(key, tensors): unpack(entry, tensors) for key, entry in value}
