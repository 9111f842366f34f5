"""Node models that a run takes over instead of training them: those of another run, or rows from a file.

A run hands over the cities that it has trained in the same way; others are trained. A table of rows, such as
`gpd convert` makes of the original's files, is taken at its word: its rows are those of the cities it names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpd.config import RunConfig
from gpd.data import chosen_nodes
from gpd.models.spec import input_features
from gpd.records import NAME, Record, digest_of
from gpd.rows import RowTable
from gpd.stage_files import ROWS, told, write_config
from stcore.cli import run_of
from stcore.errors import UserError
from stcore.graphs import GraphSeries
from stcore.training.run import Run


@dataclass(frozen=True, eq=False, kw_only=True)
class NodeModels:
    """The node models of one city."""

    city: str
    files: Path | None = None
    """Folder of another run that has them."""
    table: RowTable | None = None
    """The rows, where they came from a file; with the two that follow."""
    record: Record | None = None
    config: RunConfig | None = None

    def write(self, folder: Path) -> None:
        """Write them where a run looks for them.

        Raises:
            UserError: the disk refuses.
        """
        with told(folder):
            folder.mkdir(parents=True)
            if self.files is not None:
                for name in (ROWS, "config.toml", NAME):
                    shutil.copyfile(self.files / name, folder / name)
        if self.table is not None and self.record is not None and self.config is not None:
            self.table.write(folder / ROWS)
            write_config(self.config, folder)
            self.record.write(folder)


def models_to_take(
    source: Path, cities: Sequence[GraphSeries], config: RunConfig, records: Mapping[str, Record]
) -> list[NodeModels]:
    """Return what there is of some cities in a run, one of its checkpoints, or a table of rows.

    Args:
        source: the run, checkpoint or table.
        cities: the source cities.
        config: of the run that takes them over.
        records: what the models of each city would be made from, by its name.

    Raises:
        UserError: there is no such run; or rows of none of the cities, of other networks, or of fewer or more nodes.
    """
    if source.is_file() and source.parent.name != "checkpoints":
        return _of_table(source, cities, config, records)
    folders = {city.name: Run.reopen(run_of(source)).folder / "pretrain" / city.name for city in cities}
    done = {name: Record.read(folder) for name, folder in folders.items()}
    return [NodeModels(city=name, files=folders[name]) for name, record in done.items()
            if record is not None and not record.changes(records[name])]  # fmt: skip


def _of_table(
    path: Path, cities: Sequence[GraphSeries], config: RunConfig, records: Mapping[str, Record]
) -> list[NodeModels]:
    table = RowTable.read(path)
    known = [city for city in cities if city.name in table.cities]
    if not known:
        there, wanted = ", ".join(dict.fromkeys(table.cities)), ", ".join(city.name for city in cities)
        raise UserError(f"{path}: rows of {there}; expected some of {wanted}; name the files of the cities so")
    if replace(table.model, row=config.model.row) != config.model:
        raise UserError(f"{path}: rows of {table.model.kind} of {table.rows.shape[1]:,} numbers; expected those of the "
                        f"configuration, {config.model.kind}; pass --preset or --model options")  # fmt: skip
    table = table.in_layout(config.model.row)
    facts, models = {"rows": digest_of(path), "file": path.name}, list[NodeModels]()
    for city in known:
        rows = _named(table.of(city.name), city, config, path)
        models.append(NodeModels(city=city.name, table=rows, record=replace(records[city.name], facts=facts),
                                 config=config))  # fmt: skip
    return models


def _named(rows: RowTable, city: GraphSeries, config: RunConfig, path: Path) -> RowTable:
    """Return the rows of a city under the names of its nodes, whose order they have."""
    wanted = input_features(config.model, city.num_channels)
    if rows.features != wanted:
        raise UserError(f"{path}: networks of {rows.features} channels; expected {wanted}, as {city.name} has them; "
                        "choose with --data.features")  # fmt: skip
    if len(rows) != city.num_nodes:
        raise UserError(f"{path}: {len(rows)} rows of {city.name}; expected {city.num_nodes}, one for each node")
    chosen = chosen_nodes(city, config.data.nodes)
    rows = replace(rows, nodes=city.nodes)
    return rows if chosen is None else rows.take(chosen)
