"""Pickled networks of the original (`task4_<i>.pt`), read without the classes that they name and without running them.

A file names classes of the original, of torch and of torch_geometric. None of them is imported or called: each name
stands for a holder that only keeps what it is given, and the tensors are taken out of the holders. Every other name is
refused before anything is read.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gpd.convert.families import city_of
from gpd.models.original import NodeState, convert_node_state
from gpd.models.spec import build_node_model, to_rows
from gpd.rows import RowTable
from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.limits import one_line, short, shown

NETWORKS = ("Models.meta_gwn.v_GWN", "Models.meta_stgcn.STGCN_NonBias")
"""Classes of whole networks."""
_PARTS = ("Models.meta_gwn.", "Models.meta_stgcn.", "torch.nn.modules.", "torch_geometric.")
"""Beginnings of names that a network may be made of."""
_FILE = re.compile(r"task4_(\d+)\.pt")
_DEEPEST = 20
_BROKEN = (
    pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
    IndexError, AssertionError, struct.error,
)  # fmt: skip
"""How a file that is broken, or no pickle at all, fails in torch's reader."""


class Holder:
    """Keeps what a pickled object consisted of; can do nothing."""

    name = ""

    def __init__(self, *given: object) -> None:
        self.held: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.held = dict(cast("Mapping[str, Any]", state)) if isinstance(state, Mapping) else {}


def read_networks(path: Path, *, city: str = "", history: int = 12, layers: int = 2) -> RowTable:
    """Read the networks of a city: a folder with `task4_<i>.pt` for each node i, or a single file.

    Args:
        path: folder or file.
        city: its name; empty goes by the number of nodes.
        history: steps that a v_GWN reads, which its shapes do not tell.
        layers: layers of a block of v_GWN, which they do not tell either.

    Raises:
        UserError: a file is missing or holds anything but a network, or networks differ.
    """
    files = _files(path)
    found = [convert_network(file, history=history, layers=layers) for file in files.values()]
    first = found[0]
    for file, each in zip(files.values(), found, strict=True):
        if (each.model, each.features) != (first.model, first.features):
            raise UserError(f"{shown(file)}: {each.model.kind} of other sizes than {files[min(files)].name}; expected "
                            "networks of one kind")  # fmt: skip
    stacked = {name: torch.stack([each.state[name] for each in found]) for name in first.state}
    network = build_node_model(first.model, first.features)
    name = city or (path.stem if path.is_file() else city_of(len(found), "", shown(path)))
    return RowTable(
        rows=to_rows(stacked, network.spec), model=first.model, features=first.features, cities=(name,) * len(found),
        nodes=tuple(map(str, files)), states={key: stacked[key] for key in network.states},
        metadata={"imported_from": path.name},
    )  # fmt: skip


def _files(path: Path) -> dict[int, Path]:
    """Return the files by the number of their node, in the order of these."""
    if not path.is_dir():
        limits.require_file(path, "a network")
        match = _FILE.fullmatch(path.name)
        return {int(match[1]) if match else 0: path}
    found = {int(match[1]): entry for entry in path.iterdir() if (match := _FILE.fullmatch(entry.name))}
    if not found:
        raise UserError(f"{shown(path)}: no task4_<i>.pt inside; expected one for each node")
    missing = sorted(set(range(max(found) + 1)) - set(found))
    if missing:
        raise UserError(f"{shown(path)}: no task4_{missing[0]}.pt ({len(missing)} missing up to {max(found)}); "
                        "expected one for each node")  # fmt: skip
    return dict(sorted(found.items()))


def convert_network(path: Path, *, history: int = 12, layers: int = 2) -> NodeState:
    """Read one network and bring it under our names.

    Raises:
        UserError: it is no network of the original.
    """
    try:
        return convert_node_state(read_network(path), history=history, layers=layers)
    except UserError as error:
        raise UserError(f"{shown(path)}: {str(error).removeprefix(f'{shown(path)}: ')}") from error


def read_network(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled network by their names, parameters in the order of registration.

    Raises:
        UserError: the file names anything but parts of a network, or is broken.
    """
    limits.require_file(path, "a network")
    holders = [(_holder(name), name) for name in _names_in(path)]
    try:
        with torch.serialization.safe_globals(cast("list[Any]", holders)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise UserError(f"{shown(path)}: cannot be read as a network ({one_line(error)}); expected a whole file of "
                        "torch.save; nothing in it was run") from error  # fmt: skip
    if not isinstance(content, Holder) or content.name not in NETWORKS:
        kind = content.name if isinstance(content, Holder) else type(content).__name__
        raise UserError(f"{shown(path)}: holds a {short(kind)}; expected one of {', '.join(NETWORKS)}")
    return dict(_tensors(content, "", 0))


def _names_in(path: Path) -> Sequence[str]:
    """Return the names that a file asks for beyond torch's own plain ones, all of which are parts of networks."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except _BROKEN as error:
        raise UserError(
            f"{shown(path)}: no file of torch.save ({one_line(error)}); expected a pickled network"
        ) from error
    for name in sorted(names):
        if not name.startswith(_PARTS):
            raise UserError(f"{shown(path)}: asks for {short(name)}; expected {' or '.join(NETWORKS)} and layers of "
                            "torch; nothing in it was run")  # fmt: skip
    return names


def _holder(name: str) -> type[Holder]:
    return type("Holder", (Holder,), {"name": name})


def _tensors(holder: Holder, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers of a module that was, then those of its parts."""
    if depth > _DEEPEST:
        raise UserError(f"{prefix}: more than {_DEEPEST} layers within layers; expected a network")
    for place in ("_parameters", "_buffers"):
        for name, value in _items(holder, place):
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value.detach()
    for name, part in _items(holder, "_modules"):
        if isinstance(part, Holder):
            yield from _tensors(part, f"{prefix}{name}.", depth + 1)


def _items(holder: Holder, place: str) -> list[tuple[str, Any]]:
    found = holder.held.get(place)
    return list(cast("Mapping[str, Any]", found).items()) if isinstance(found, Mapping) else []
