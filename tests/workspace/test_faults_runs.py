"""Trainings that are killed, stopped and resumed from the command line end in the very bytes of an undisturbed one."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from campaign import SHARES, count, record
from faults import (
    PACKAGES,
    Fault,
    Inside,
    PackageUnderTest,
    Result,
    inside_a_save,
    only_line,
    outcome,
    read_json_lines,
    run,
    step_of,
)

from stcore.training.checkpoint import load_checkpoint
from stcore.training.run import Run

SLOW = Inside(slow_write_s=0.02, piece_bytes=1 << 16)
"""Makes a save last a tenth of a second, so that a signal finds the training still at work."""


@dataclass(frozen=True)
class Whole:
    """A miniature training of a package that nothing disturbed."""

    name: str
    package: PackageUnderTest
    folder: Path
    outcome: dict[str, bytes]
    seconds: float

    def fresh(self, name: str) -> Path:
        """Return an empty folder with the same data."""
        folder = self.folder.parent / name
        folder.mkdir()
        shutil.copy(self.folder / f"data{self.package.data_suffix}", folder)
        return folder


@pytest.fixture(scope="module", params=PACKAGES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Train once, undisturbed, in a process that is started as a user does it."""
    package = PACKAGES[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    folder.mkdir()
    result = run(package.train(folder), folder=folder)
    assert result.code == 0, result.stderr
    found = outcome(folder / "run")
    assert f"step-{package.steps}.safetensors" in found
    warmed = run(package.resume("run"), folder=folder, warm=True)
    assert warmed.code == 0 and outcome(folder / "run") == found
    yield Whole(request.param, package, folder, found, result.seconds)


def finish(whole: Whole, folder: Path) -> dict[str, bytes]:
    """Resume the run in `folder` to its end, or start it again where it had no checkpoint; return what came out."""
    if not (folder / "run/config.toml").is_file():
        shutil.rmtree(folder / "run", ignore_errors=True)
        again = run(whole.package.train(folder), folder=folder, warm=True)
        assert again.code == 0, again.stderr
        return outcome(folder / "run")
    again = run(whole.package.resume("run"), folder=folder, warm=True)
    if again.code == 2:
        assert "no checkpoint yet" in only_line(again) and "train --config" in again.stderr[0]
        shutil.rmtree(folder / "run")
        again = run(whole.package.train(folder), folder=folder, warm=True)
    assert again.code == 0, again.stderr
    assert not list((folder / "run").rglob(".*.tmp-*"))
    return outcome(folder / "run")


@SHARES
def test_killed_and_resumed_runs_equal_undisturbed_ones(share: float, whole: Whole) -> None:
    """SIGKILL at random moments of a training, a quarter and more of them inside a save; each resumed to its end."""
    kills, started, moments = count(20, share), time.monotonic(), random.Random(11)
    in_saves, at_steps = 0, []
    # Of one save: open, header, one write for each small tensor, fsync, rename.
    calls = len(load_checkpoint(Run(whole.folder / "run").step_files()[-1]).tensors) + 4
    for number in range(kills):
        folder = whole.fresh(f"killed-{share}-{number}")
        if number % 4 == 0:
            # From inside, so that it is certain where: at any call to the disk of any save, renames included.
            nth = moments.randint(calls + 1, (whole.package.steps - 2) * calls)
            fault = Fault(inside=Inside(fail_signal=signal.SIGKILL, fail_nth=nth))
        else:
            moment = Moment(step=moments.randint(1, whole.package.steps - 4))
            fault = Fault(number=signal.SIGKILL, when=moment, after_s=moments.uniform(0.0, 0.1), inside=SLOW)
        killed = run(whole.package.train(folder), folder=folder, warm=True, fault=fault)
        assert killed.code == -signal.SIGKILL, killed.stderr
        in_saves += bool(list((folder / "run").rglob(".*.tmp-*")))
        at_steps.append(max(map(step_of, (folder / "run/checkpoints").glob("step-*")), default=0))
        assert all(load_checkpoint(path).metadata["step"] == step_of(path) for path in Run(folder / "run").step_files())
        assert finish(whole, folder) == whole.outcome
        shutil.rmtree(folder)
    assert in_saves >= kills // 4
    notes = (
        f"{in_saves} inside a save; newest checkpoint then of steps {', '.join(map(str, sorted(at_steps)))} of "
        f"{whole.package.steps} (0: none yet, started again); model, optimiser, average, best weights and metrics equal"
    )
    record(f"{whole.name}: SIGKILL during training, resumed to the end", tried=kills, good=kills,
           seconds=time.monotonic() - started, notes=notes)  # fmt: skip


@dataclass
class Moment:
    """Holds once the run is made and step `step` is saved."""

    step: int

    def __call__(self, folder: Path) -> bool:
        made = (folder / "run/config.toml").is_file()
        return made and self.step <= max(map(step_of, (folder / "run/checkpoints").glob("step-*")), default=0)


@SHARES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_runs_save_their_last_step_and_go_on(number: signal.Signals, share: float, whole: Whole) -> None:
    stops, started, moments = count(10, share), time.monotonic(), random.Random(int(number))
    for attempt in range(stops):
        folder = whole.fresh(f"stopped-{number.name}-{share}-{attempt}")
        moment = Moment(step=moments.randint(1, whole.package.steps - 6))
        # The slow writer keeps the training from ending before the signal arrives.
        stopped = run(whole.package.train(folder), folder=folder, warm=True,
                      fault=Fault(number=number, when=moment, inside=SLOW))  # fmt: skip
        assert stopped.code == 128 + number, stopped.stderr
        said = re.fullmatch(r"error: stopped at step (\d+); go on with --resume run", only_line(stopped))
        assert said is not None
        newest = Run(folder / "run").step_files()[-1]
        assert load_checkpoint(newest).metadata["step"] == int(said[1]) >= moment.step
        assert finish(whole, folder) == whole.outcome
        shutil.rmtree(folder)
    record(f"{whole.name}: {number.name} during training, resumed to the end", tried=stops, good=stops,
           seconds=time.monotonic() - started)  # fmt: skip


def test_a_second_interrupt_leaves_at_once(whole: Whole) -> None:
    """The first asks to save, which a slow disk makes long; the second does not wait for that."""
    folder = whole.fresh("twice")
    fault = Fault(number=signal.SIGINT, when=inside_a_save, after_s=0.2, again_after_s=0.3,
                  inside=Inside(slow_write_s=0.1, piece_bytes=2048))  # fmt: skip
    left = run(whole.package.train(folder), folder=folder, warm=True, fault=fault)
    assert left.code == 130 and left.stderr == []
    # The save, ten seconds and more at this pace, was cut short, and so was everything after it.
    assert not Run(folder / "run").step_files() and list((folder / "run/checkpoints").glob(".step-1.*"))
    size = len(whole.outcome[f"step-{whole.package.steps}.safetensors"])
    assert sum(path.stat().st_size for path in (folder / "run/checkpoints").glob(".step-1.*")) < 0.8 * size
    assert finish(whole, folder) == whole.outcome


def test_a_run_resumes_from_every_checkpoint_it_had(whole: Whole) -> None:
    """Resume from three steps of the same run, each by naming the checkpoint itself."""
    folder = whole.fresh("every")
    assert run(whole.package.train(folder), folder=folder, warm=True, fault=Fault(
        number=signal.SIGTERM, when=Moment(step=2), inside=SLOW)).code == 143  # fmt: skip
    for _ in range(2):
        older, newest = Run(folder / "run").step_files()
        # From the older of the two that are kept, though the newer is there.
        target = older.relative_to(folder)
        again = run(whole.package.resume(str(target)), folder=folder, warm=True, fault=Fault(
            number=signal.SIGTERM, when=Moment(step=step_of(newest) + 2), inside=SLOW))  # fmt: skip
        assert again.code == 143, again.stderr
    assert finish(whole, folder) == whole.outcome


def test_a_damaged_newest_checkpoint_names_the_last_good_one(whole: Whole) -> None:
    folder = whole.fresh("damaged")
    shutil.copytree(whole.folder / "run", folder / "run")
    older, newest = Run(folder / "run").step_files()
    data = bytearray(newest.read_bytes())
    data[-100] ^= 4
    newest.write_bytes(data)
    before = outcome(folder / "run")
    refused = run(whole.package.resume("run"), folder=folder, warm=True)
    assert refused.code == 2
    line = only_line(refused)
    command = re.search(r"train --resume (\S+)$", line)
    assert newest.name in line and "tensor '" in line and "does not match its digest" in line and command is not None
    assert outcome(folder / "run") == before
    assert (folder / command[1]) == older
    again = run(whole.package.resume(command[1]), folder=folder, warm=True)
    assert again.code == 0 and outcome(folder / "run") == whole.outcome


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_that_step(kind: str, whole: Whole) -> None:
    folder = whole.fresh(f"poisoned-{kind}")
    poison = Inside(poison=whole.package.loss, poison_call=6, poison_kind=kind)
    stopped = run(whole.package.train(folder), folder=folder, warm=True, fault=Fault(inside=poison))
    assert stopped.code == 3
    line = only_line(stopped)
    assert "step 5: the " in line and ("loss is nan" if kind == "loss" else "gradient is nan") in line
    assert "at learning rate 0.00" in line and "samples " in line and "step-5.safetensors" in line
    kept = load_checkpoint(Run(folder / "run").step_files()[-1])
    assert kept.metadata["step"] == 5
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.tensors.values() if tensor.is_floating_point())
    # The same steps without the fault reach the same end.
    assert finish(whole, folder) == whole.outcome


def test_a_rate_far_too_high_diverges_with_a_good_checkpoint(whole: Whole) -> None:
    """No injection: a real divergence, by the largest learning rate that is accepted and no clipping."""
    folder = whole.fresh("diverging")
    flags = [whole.package.rate_flag, "9.9", "--fit.clip-norm", "0", *whole.package.diverging]
    stopped = run(whole.package.train(folder, *flags), folder=folder, warm=True)
    assert stopped.code == 3, stopped.stderr
    assert re.search(r"step \d+: the (.* is (nan|inf)|weights are not finite) at learning rate", only_line(stopped))
    for path in Run(folder / "run").step_files():
        tensors = load_checkpoint(path).part("model")
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@SHARES
def test_processes_seeds_and_workers_change_nothing(share: float, whole: Whole) -> None:
    """Another process and PYTHONHASHSEED, and workers (2; in full 1 and 4) give the same, but for the setting."""
    folder = whole.fresh(f"again-{share}")
    again = run(whole.package.train(folder), folder=folder, environment={"PYTHONHASHSEED": "77"})
    assert again.code == 0 and outcome(folder / "run") == whole.outcome
    model = load_checkpoint(whole.folder / f"run/checkpoints/step-{whole.package.steps}.safetensors").tensors
    for workers in (1, 4) if share == 1.0 else (2,):
        name = f"workers-{workers}"
        done = run(whole.package.train(folder, "--fit.workers", str(workers), run=name), folder=folder)
        assert done.code == 0, done.stderr
        assert (folder / name / "metrics.jsonl").read_bytes() == whole.outcome["metrics.jsonl"]
        other = load_checkpoint(folder / name / f"checkpoints/step-{whole.package.steps}.safetensors").tensors
        assert other.keys() == model.keys() and all(torch.equal(other[key], model[key]) for key in model)


def test_another_seed_changes_the_result(whole: Whole) -> None:
    folder = whole.fresh("seeded")
    command = whole.package.train(folder)
    command[command.index("--seed") + 1] = "4"
    assert run(command, folder=folder, warm=True).code == 0
    assert outcome(folder / "run")["metrics.jsonl"] != whole.outcome["metrics.jsonl"]


def test_a_run_repeats_from_its_own_configuration(whole: Whole) -> None:
    folder = whole.fresh("repeated")
    shutil.copy(whole.folder / "run/config.toml", folder / "again.toml")
    command = [whole.package.module, "train", "--config", "again.toml", "--run", "run", "--device", "cpu", "--quiet"]
    assert run(command, folder=folder, warm=True).code == 0
    assert outcome(folder / "run")["metrics.jsonl"] == whole.outcome["metrics.jsonl"]


def test_processes_that_start_at_once_get_runs_of_their_own(whole: Whole) -> None:
    """Eight trainings in one folder without --run, at once."""
    folder = whole.fresh("crowd")
    command = whole.package.train(folder, "--fit.max-steps", "2")
    place = command.index("--run")
    results = run_at_once([command[:place] + command[place + 2 :]] * 8, folder)
    assert [result.code for result in results] == [0] * 8, [result.stderr for result in results]
    runs = sorted((folder / "runs").iterdir())
    assert len(runs) == 8
    metrics = {(path / "metrics.jsonl").read_bytes() for path in runs}
    assert len(metrics) == 1 and all(len(Run(path).step_files()) >= 1 for path in runs)


def test_one_folder_goes_to_one_of_many(whole: Whole) -> None:
    folder = whole.fresh("one")
    (folder / "run").mkdir()
    results = run_at_once([whole.package.train(folder, "--fit.max-steps", "2")] * 4, folder)
    assert sorted(result.code for result in results) == [0, 2, 2, 2]
    assert all("exists already" in only_line(result) for result in results if result.code == 2)


def run_at_once(commands: list[list[str]], folder: Path) -> list[Result]:
    """Run all commands at the same time, from threads of this process."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: run(command, folder=folder, warm=True), commands))


def test_nothing_is_written_outside_the_run(whole: Whole) -> None:
    folder, home = whole.fresh("clean"), whole.folder.parent / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    done = run(whole.package.train(folder), folder=folder, environment=places)
    assert done.code == 0 and list(home.rglob("*")) == []
    assert {name.split("/")[0] for name in done.files} == {"run", f"data{whole.package.data_suffix}"}
    lines = read_json_lines(folder / "run/metrics.jsonl")
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
