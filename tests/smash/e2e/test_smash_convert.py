"""Files of the original through `smash convert`, as its users have them on disk."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
import recordings
import torch

from smash.cli import main
from smash.model import Batch
from smash.predict import Forecaster
from stcore.events import EventSequences


def _training_data(recording: recordings.Recording, folder: Path) -> Path:
    """Write events whose extremes are the constants of the recording, so that their scaling is the recorded one."""
    low, high = recording.meta["MIN"], recording.meta["MAX"]
    shift = 1 if recording.marked else 0
    gaps = np.exp([low[1], high[1], 0.0]) if recording.meta["log_normalization"] else np.array([low[1], high[1], 1.0])
    location = np.array([low[2 + shift :], high[2 + shift :], low[2 + shift :]])
    kinds = recording.meta["num_types"]
    sequences = max(3, kinds)
    events = EventSequences(
        time=np.tile(np.cumsum(gaps), sequences),
        location=np.tile(location, (sequences, 1)),
        offsets=np.arange(sequences + 1) * 3,
        mark=np.arange(3 * sequences) % kinds if recording.marked else None,
        mark_names=tuple(map(str, range(kinds))) if recording.marked else (),
        coordinates="degrees",
    )
    events.write(folder / "events.parquet")
    return folder / "events.parquet"


@pytest.mark.parametrize("name", recordings.names("enc/cond", "flat/cond"))
def test_checkpoint_becomes_a_run_with_the_recorded_conditions(name: str, tmp_path: Path) -> None:
    recording = recordings.open_recording(name)
    torch.save(dict(recording.parameters), tmp_path / "model_best.pkl")
    data = _training_data(recording, tmp_path)
    heads = recording.meta["n_head"]
    arguments = ["convert", str(tmp_path / "model_best.pkl"), "--out", str(tmp_path / "run"), "--data", str(data)]
    assert main([*arguments, "--heads", str(heads)]) == 0
    forecaster = Forecaster.load(tmp_path / "run", device="cpu")
    lengths = recording.input("data/length")
    location = torch.stack([recording.input("batch/lng"), recording.input("batch/lat")], dim=-1)
    mark = (recording.input("batch/mark").long() - 1).clamp_min(0) if recording.marked else None
    batch = Batch(recording.input("batch/time"), recording.input("batch/dt"), location, mark, lengths)
    with torch.no_grad():
        targets = forecaster.model.targets(batch)
    wanted = recording.expect("flat/cond")[:, 0]
    torch.testing.assert_close(targets.condition, wanted, rtol=0.0, atol=1e-5)
    low, high = recording.meta["MIN"], recording.meta["MAX"]
    np.testing.assert_allclose(forecaster.features.scaler.low[0], low[1], rtol=1e-12)
    np.testing.assert_allclose(forecaster.features.scaler.high[1:], high[-2:], rtol=1e-12)


def test_original_data_becomes_a_table(tmp_path: Path) -> None:
    sequences = [[[0.0, 1.0, 3.5, 4.5], [1.5, 0.0, 3.0, 4.0]], [[0.25, 1.0, 2.0, 2.5]]]
    (tmp_path / "data_test.pkl").write_bytes(pickle.dumps(sequences))
    assert main(["convert", str(tmp_path / "data_test.pkl"), "--out", str(tmp_path / "events.csv")]) == 0
    events = EventSequences.read(tmp_path / "events.csv")
    assert events.lengths.tolist() == [2, 1]
    assert events.location.tolist() == [[3.5, 4.5], [3.0, 4.0], [2.0, 2.5]]
    assert events.mark is not None and [events.mark_names[i] for i in events.mark] == ["1", "0", "1"]


def test_original_samples_become_a_table_in_physical_units(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    training = _three_sequences(random)
    training.write(tmp_path / "events.csv")
    samples = torch.rand(4, 5, 3)
    truth = torch.tensor([[0.5, 1.0, 2.0]] * 4)
    with (tmp_path / "test_x.pkl").open("wb") as file:
        pickle.dump([[[(samples, None), (samples, None)]], [truth]], file)
    arguments = ["convert", str(tmp_path / "test_x.pkl"), "--out", str(tmp_path / "samples.csv")]
    assert main([*arguments, "--data", str(tmp_path / "events.csv")]) == 0
    with (tmp_path / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 10
    span = training.location[:, 0].max() - training.location[:, 0].min()
    expected = float(samples[0, 0, 1]) * span + training.location[:, 0].min()
    assert float(rows[0]["x"]) == pytest.approx(expected, rel=1e-5)
    assert {row["true_gap"] for row in rows} == {"0.5"}


def _three_sequences(random: np.random.Generator) -> EventSequences:
    time = np.concatenate([np.cumsum(random.exponential(1.0, 10)) for _ in range(3)])
    return EventSequences(time=time, location=random.uniform(0.0, 9.0, (30, 2)), offsets=[0, 10, 20, 30])


@pytest.mark.parametrize("content", [b"not a pickle", b"", b"\x80\x04N."])
def test_other_files_are_refused_in_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pkl").write_bytes(content)
    assert main(["convert", str(tmp_path / "model.pkl"), "--out", str(tmp_path / "out.csv")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "model.pkl" in error
    assert not (tmp_path / "out.csv").exists()
