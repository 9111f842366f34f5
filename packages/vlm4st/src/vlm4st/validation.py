"""Errors on the validation parts while training: on the model's scale, and in units on the grid of the data.

The losses of data sets are averaged without weights, as in the original, but each is exact: sums over cells, not means
of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.sampling import Indices, share_of_rank
from stcore.training.ranks import sum_over_ranks
from vlm4st.config import TrainConfig
from vlm4st.data import PartBatches, Source, evaluation_size, part_batches
from vlm4st.data_options import WindowShape
from vlm4st.objective import carried
from vlm4st.watching import Board, Seen

NAMES = ("cells", "squared", "absolute", "native_cells", "native_squared", "native_absolute")


class Validation:
    """Measures a model on the validation parts, all processes together.

    Args:
        sources: the data sets; those whose validation part counts are measured.
        config: the run's.
        board: takes the numbers.
        rates: knows epoch and learning rate, for the board.
        accelerator: knows the processes.
    """

    def __init__(
        self, sources: Sequence[Source], config: TrainConfig, board: Board, rates: Any, accelerator: Any
    ) -> None:
        self._sources = [source for source in sources if judges(source, config, sources)]
        if not self._sources:
            raise UserError("few-shot.select-on: no data set is left to choose the weights on; expected another source")
        self._config, self._board, self._rates = config, board, rates
        self._rank, self._ranks = int(accelerator.process_index), int(accelerator.num_processes)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return loss, mse, mae, real_mae and real_rmse: means over data sets, and those of each where several are."""
        tables: dict[str, dict[str, float]] = {}
        seen: dict[str, Seen] = {}
        for source in self._sources:
            tables[source.name], seen[source.name] = self._measure(model, source)
        means = {
            name: sum(table[name] for table in tables.values()) / len(tables) for name in next(iter(tables.values()))
        }
        values = dict(means)
        if len(tables) > 1:
            values |= {f"{who}/{name}": value for who, table in tables.items() for name, value in table.items()
                       if name.startswith("real_")}  # fmt: skip
        whole = seen if len(seen) > 1 else {"": next(iter(seen.values()))}
        self._board.evaluated(self._rates.epoch, self._rates.rate, values, whole)
        return {f"val/{name}": value for name, value in values.items()}

    def _measure(self, model: nn.Module, source: Source) -> tuple[dict[str, float], Seen]:
        batches = part_batches(source, "val", size=evaluation_batch(self._config, len(self._sources)))
        device = next(model.parameters()).device
        sums: dict[str, Tensor] = {name: torch.zeros((), dtype=torch.float64) for name in NAMES}
        seen = Seen()
        for ids in batches.order(0):
            mine = share_of_rank(ids, rank=self._rank, ranks=self._ranks)
            # A model that is shared among processes works only when all of them do.
            counted = float(len(mine) > 0)
            part = self._batch_sums(model, batches, mine if len(mine) else ids[:1], source, device, seen)
            for name, value in part.items():
                sums[name] = sums[name] + counted * value.double().cpu()
        summed = sum_over_ranks(sums, ranks=self._ranks, device=device)
        return self._table(summed), seen

    def _batch_sums(
        self, model: nn.Module, batches: PartBatches, ids: Indices, source: Source, device: torch.device, seen: Seen
    ) -> dict[str, Tensor]:
        batch = {name: value.to(device) for name, value in batches.load(0, ids).items()}
        inputs = (batch["x"], batch.get("timestamps"), batch["target"], batch.get("mask"))
        made = model(*inputs, watch=self._board.wanted)
        if self._board.wanted:
            seen.add(made.seen)
        native = source.space.to_native(made.forecast.float(), batch["channel"], batches.ahead(ids),
                                        finer=carried(model, batches.finer(ids, source.space)),
                                        clamp=self._config.evaluate.clamp)  # fmt: skip
        error = native.double() - batches.native(ids)[:, -native.shape[1] :].to(native).double()
        counted = error.isfinite()
        error = error.where(counted, 0.0)
        return {"squared": made.sums.squared, "absolute": made.sums.absolute, "cells": made.sums.cells,
                "native_squared": error.square().sum(), "native_absolute": error.abs().sum(),
                "native_cells": counted.sum()}  # fmt: skip

    def _table(self, sums: dict[str, float]) -> dict[str, float]:
        cells, native = max(sums["cells"], 1.0), max(sums["native_cells"], 1.0)
        mse, mae = sums["squared"] / cells, sums["absolute"] / cells
        weights = self._config.loss
        return {"loss": weights.mse_weight * mse + weights.mae_weight * mae, "mse": mse, "mae": mae,
                "real_mae": sums["native_absolute"] / native,
                "real_rmse": (sums["native_squared"] / native) ** 0.5}  # fmt: skip


def judges(source: Source, config: TrainConfig, sources: Sequence[Source]) -> bool:
    """Return whether the validation part of a data set takes part in choosing the weights."""
    if config.few_shot.select_on == "target" or all(other.evaluated for other in sources):
        return source.evaluated
    return not source.evaluated


def evaluation_batch(config: TrainConfig, sources: int) -> int:
    """Return how many samples are forecast at once when nothing is trained."""
    return config.evaluate.batch or evaluation_size(config.data, WindowShape.of(config.model), sources=sources)
