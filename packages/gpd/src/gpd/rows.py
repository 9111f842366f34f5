"""The table of parameter rows: one network per row, with what is needed to use it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpd.models.configs import NodeModelConfig, RowLayout
from gpd.models.spec import NodeModel, Spec, build_node_model, from_rows, row_size, spec_digest, to_rows
from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from stcore.training.checkpoint import load_checkpoint, save_checkpoint

KIND = "gpd-rows"


@dataclass(frozen=True, eq=False, kw_only=True)
class RowTable:
    """Networks of one kind as rows of numbers, one per node, nodes of a city one after the other.

    >>> table = RowTable(rows=torch.zeros(2, 16960), model=NodeModelConfig(), features=2, cities=("a", "b"),
    ...                  nodes=("0", "0"))
    >>> len(table), table.without("a").cities, table.of("c").rows.shape[0]
    (2, ('b',), 0)
    """

    rows: Float[Tensor, "node number"]
    """Parameters of each network, in the order of `spec`."""
    model: NodeModelConfig
    """Kind and sizes of the networks."""
    features: int
    """Channels that the networks read, added ones included."""
    cities: tuple[str, ...]
    """City of each row."""
    nodes: tuple[str, ...]
    """Name of each row's node in its city."""
    mean: Float[Tensor, "node feature"] | None = None
    """Mean of each node's ego graph by channel: what its inputs are scaled with, and in channel 0 its forecasts."""
    std: Float[Tensor, "node feature"] | None = None
    """Standard deviation of each node's ego graph by channel."""
    averages: Float[Tensor, "node slot"] | None = None
    """Average of each node by time of day, where forecasts are deviations from it."""
    states: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Running statistics by name, the nodes as first axis, where networks have any and rows hold none."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the table was made from and how; plain values fit for JSON."""

    def __post_init__(self) -> None:
        count = len(self.rows)
        for name, found in (("cities", len(self.cities)), ("nodes", len(self.nodes))):
            if found != count:
                raise UserError(f"rows: {found} {name} for {count} rows; expected one for each")
        if self.rows.shape[1] != row_size(self.spec):
            raise UserError(f"rows: {self.rows.shape[1]:,} numbers each; expected {row_size(self.spec):,} for "
                            f"{self.model.kind} with {self.features} channels, layout {self.model.row}")  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def network(self) -> NodeModel:
        """The model whose parameters the rows are."""
        return build_node_model(self.model, self.features)

    @property
    def spec(self) -> Spec:
        """Order, shapes and groups of the numbers of a row."""
        return self.network.spec

    def params(self) -> dict[str, Tensor]:
        """Return parameters and states stacked over the rows; unknown states are those of an untrained net."""
        fresh = self.network.init(torch.Generator().manual_seed(0), 1)
        found = from_rows(self.rows, self.spec) | dict(self.states)
        lost = {name: fresh[name].expand(len(self), *shape).clone() for name, shape in self.network.states.items()
                if name not in found}  # fmt: skip
        return found | lost

    def take(self, index: Sequence[int]) -> RowTable:
        """Return the rows `index`, in that order."""
        chosen = torch.as_tensor(list(index), dtype=torch.int64)

        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[chosen]

        return replace(
            self,
            rows=self.rows[chosen],
            cities=tuple(self.cities[row] for row in index),
            nodes=tuple(self.nodes[row] for row in index),
            mean=part(self.mean),
            std=part(self.std),
            averages=part(self.averages),
            states={name: tensor[chosen] for name, tensor in self.states.items()},
        )

    def of(self, city: str) -> RowTable:
        """Return the rows of one city."""
        return self.take([row for row, name in enumerate(self.cities) if name == city])

    def without(self, city: str) -> RowTable:
        """Return the rows of all other cities."""
        return self.take([row for row, name in enumerate(self.cities) if name != city])

    def with_rows(self, rows: Float[Tensor, "node number"], **facts: Any) -> RowTable:
        """Return the same nodes, scaled the same way, with other networks."""
        return replace(self, rows=rows.float(), states={}, metadata={**self.metadata, **facts})

    def in_layout(self, layout: RowLayout) -> RowTable:
        """Return the same networks with rows of another layout; numbers that are never used become zeros."""
        model = replace(self.model, row=layout)
        spec = build_node_model(model, self.features).spec
        return replace(self, rows=to_rows(self.params(), spec), model=model)

    @classmethod
    def concat(cls, tables: Sequence[RowTable]) -> RowTable:
        """Return the rows of several tables one below the other; averages stay only where all days have equal steps.

        Raises:
            UserError: there is none, or they are of different networks.
        """
        if not tables:
            raise UserError("rows: no table to join; expected one or more")
        first = tables[0]
        for table in tables[1:]:
            if spec_digest(table.spec) != spec_digest(first.spec):
                found = f"{table.model.kind} of {row_size(table.spec):,} numbers beside {first.model.kind}"
                raise UserError(f"rows: {found} of {row_size(first.spec):,}; expected networks of one kind")
        names = set(first.states).intersection(*(table.states for table in tables))
        return replace(
            first,
            rows=torch.cat([table.rows for table in tables]),
            cities=tuple(city for table in tables for city in table.cities),
            nodes=tuple(node for table in tables for node in table.nodes),
            mean=_joined([table.mean for table in tables]),
            std=_joined([table.std for table in tables]),
            averages=_joined([table.averages for table in tables]),
            states={name: torch.cat([table.states[name] for table in tables]) for name in sorted(names)},
            metadata={"joined": [dict(table.metadata) for table in tables]},
        )

    def write(self, path: Path) -> None:
        """Write the table to a safetensors file with digests.

        Raises:
            UserError: the disk refuses.
        """
        optional = {"mean": self.mean, "std": self.std, "averages": self.averages}
        tensors = {"rows": self.rows} | {name: value for name, value in optional.items() if value is not None}
        tensors |= {f"states/{name}": value for name, value in self.states.items()}
        facts = {"kind": KIND, "package": "gpd", "version": version("gpd"), "model": to_plain(self.model),
                 "features": self.features, "cities": list(self.cities), "nodes": list(self.nodes),
                 "spec": spec_digest(self.spec), "metadata": dict(self.metadata)}  # fmt: skip
        save_checkpoint(path, tensors, facts)

    @classmethod
    def read(cls, path: Path) -> RowTable:
        """Read what `write` wrote.

        Raises:
            UserError: no such file, damaged, or something else.
        """
        checkpoint = load_checkpoint(path)
        facts = checkpoint.metadata
        if facts.get("kind") != KIND:
            raise UserError(f"{path}: {facts.get('kind', 'a checkpoint of a run')!r}; expected a table of rows, as "
                            "gpd pretrain writes them")  # fmt: skip
        model = from_plain(NodeModelConfig, facts["model"], where=str(path))
        table = cls(
            rows=checkpoint.tensors["rows"],
            model=model,
            features=facts["features"],
            cities=tuple(facts["cities"]),
            nodes=tuple(facts["nodes"]),
            mean=checkpoint.tensors.get("mean"),
            std=checkpoint.tensors.get("std"),
            averages=checkpoint.tensors.get("averages"),
            states=checkpoint.part("states"),
            metadata=facts["metadata"],
        )
        if spec_digest(table.spec) != facts["spec"]:
            raise UserError(f"{path}: rows in the order of gpd {facts['version']}, which differs from this version's; "
                            "read it with the version it is from")  # fmt: skip
        return table


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.shape[1] for part in known}) > 1:
        return None
    return torch.cat(known)
