"""The method in one line, with cities in memory: what is kept, what can be opened again, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gpd_worlds import SMALL, cities, city

from gpd import GPD, Forecaster
from stcore.errors import UserError


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> GPD:
    sources, _ = cities()
    return GPD.fit(sources, config=SMALL, run=tmp_path_factory.mktemp("gpd") / "run", device="cpu", quiet=True)


def test_cities_in_memory_are_kept_with_the_run(fitted: GPD):
    target = cities()[1]
    found = fitted.generate(target, days=3)
    tuned = found.finetune(days=3)
    assert {path.name for path in (fitted.run / "cities").iterdir()} == {"ash.npz", "birch.npz", "cedar.npz"}
    again = GPD.load(fitted.run, device="cpu", quiet=True).generate()
    assert torch.equal(again.table.rows, found.table.rows)
    assert torch.equal(again.finetune().table.rows, tuned.table.rows)
    assert not torch.equal(tuned.table.rows, found.table.rows)
    forecast = tuned.predict()
    same = Forecaster.load(fitted.run, device="cpu").predict(target)
    np.testing.assert_allclose(forecast.values, same.values, rtol=1e-5)
    assert forecast.nodes == target.nodes


def test_other_days_than_those_of_the_generation_are_refused(fitted: GPD):
    found = fitted.generate(cities()[1], days=3)
    with pytest.raises(UserError, match=r"days: 5; expected 3, as the rows were generated from; pass days=5"):
        found.finetune(days=5)
    with pytest.raises(UserError, match="pass --redo"):
        fitted.generate(cities()[1], days=2)


def test_names_that_can_be_no_files_and_mixed_sources_are_refused(tmp_path: Path):
    sources, _ = cities()
    with pytest.raises(UserError, match="series beside names of files"):
        GPD.fit([sources[0], "birch.npz"], config=SMALL, run=tmp_path / "run")
    with pytest.raises(UserError, match="two cities are called 'ash'"):
        GPD.fit([sources[0], city("ash", seed=4)], config=SMALL, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
