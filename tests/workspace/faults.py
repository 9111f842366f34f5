"""The harness of the fault tests: run a command with a fault and say what came of it; one row per package.

A later package adds its row to `PACKAGES`; the tests of `test_faults_*.py` then hold for it too.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from fault_launcher import main_of_warm

LAUNCHER = Path(__file__).with_name("fault_launcher.py")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Faults inside the process, laid by `fault_launcher`."""

    only: str = ".tmp-"
    """The files concerned: those whose path contains this."""
    slow_write_s: float = 0.0
    """Pause for each `piece_bytes` that are written to them; the kernel then gets them in such pieces at most."""
    piece_bytes: int = 1 << 14
    fail_call: str = "any"
    """`open`, `write`, `fsync`, `replace`, `truncate` or any of these."""
    fail_nth: int = 0
    """Which of these calls fails, once; 0 none."""
    fail_errno: int = 28
    """With which error; 28 is ENOSPC, 5 EIO."""
    fail_signal: int = 0
    """Signal that the process gets at that call, where 0 lets the call fail; 9 kills it inside a save."""
    file_limit_bytes: int = 0
    """Largest file that the process may write (RLIMIT_FSIZE); 0 sets no limit."""
    poison: str = ""
    """Function `module:name` whose result becomes not finite."""
    poison_call: int = 1
    poison_kind: str = "loss"
    """`loss` or `gradient`."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a command while it runs."""

    number: int = 0
    """Signal to send to it; 0 none."""
    after_s: float = 0.0
    """Seconds after the start, or after `when` came true."""
    when: Callable[[Path], bool] | None = None
    """Send it as soon as this holds of the folder."""
    again_after_s: float | None = None
    """Send it once more, this long after the first."""
    inside: Inside = field(default_factory=Inside)


@dataclass(frozen=True)
class Result:
    """What came of a command."""

    code: int
    """Exit code; -n for a process that signal n ended."""
    stderr: list[str]
    stdout: str
    folder: Path
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Largest resident set of any child so far."""

    @cached_property
    def files(self) -> dict[str, str]:
        """SHA-256 of every file in the folder, by its path inside, when first asked."""
        return digests(self.folder)


def run(
    command: Sequence[str], *, folder: Path, fault: Fault | None = None, timeout_s: float = 120.0,
    environment: dict[str, str] | None = None, warm: bool = False,
) -> Result:  # fmt: skip
    """Run `command` (a module and its arguments) in `folder`, with `fault`, and wait for its end.

    Args:
        command: what follows `python -m`.
        folder: working directory of the command.
        fault: what happens to it.
        timeout_s: after this it is killed and the test fails.
        environment: variables to set.
        warm: let a server that has imported everything fork the process and call `main` of the module there, for
            campaigns of many runs; CPU time and memory are not measured then.
    """
    fault = fault or Fault()
    variables = {"OMP_NUM_THREADS": "1", **(environment or {})}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = (
        _Warm(command, folder, fault.inside, variables) if warm else _cold(command, folder, fault.inside, variables)
    )
    try:
        _strike(process, fault, folder, started + timeout_s)
        stdout, stderr = process.communicate(timeout=max(1.0, started + timeout_s - time.monotonic()))
    finally:
        process.kill()
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Result(process.returncode, stderr.splitlines(), stdout, folder, time.monotonic() - started, cpu,
                  after.ru_maxrss * 1024)  # fmt: skip


def warm_processes() -> Any:
    """Return the multiprocessing context whose server has `warm_start` behind it."""
    context = multiprocessing.get_context("forkserver")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(LAUNCHER.parent) not in paths:
        # The server of Python 3.11 starts without the paths of its parent.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(LAUNCHER.parent), *filter(None, paths)])
    context.set_forkserver_preload(["warm_start", "checkpoint_writer"])
    return context


def _cold(command: Sequence[str], folder: Path, inside: Inside, variables: dict[str, str]) -> subprocess.Popen[str]:
    launched = [sys.executable, "-m", *command]
    if inside != Inside():
        launched = [sys.executable, str(LAUNCHER), json.dumps(asdict(inside)), *command]
    return subprocess.Popen(launched, cwd=folder, env={**os.environ, **variables}, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


class _Warm:
    """A process from the server, with what this module uses of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], folder: Path, inside: Inside, variables: dict[str, str]) -> None:
        self._output = tempfile.TemporaryDirectory()
        module, *arguments = command
        output = str(Path(self._output.name) / "output")
        self._process = warm_processes().Process(
            target=main_of_warm, args=(module, arguments, str(folder), output, variables, asdict(inside))
        )
        self._process.start()

    @property
    def returncode(self) -> int:
        code = self._process.exitcode
        assert code is not None
        return code

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0.0)

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        self.wait(timeout)
        files = [Path(self._output.name) / f"output.{name}" for name in ("stdout", "stderr")]
        texts = [file.read_text() if file.exists() else "" for file in files]
        self._output.cleanup()
        return texts[0], texts[1]


def _strike(process: subprocess.Popen[str] | _Warm, fault: Fault, folder: Path, deadline: float) -> None:
    if not fault.number:
        return
    while fault.when is not None and not fault.when(folder) and process.poll() is None:
        if time.monotonic() > deadline:
            raise TimeoutError("the moment of the fault never came")
        time.sleep(0.002)
    for pause in [fault.after_s, *([] if fault.again_after_s is None else [fault.again_after_s])]:
        try:
            process.wait(timeout=pause)
        except subprocess.TimeoutExpired:
            process.send_signal(fault.number)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under `folder`."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def outcome(run_folder: Path) -> dict[str, bytes]:
    """Return what a killed and resumed run must share with an uninterrupted one, byte for byte."""
    last = max((run_folder / "checkpoints").glob("step-*.safetensors"), key=step_of)
    files = [
        last,
        run_folder / "checkpoints/best.safetensors",
        run_folder / "metrics.jsonl",
        run_folder / "config.toml",
    ]
    return {file.name: file.read_bytes() for file in files}


def step_of(checkpoint: Path) -> int:
    """Return the step in the name of a checkpoint."""
    return int(checkpoint.stem.removeprefix("step-"))


def inside_a_save(folder: Path) -> bool:
    """Tell whether a temporary file of a checkpoint exists: its writer is at work."""
    return any(folder.glob("*/checkpoints/.step-*.tmp-*"))


@dataclass(frozen=True, kw_only=True)
class PackageUnderTest:
    """How the fault tests use a package."""

    module: str
    """What `python -m` runs."""
    write_data: Callable[[Path], None]
    """Write miniature data to this file."""
    data_suffix: str
    flags: tuple[str, ...]
    """Flags of a miniature training, a few seconds long, that saves after every step; no data, no run."""
    steps: int
    """Optimiser steps of that training."""
    loss: str
    """The function `module:name` that yields the training loss."""
    bad_configurations: Callable[[], dict[str, BadConfiguration]]
    malformed: Callable[[Path], list[Any]]
    """Write wrong data into a folder; each case has `name`, `paths`, `extra_flags` and `expected`."""
    spoil: Callable[[Path], None]
    """Change a good file of data so that it is refused."""
    put_nan: Callable[[Path], tuple[str, ...]]
    """Put one value that is no number into a good file of data, and return what the message must say of it."""
    predict_flags: tuple[str, ...]
    """Flags of a cheap prediction."""
    forecast_suffix: str
    """Ending of the file that a prediction writes."""
    chunk_flag: str
    """Flag that says how much is predicted at once, 0 chooses; empty where there is none."""
    same_on_ranks: tuple[str, ...]
    """Flags that take the chance out of a forward pass, so that its result does not depend on the processes."""
    diverging: tuple[str, ...]
    """Flags, each within its accepted range, with which the training diverges by itself."""
    warm: tuple[str, ...]
    """Modules that warm processes import before their start."""
    rate_flag: str = "--optimiser.learning-rate"
    """Flag of the learning rate that `diverging` goes with."""

    def train(self, folder: Path, *more: str, run: str = "run") -> list[str]:
        """Return the command that trains the miniature into `run`; the data are made on first use."""
        data = folder / f"data{self.data_suffix}"
        if not data.exists():
            self.write_data(data)
        return [self.module, "train", "--data", data.name, "--run", run, *self.flags, *more]

    def resume(self, target: str, *more: str) -> list[str]:
        """Return the command that goes on with `target`."""
        return [self.module, "train", "--resume", target, "--device", "cpu", "--quiet", *more]


@dataclass(frozen=True)
class BadConfiguration:
    """A configuration file that must be refused, and what the line must say."""

    content: bytes
    fragments: tuple[str, ...]


def write_marked_events(path: Path) -> None:
    """Write 40 sequences of 4 to 12 marked events to a CSV file."""
    random = np.random.Generator(np.random.Philox(key=7))
    lines = ["sequence,time,x,y,mark"]
    for sequence in range(40):
        times = random.exponential(1.0, int(random.integers(4, 13))).cumsum()
        lines += [
            f"{sequence},{time:.6f},{random.normal():.6f},{random.normal():.6f},{'ab'[int(random.integers(2))]}"
            for time in times
        ]
    path.write_text("\n".join(lines) + "\n")


def event_configurations() -> dict[str, BadConfiguration]:
    """Return configurations that `smash` must refuse."""

    def bad(content: str, *fragments: str) -> BadConfiguration:
        return BadConfiguration(content.encode(), fragments)

    return {
        "unknown section": bad("[modle]\nwidth = 8\n", "unknown key 'modle'", "did you mean 'model'"),
        "unknown key": bad("[fit]\nepoch = 8\n", "unknown key 'fit.epoch'", "did you mean 'epochs'"),
        "unknown key, nothing near": bad("[fit]\nxyzzy = 8\n", "unknown key 'fit.xyzzy'", "expected one of"),
        "unknown top-level key": bad("sede = 1\n", "unknown key 'sede'", "did you mean 'seed'"),
        "class path": bad('_target_ = "os.system"\n', "unknown key '_target_'"),
        "string for a number": bad('[fit]\nepochs = "3"\n', "fit.epochs is '3'", "expected a whole number"),
        "fraction for a whole number": bad("[fit]\nepochs = 1.5\n", "fit.epochs is 1.5", "expected a whole number"),
        "truth for a whole number": bad("[fit]\nepochs = true\n", "fit.epochs is true", "expected a whole number"),
        "truth for a number": bad("[model]\ndropout = false\n", "model.dropout is false", "expected a number"),
        "number for a truth": bad("[data]\nlog_gap = 1\n", "data.log_gap is 1", "expected true or false"),
        "date for a number": bad("seed = 2020-01-01\n", "seed is", "expected a whole number"),
        "string for a list": bad('[data]\nsource = "a.csv"\n', "data.source is 'a.csv'", "expected a list"),
        "numbers for strings": bad("[data]\nsource = [1, 2]\n", "data.source is [1, 2]", "each a string"),
        "list too short": bad("[data]\nsplit = [0.8, 0.2]\n", "data.split is [0.8, 0.2]", "a list of 3"),
        "list too long": bad("[data]\nsplit = [0.7, 0.1, 0.1, 0.1]\n", "data.split is [0.7", "a list of 3"),
        "number for a table": bad("fit = 3\n", "fit is 3", "expected a table"),
        "array of tables": bad("[[fit]]\nepochs = 3\n", "fit is", "expected a table"),
        "table for a number": bad("[fit.epochs]\na = 1\n", "fit.epochs is", "expected a whole number"),
        "unknown choice": bad('[sampler]\nmode = "exat"\n', "sampler.mode is 'exat'", "one of 'exact', 'batched'"),
        "below the range": bad("[fit]\nepochs = 0\n", "fit.epochs: 0", "at least 1"),
        "above the range": bad("[noise]\nsigma_time = 11.0\n", "noise.sigma_time: 11.0", "(0, 10]"),
        "negative": bad("[fit]\nworkers = -1\n", "fit.workers: -1", "0 or more"),
        "not a number": bad("[noise]\nsigma_time = nan\n", "noise.sigma_time: nan", "(0, 10]"),
        "infinite": bad("[optimiser]\nlearning_rate = inf\n", "optimiser.learning-rate: inf", "(0, 10)"),
        "share of one": bad("[model]\ndropout = 1.0\n", "model.dropout: 1.0", "a share in [0, 1)"),
        "across fields": bad("[optimiser]\nfinal_learning_rate = 0.5\n", "optimiser.final-learning-rate: 0.5",
                             "between 0 and learning-rate 0.001"),
        "shares that do not sum to one": bad("[data]\nsplit = [0.5, 0.1, 0.1]\n", "data.split: (0.5,", "sum to 1"),
        "separator of two characters": bad('[data]\nseparator = "::"\n', "data.separator: '::'", "one character"),
        "broken line": bad("[fit]\nepochs = \n", "no valid TOML", "line 2"),
        "section twice": bad("[fit]\nepochs = 2\n[fit]\nepochs = 3\n", "no valid TOML", "line 3"),
        "key twice": bad("seed = 1\nseed = 2\n", "no valid TOML", "line 2"),
        "nested without end": bad("a = " + "[" * 20_000, "no valid TOML"),
        "YAML": bad("fit:\n  epochs: 3\n", "no valid TOML", "line 1"),
        "JSON": bad('{"fit": {"epochs": 3}}\n', "no valid TOML", "line 1"),
        "not UTF-8": BadConfiguration(b"seed = 1 # \xe9\n", ("byte 11 is not UTF-8",)),
        "UTF-16": BadConfiguration("seed = 1\n".encode("utf-16"), ("byte 0 is not UTF-8",)),
        "binary": BadConfiguration(b"\x7fELF\x02\x01\x01" + bytes(64), ("no valid TOML",)),
        "far too large": bad("# \n" * 500_000, "1,500,000 bytes", "at most"),
    }  # fmt: skip


def malformed_events(folder: Path) -> list[Any]:
    """Write wrong files of events; imported late, since warm processes import this module without pyarrow."""
    from malformed_events import malformed_event_files

    return malformed_event_files(folder)


def spoil_events(path: Path) -> None:
    """Write other separators at the head of a CSV file."""
    path.write_text(path.read_text().replace(",", ";;", 7))


def put_nan_into_events(path: Path) -> tuple[str, ...]:
    """Write nan for x into the eighteenth line of a CSV file."""
    lines = path.read_text().splitlines()
    lines[17] = ",".join([*lines[17].split(",")[:2], "nan", *lines[17].split(",")[3:]])
    path.write_text("\n".join(lines) + "\n")
    return ("row 18: x is missing or not a number; expected", "--data.missing drop")


def write_frames(path: Path) -> None:
    """Write 46 frames (time, channel, height, width) of a drifting wave: 32 training windows of four frames."""
    time, row, column = np.meshgrid(np.arange(46), np.arange(8), np.arange(6), indexing="ij")
    wave = 0.5 + 0.4 * np.sin(0.5 * time + 0.9 * row - 0.7 * column)
    np.save(path, wave[:, None].astype(np.float32))


SHARED_FIELDS = (
    "unknown section", "unknown key", "unknown key, nothing near", "unknown top-level key", "class path",
    "string for a number", "fraction for a whole number", "truth for a whole number", "date for a number",
    "string for a list", "numbers for strings", "list too short", "list too long", "number for a table",
    "array of tables", "table for a number", "below the range", "negative", "shares that do not sum to one",
    "broken line", "section twice", "key twice", "nested without end", "YAML", "JSON", "not UTF-8", "UTF-16", "binary",
    "far too large",
)  # fmt: skip
"""Those of `event_configurations` that only name fields of the core."""


def frame_configurations() -> dict[str, BadConfiguration]:
    """Return configurations that `stpred` must refuse."""
    table = {name: case for name, case in event_configurations().items() if name in SHARED_FIELDS}

    def bad(content: str, *fragments: str) -> BadConfiguration:
        return BadConfiguration(content.encode(), fragments)

    return table | {
        "unknown model": bad('[model]\nkind = "convltsm"\n', "model.kind is 'convltsm'", "expected one of convlstm"),
        "field of another model": bad('[model]\nkind = "convlstm"\nlinks = [1, 1, 1]\n', "unknown key 'model.links'",
                                      "a field of kind trajgru"),
        "even kernel": bad("[model]\nkernels = [4, 4, 4]\n", "model.kernels: (4, 4, 4)", "odd"),
        "kernels for other layers": bad("[model]\nkernels = [3]\n", "model.kernels: (3,)", "one for each"),
        "unknown choice": bad('[model]\npeephole = "ful"\n', "peephole is 'ful'", "one of 'reference'"),
        "no history": bad("[data]\nhistory = 0\n", "data.history: 0", "at least 1"),
        "no horizon": bad("[data]\nhorizon = -1\n", "data.horizon: -1", "at least 1"),
        "rate that is none": bad("[optimiser]\nlearning_rate = nan\n", "optimiser.learning-rate: nan", "(0, 10)"),
        "infinite decay": bad("[optimiser]\nweight_decay = inf\n", "optimiser.weight-decay: inf", "0 or more"),
        "moment of one": bad("[optimiser]\nbeta1 = 1.0\n", "optimiser.beta1: 1.0", "a share in [0, 1)"),
    }  # fmt: skip


def field_configurations() -> dict[str, BadConfiguration]:
    """Return configurations that `svq` must refuse."""
    table = {name: case for name, case in event_configurations().items() if name in SHARED_FIELDS}

    def bad(content: str, *fragments: str) -> BadConfiguration:
        return BadConfiguration(content.encode(), fragments)

    return table | {
        "unknown translator": bad('[model]\ntranslator = "gtsa"\n', "model.translator is 'gtsa'", "one of 'gsta'"),
        "odd depth": bad("[model]\ndepth_spatial = 3\n", "model.depth-spatial: 3", "even"),
        "one block": bad("[model]\ndepth_temporal = 1\n", "model.depth-temporal: 1", "2 or more"),
        "odd width": bad("[model]\nhid_spatial = 15\n", "model.hid-spatial: 15", "even"),
        "even kernel": bad("[model]\nkernel_encoder = 4\n", "model.kernel-encoder: 4", "odd"),
        "all paths dropped": bad("[model]\ndrop_path = 1.0\n", "model.drop-path: 1.0", "below 1"),
        "unknown quantiser": bad('[quantizer]\nkind = "svqq"\n', "quantizer.kind is 'svqq'", "one of 'none'"),
        "no codes": bad("[quantizer]\ncodebook_size = 0\n", "quantizer.codebook-size: 0", "1 or more"),
        "codes that are no power of two": bad('[quantizer]\nkind = "lfq"\ncodebook_size = 1000\n',
                                              "quantizer.codebook-size: 1000", "power of two"),
        "all noise and more": bad("[quantizer]\nnoise_ratio = 1.5\n", "quantizer.noise-ratio: 1.5", "a share"),
        "penalty without codes": bad('[quantizer]\nkind = "control"\nsparsity = 0.1\n', "quantizer.sparsity: 0.1",
                                     "only svq has codes"),
        "unknown loss": bad('[loss]\nkind = "rmse"\n', "loss.kind is 'rmse'", "'mae'"),
        "no history": bad("[data]\nhistory = 0\n", "data.history: 0", "at least 1"),
        "no horizon": bad("[data]\nhorizon = -1\n", "data.horizon: -1", "at least 1"),
        "unknown protocol": bad('[data]\nprotocol = "strcit"\n', "data.protocol is 'strcit'", "'strict'"),
        "rate that is none": bad("[optimiser]\nlearning_rate = nan\n", "optimiser.learning-rate: nan", "(0, 10)"),
        "infinite decay": bad("[optimiser]\nweight_decay = inf\n", "optimiser.weight-decay: inf", "0 or more"),
        "moment of one": bad("[optimiser]\nbeta1 = 1.0\n", "optimiser.beta1: 1.0", "a share in [0, 1)"),
    }  # fmt: skip


def malformed_fields(folder: Path) -> list[Any]:
    """Write wrong fields of weather and the like; imported late, as `malformed_frames` does."""
    from malformed_fields import malformed_field_files

    return malformed_field_files(folder)


def write_city(path: Path) -> None:
    """Write 12 days of hourly readings on a ring of six nodes, and the weights between these."""
    hour, node = np.arange(288)[:, None], np.arange(6)
    speed = 30.0 + (5.0 + 2.0 * node) * np.sin(2.0 * np.pi * (hour - 3 * node) / 24.0) + np.sin(1.7 * hour + node)
    ring = np.eye(6) + np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)
    np.savez(path, speed=speed.astype(np.float32), adj=ring.astype(np.float32))


def spoil_city(path: Path) -> None:
    """Cut an archive short."""
    path.write_bytes(path.read_bytes()[:-100])


def put_nan_into_city(path: Path) -> tuple[str, ...]:
    """Put one NaN into the eighteenth step."""
    with np.load(path) as found:
        arrays = dict(found)
    arrays["speed"][17, 3] = np.nan
    np.savez(path, **arrays)
    return ("step 17, node 3 is nan", "--data.missing mask")


def city_configurations() -> dict[str, BadConfiguration]:
    """Return configurations that `gpd` must refuse."""
    other = ("list too short", "list too long", "shares that do not sum to one")  # of a field that gpd has not
    names = [name for name in SHARED_FIELDS if name not in other]
    table = {name: case for name, case in event_configurations().items() if name in names}

    def bad(content: str, *fragments: str) -> BadConfiguration:
        return BadConfiguration(content.encode(), fragments)

    return table | {
        "unknown model": bad('[model]\nkind = "stgnc"\n', "model.kind is 'stgnc'", "one of 'stgcn'"),
        "history too short for the model": bad("[model]\nhistory = 9\n", "model.history: 9", "10 or more"),
        "statistics without any": bad("[model]\nappend_statistics = true\n", "model.append-statistics", "norm batch"),
        "all dropped": bad("[model]\ndropout = 1.0\n", "model.dropout: 1.0", "below 1"),
        "rate of nothing": bad("[pretrain]\nlearning_rate = 0.0\n", "learning-rate: 0.0", "more than 0"),
        "part that legacy has not": bad('[pretrain]\nsplit = "legacy"\n', "select-on: 'val'", "test or last"),
        "tail of everything": bad("[finetune]\ntail = 1.0\n", "tail: 1.0", "between 0 and 1"),
        "unknown prompt": bad('[spatial]\nkind = "node2vec"\n', "spatial.kind is 'node2vec'", "'union-node2vec'"),
        "prompt of no file": bad('[temporal]\nkind = "file"\n', "temporal.file: none", ".npy"),
        "unknown strategy": bad('[denoiser]\nstrategy = "Trans6"\n', "denoiser.strategy is 'Trans6'", "'pre'"),
        "odd width": bad("[denoiser]\nwidth = 33\n", "denoiser.width: 33", "even"),
        "attention over the batch of windows": bad("[denoiser]\nlegacy_batch_attention = true\n",
                                                   "legacy-batch-attention", "pre, pre-adaptive"),
        "no steps": bad("[diffusion]\nsteps = 1\n", "diffusion.steps: 1", "2 to 100,000"),
        "noise that never comes": bad('[diffusion]\nsteps = 50\nbeta_scale = "legacy"\n', "diffusion.steps: 50",
                                      "at most 0.2"),
        "rate that is none": bad("[diffusion]\nlearning_rate = nan\n", "diffusion.learning-rate: nan", "(0, 10)"),
        "no days": bad("[data]\ndays = 0\n", "data.days: 0", "at least 1"),
        "rivals of no kind": bad('[evaluate]\nrivals = "some"\n', "evaluate.rivals is 'some'", "'naive'"),
    }  # fmt: skip


def malformed_cities(folder: Path) -> list[Any]:
    """Write wrong cities; imported late, as `malformed_frames` does."""
    from malformed_graphs import malformed_graph_files

    return malformed_graph_files(folder)


def flow_configurations() -> dict[str, BadConfiguration]:
    """Return configurations that `vlm4st` must refuse."""
    table = {name: case for name, case in event_configurations().items() if name in SHARED_FIELDS}

    def bad(content: str, *fragments: str) -> BadConfiguration:
        return BadConfiguration(content.encode(), fragments)

    return table | {
        "width for other heads": bad("[model]\nd_model = 12\n", "model.d-model: 12", "a multiple of 8"),
        "three branches": bad("[model.gate_fusion]\nnum_branches = 3\n", "num-branches: 3", "4: temporal, spatial"),
        "unknown adapter": bad('[model.vlm]\nlora_type = "lora"\n', "model.vlm.lora_type is 'lora'", "'standard'"),
        "image of half a patch": bad("[model.vlm]\nimage_res = 100\n", "image-res: 100", "a multiple of 16"),
        "unknown ablation": bad('ablation = "no_vision"\n', "ablation is 'no_vision'", "'no_visual'"),
        "more than all": bad("[few_shot]\nratio = 1.5\n", "few-shot.ratio: 1.5", "a share from 0 to 1"),
        "share and days": bad("[few_shot]\nratio = 0.1\ndays = 2.0\n", "few-shot.days: 2.0", "0 beside a ratio"),
        "average of shares": bad("[backbone]\nshard = true\n[fit]\nema_decay = 0.9\n", "fit.ema-decay: 0.9",
                                 "backbone.shard"),
        "no loss": bad("[loss]\nmse_weight = 0.0\nmae_weight = 0.0\n", "loss: (0.0, 0.0)", "a weight above 0"),
        "slots that fit no day": bad('[data]\nslots_per_day = ["100"]\n', "data.slots-per-day: '100'", "divisor of 48"),
        "unknown mixing": bad('[data]\nmixing = "blanced"\n', "data.mixing is 'blanced'", "'balanced'"),
        "rate that is none": bad("[optimiser]\nlearning_rate = nan\n", "optimiser.learning-rate: nan", "(0, 10)"),
    }  # fmt: skip


def malformed_flows(folder: Path) -> list[Any]:
    """Write wrong flows; imported late, as `malformed_frames` does."""
    from malformed_flows import malformed_flow_files

    return malformed_flow_files(folder)


def malformed_frames(folder: Path) -> list[Any]:
    """Write wrong sources of frames; imported late, since warm processes import this module without h5py."""
    from malformed_grids import malformed_grid_files

    return malformed_grid_files(folder)


def spoil_frames(path: Path) -> None:
    """Cut an npy file short."""
    path.write_bytes(path.read_bytes()[:-100])


def put_nan_into_frames(path: Path) -> tuple[str, ...]:
    """Put one NaN into the eighteenth frame."""
    frames = np.load(path)
    frames[17, 0, 3, 2] = np.nan
    np.save(path, frames)
    return ("frame 17", "nan")


PACKAGES: dict[str, PackageUnderTest] = {
    "smash": PackageUnderTest(
        module="smash.cli",
        write_data=write_marked_events,
        data_suffix=".csv",
        flags=(
            *("--device", "cpu", "--quiet", "--seed", "3", "--data.batch-sequences", "4", "--loss.perturbations", "3"),
            *("--model.width", "8", "--model.layers", "1", "--model.heads", "2", "--model.key-width", "4"),
            *("--model.value-width", "4", "--model.recurrent-width", "8", "--model.units", "8", "--fit.epochs", "2"),
            *("--fit.checkpoint-every", "1", "--fit.log-every", "3", "--fit.ema-decay", "0.9"),
        ),
        steps=16,
        loss="smash.gradient:with_gradient",
        bad_configurations=event_configurations,
        malformed=malformed_events,
        spoil=spoil_events,
        put_nan=put_nan_into_events,
        predict_flags=("--at", "every", "--sampler.samples", "20", "--sampler.location-steps", "5"),
        forecast_suffix=".csv",
        chunk_flag="--sampler.chunk-events",
        same_on_ranks=("--model.dropout", "0"),
        diverging=("--optimiser.warmup-epochs", "0", "--loss.mark-weight", "1e38"),
        warm=("smash.train", "smash.predict"),
    ),
    "stpred": PackageUnderTest(
        module="stpred.cli",
        write_data=write_frames,
        data_suffix=".npy",
        flags=(
            *("--preset", "demo", "--device", "cpu", "--quiet", "--seed", "3", "--data.batch", "4"),
            *("--data.generate.sequences", "0", "--data.history", "2", "--data.horizon", "2", "--model.patch", "2"),
            *("--model.hidden", "4", "3", "--model.kernels", "3", "3", "--fit.epochs", "2"),
            *("--fit.checkpoint-every", "1", "--fit.log-every", "3", "--fit.ema-decay", "0.9"),
        ),
        steps=18,
        loss="torch.nn.functional:mse_loss",
        bad_configurations=frame_configurations,
        malformed=malformed_frames,
        spoil=spoil_frames,
        put_nan=put_nan_into_frames,
        predict_flags=("--no-figures",),
        forecast_suffix=".npz",
        chunk_flag="",
        same_on_ranks=(),
        diverging=("--schedule.kind", "constant", "--optimiser.weight-decay", "3e38"),
        warm=("stpred.train", "stpred.predict"),
    ),
    "svq": PackageUnderTest(
        module="svq.cli",
        write_data=write_frames,
        data_suffix=".npy",
        flags=(
            *("--preset", "demo", "--device", "cpu", "--quiet", "--seed", "3", "--data.batch", "4"),
            *("--data.history", "2", "--data.horizon", "2", "--data.stride", "1", "--model.no-periodic-longitude"),
            *("--model.hid-spatial", "2", "--model.hid-temporal", "4", "--model.depth-temporal", "2"),
            *("--model.mlp-ratio", "2", "--quantizer.codebook-size", "16", "--quantizer.middle", "8"),
            *("--fit.epochs", "2", "--fit.checkpoint-every", "1", "--fit.log-every", "3", "--fit.ema-decay", "0.9"),
        ),
        steps=18,
        loss="torch.nn.functional:l1_loss",
        bad_configurations=field_configurations,
        malformed=malformed_fields,
        spoil=spoil_frames,
        put_nan=put_nan_into_frames,
        predict_flags=("--no-figures",),
        forecast_suffix=".npz",
        chunk_flag="",
        same_on_ranks=(),
        diverging=("--schedule.kind", "constant", "--optimiser.weight-decay", "3e38"),
        warm=("svq.train", "svq.predict"),
    ),
    "gpd": PackageUnderTest(
        module="gpd.cli",
        write_data=write_city,
        data_suffix=".npz",
        flags=(
            *("--device", "cpu", "--quiet", "--seed", "3", "--data.step", "1 hour", "--model.kind", "mlp"),
            *("--model.history", "6", "--model.horizon", "2", "--model.channels", "4", "--model.layers", "1"),
            *("--model.dropout", "0", "--pretrain.epochs", "2", "--pretrain.evaluate-every", "1"),
            *("--spatial.dim", "8", "--temporal.dim", "8", "--denoiser.width", "8", "--denoiser.blocks", "1"),
            *("--denoiser.heads", "2", "--denoiser.head-dim", "4", "--denoiser.value-dim", "4"),
            *("--denoiser.feedforward", "8", "--denoiser.channels", "8", "--diffusion.steps", "20"),
            *("--diffusion.batch", "5", "--diffusion.repeat", "8", "--diffusion.learning-rate", "1e-3"),
            *("--fit.epochs", "2", "--fit.max-steps", "0", "--fit.checkpoint-every", "1", "--fit.log-every", "3"),
            *("--fit.ema-decay", "0.9", "--fit.evaluate-every", "1"),
        ),
        steps=16,
        loss="gpd.train:losses_of",
        bad_configurations=city_configurations,
        malformed=malformed_cities,
        spoil=spoil_city,
        put_nan=put_nan_into_city,
        predict_flags=("--data.step", "1 hour", "--no-figures"),
        forecast_suffix=".csv",
        chunk_flag="",
        same_on_ranks=("--denoiser.dropout", "0"),
        # What is trained first are the node models.
        diverging=("--pretrain.weight-decay", "3e38"),
        warm=("gpd.stages", "gpd.predict"),
        rate_flag="--pretrain.learning-rate",
    ),
    "vlm4st": PackageUnderTest(
        module="vlm4st.cli",
        write_data=write_frames,
        data_suffix=".npy",
        flags=(
            *("--preset", "tiny", "--device", "cpu", "--quiet", "--seed", "3", "--data.batch", "4"),
            *("--data.timestamps", "none", "--model.T", "2", "--model.T-out", "2", "--model.d-model", "8"),
            *("--model.dix-attention.num-heads", "2", "--model.dix-attention.num-layers", "1"),
            *("--model.format-transformer.num-latents", "3", "--model.format-transformer.vlm-hidden-dim", "16"),
            *("--model.vlm.image-res", "32", "--model.vlm.vision-width", "16", "--model.vlm.vit.depth", "1"),
            *("--model.vlm.vit.num-heads", "2", "--model.vlm.bert-config.hidden-size", "16"),
            *("--model.vlm.bert-config.num-hidden-layers", "2", "--model.vlm.bert-config.num-attention-heads", "2"),
            *("--model.vlm.bert-config.intermediate-size", "16", "--model.vlm.bert-config.fusion-layer", "1"),
            *("--model.vlm.bert-config.encoder-width", "16", "--model.prediction-head.hidden-dim", "8"),
            *("--fit.epochs", "2", "--fit.checkpoint-every", "1", "--fit.log-every", "3", "--fit.ema-decay", "0.9"),
        ),
        steps=16,
        loss="vlm4st.train:total_loss",
        bad_configurations=flow_configurations,
        malformed=malformed_flows,
        spoil=spoil_frames,
        put_nan=put_nan_into_frames,
        predict_flags=("--no-figures",),
        forecast_suffix=".npz",
        chunk_flag="",
        same_on_ranks=(),
        diverging=("--schedule.kind", "none", "--optimiser.weight-decay", "3e38"),
        warm=("vlm4st.train", "vlm4st.predict"),
    ),
}


def only_line(result: Result) -> str:
    """Return the one line on standard error; more or fewer is a failure."""
    assert len(result.stderr) == 1, result.stderr
    return result.stderr[0]


def is_interrupt(result: Result) -> bool:
    """Tell whether the command ended as after a wish to stop, with its checkpoint written."""
    return result.code in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one object per line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
