"""How fast smash samples, trains and evaluates, beside a plain implementation of the same formulas.

Both sides run in one process, in turn, on the same events with the same weights. The plain side (`plain.py`) is what
the recordings of the original pass through: padded random batches, attention maps, double backward, and a chain that
draws 30 samples of each event at a time. The original evaluates the temporal trunk twice per score; where a figure
depends on it, the plain side is also timed with one evaluation (`shared`).

Options: `cases` (names, comma-separated), `run` (a trained run whose weights are used).
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import tables, timing
from benchmarks.smash.plain import Draws, PlainChain, PlainScore, PlainSmash, random_batches, train_epoch
from benchmarks.smash.scene import PRESET, held_out_conditions, make_scene, train_our_epoch, trained_scene
from jaxtyping import Float
from torch import Tensor

from smash.config import PRESETS
from smash.data import TrainingBatches
from smash.sampling import Samples, sample
from smash.train import make_optimiser
from stcore.errors import UserError
from stcore.events import concatenate
from stcore.readers import read_event_parts

Row = dict[str, Any]
Coordinates = Float[Tensor, "event sample 3"]

EPOCHS = 3
"""Epochs of the model whose samples are compared: a law is worth comparing once its density stays inside the box."""
FEW_SAMPLES = 10
"""Samples of an event where only the memory for many events is looked at: how much is sampled at once is a matter of
the memory budget, not of the number of samples."""
PLAIN_SAMPLES = 30
"""Samples that the plain chain draws at a time, as the original's scripts do (`n_samples`)."""


def run(quick: bool, *, cases: str = "", run: str = "") -> Iterator[Row]:
    """Yield one row per case.

    Args:
        quick: small sizes; figures then say only that everything works.
        cases: names of `CASES` to run, separated by commas; all by default.
        run: a trained run whose weights are used instead of random ones.
    """
    wanted = cases.split(",") if cases else list(CASES)
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise UserError(f"cases: {unknown[0]!r}; expected some of {', '.join(CASES)}")
    for name in wanted:
        for row in CASES[name](quick, run):
            yield {"threads": torch.get_num_threads(), **row}


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table of the README."""
    cells = [
        [row["what"], row["plain"], row["ours"], row["result"], row["goal"], "yes" if row["met"] else "**no**"]
        for row in rows
    ]
    header = ["what", "plain", "smash", "result", "goal", "met"]
    return f"{tables.markdown(header, cells)}\n\n{tables.provenance(rows)}"


def _samplers(quick: bool, run: str) -> Iterator[Row]:
    """Time the exact and the batched sampler beside the plain chain, and compare their laws."""
    events, samples, repeats = (4, 60, 2) if quick else (12, 300, 5)
    steps, stage, refine = (400, 100, 100) if quick else (2000, 250, 200)
    scene = make_scene(run) if run else trained_scene(epochs=1 if quick else EPOCHS)
    shared = _with_shared_trunk(scene.plain)
    chain = PlainChain(
        sigma=scene.sigma, step=0.005, stages=(stage,) * (steps // stage), refine_steps=refine
    )  # fmt: skip
    configured = replace(
        scene.config.sampler, samples=samples, langevin_step=chain.step, langevin_steps=steps, refine_steps=refine
    )
    condition = held_out_conditions(scene, events)
    kept: dict[str, list[Coordinates]] = {name: [] for name in ("plain", "shared", "batched", "exact")}

    def draw_ours(mode: str) -> None:
        seeds = torch.arange(events) + 1000 * (1 + len(kept[mode]))
        config = replace(configured, mode=mode)
        kept[mode].append(
            _coordinates(sample(scene.ours, condition, sampler=config, noise=scene.config.noise, seeds=seeds))
        )

    def draw_plain(name: str, score: PlainScore) -> None:
        draws = Draws.seeded(1 + len(kept[name]))
        pieces = [
            chain.sample(score, condition[:, None], PLAIN_SAMPLES, draws)[0] for _ in range(samples // PLAIN_SAMPLES)
        ]
        kept[name].append(torch.cat(pieces, dim=1))

    brief = replace(chain, stages=(20,), refine_steps=5)
    for score in (scene.plain.score, shared.score):  # warms up the plain side without a whole chain
        brief.sample(score, condition[:, None], PLAIN_SAMPLES, Draws.seeded(0))
    for _ in range(2):
        draw_ours("exact")
    timings = timing.time_in_turn(
        {
            "exact": lambda: draw_ours("exact"),
            "batched": lambda: draw_ours("batched"),
            "plain": lambda: draw_plain("plain", scene.plain.score),
            "shared": lambda: draw_plain("shared", shared.score),
        },
        repeats=repeats,
        warm_up=0,
    )
    about = {
        "weights": scene.weights, "events": events, "samples": samples, "plain_steps": f"{steps} + {refine}",
        "plain_samples_at_once": PLAIN_SAMPLES, "floor": compare_laws(kept["plain"][0], kept["plain"][1]),
    }  # fmt: skip
    for name, what, goal in (("exact", "exact sampler", 100.0), ("batched", "same chain, batched", 1.7)):
        pair = timing.compare(timings["plain"], timings[name])
        law = compare_laws(kept[name][-1], kept["plain"][0])
        yield {
            "case": f"{name}-sampler",
            "what": f"{what}, ms per event of {samples} samples",
            "plain": f"{1e3 * pair['plain_s'] / events:,.0f}",
            "ours": f"{1e3 * pair['ours_s'] / events:,.1f}",
            "result": f"{pair['ratio']:.3g} times",
            "goal": f"{goal:g} times, same law",
            "met": pair["ratio"] >= goal and law["same"],
            **pair,
            "ratio_to_shared_trunk": timing.compare(timings["shared"], timings[name])["ratio"],
            "law": law,
            **about,
        }


def _with_shared_trunk(plain: PlainSmash) -> PlainSmash:
    shared = copy.deepcopy(plain)
    shared.score.share_trunk = True
    return shared


def _coordinates(drawn: Samples) -> Coordinates:
    return torch.cat([drawn.gap[..., None], drawn.location], dim=-1)


def compare_laws(ours: Coordinates, plain: Coordinates) -> dict[str, Any]:
    """Compare samples of the same events by two-sample Kolmogorov-Smirnov tests of each coordinate.

    Returns:
        Mean distance per coordinate; the share of tests with p below .05 (.05 is expected of equal laws); the
        probability of so many or more under equal laws; and `same`: that it is at least .01.
    """
    from scipy import stats

    tests: list[list[Any]] = [
        [stats.ks_2samp(ours[event, :, axis].numpy(), plain[event, :, axis].numpy()) for axis in range(3)]
        for event in range(len(ours))
    ]
    distance = np.array([[test.statistic for test in row] for row in tests]).mean(0)
    p = np.array([[test.pvalue for test in row] for row in tests]).ravel()
    below = int((p < 0.05).sum())
    chance = float(stats.binomtest(below, len(p), 0.05, alternative="greater").pvalue)
    named = dict(zip(("ks_gap", "ks_x", "ks_y"), distance.round(4).tolist(), strict=True))
    return {**named, "tests": len(p), "share_below_05": below / len(p), "chance": chance, "same": chance >= 0.01}


def _training(quick: bool, run: str) -> Iterator[Row]:
    """Time an epoch of training steps at the preset's number of perturbations, noise and padding included.

    The epoch is over a fixed random quarter of the training sequences, so that five rounds take minutes.
    """
    scene = make_scene()
    shared = _with_shared_trunk(scene.plain)
    whole = scene.parts.train
    count = 64 if quick else whole.num_sequences // 4
    train = whole.select(np.sort(np.random.default_rng(0).choice(whole.num_sequences, count, replace=False)))
    encoded = scene.features.encode(train)
    columns = scene.columns(encoded)
    batches = TrainingBatches(encoded, train.sequence_id, scene.config)
    plain_losses: list[float] = []
    our_losses: list[float] = []

    def plain_epoch(plain: PlainSmash, optimiser: torch.optim.Optimizer) -> None:
        size, perturbations = scene.config.data.batch_sequences, scene.config.loss.perturbations
        order = random_batches(columns, size, marked=True, seed=len(plain_losses))
        losses = train_epoch(plain, order, optimiser, sigma=scene.sigma, perturbations=perturbations)
        plain_losses.append(statistics.fmean(losses))

    optimisers = [make_optimiser(model, scene.config.optimiser) for model in (scene.ours, scene.plain, shared)]
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: our_losses.append(train_our_epoch(scene, batches, optimisers[0], epoch=len(our_losses))),
        "plain": lambda: plain_epoch(scene.plain, optimisers[1]),
        "shared": lambda: plain_epoch(shared, optimisers[2]),
    }
    timings = timing.time_in_turn(candidates, repeats=2 if quick else 5, warm_up=0)
    pair = timing.compare(timings["plain"], timings["ours"])
    yield {
        "case": "training-epoch",
        "what": f"training epoch of {count} sequences, P = {scene.config.loss.perturbations}, s",
        "plain": f"{pair['plain_s']:.0f}",
        "ours": f"{pair['ours_s']:.0f}",
        "result": f"{pair['ratio']:.3g} times",
        "goal": "3 times",
        "met": pair["ratio"] >= 3.0,
        **pair,
        "ratio_to_shared_trunk": timing.compare(timings["shared"], timings["ours"])["ratio"],
        "sequences": train.num_sequences,
        "targets": train.num_events - train.num_sequences,
        "steps_plain": -(-train.num_sequences // scene.config.data.batch_sequences),
        "steps_ours": len(batches.order(0)),
        "loss_plain": plain_losses[0],
        "loss_ours": our_losses[0],
    }


def _help(quick: bool, run: str) -> Iterator[Row]:
    """Measure `smash --help`: CPU seconds of a fresh process, and whether it imported torch."""
    command = [sys.executable, "-m", "smash.cli", "--help"]
    costs = [timing.measure_command(command) for _ in range(3 if quick else 7)]
    listing = timing.measure_command(
        [sys.executable, "-c", "import sys, smash.cli\ntry: smash.cli.main(['--help'])\nexcept SystemExit: pass\n"
         "print('imported torch:', 'torch' in sys.modules)"]
    )  # fmt: skip
    clean = costs[0].code == 0 and listing.output.strip().endswith("imported torch: False")
    seconds = statistics.median(cost.cpu_s for cost in costs)
    yield {
        "case": "help",
        "what": "`smash --help`, CPU s",
        "plain": "",
        "ours": f"{seconds:.2f}",
        "result": "without torch" if clean else "with torch",
        "goal": "0.5 s without torch",
        "met": clean and seconds <= 0.5,
        "cpu_s": seconds,
        "repeats": len(costs),
        "without_torch": clean,
    }


def _evaluation(quick: bool, run: str) -> Iterator[Row]:
    """Measure `smash evaluate` on the Earthquake test part in a fresh process: seconds, and peak memory.

    Without a trained run one is trained briefly first, not timed: what evaluation costs does not depend on the weights.
    """
    config = PRESETS[PRESET]
    samples = 20 if quick else config.sampler.samples
    test = read_event_parts(config.data).test
    events = test.num_events - test.num_sequences
    with tempfile.TemporaryDirectory() as folder:
        trained = run or _brief_run(Path(folder) / "run")
        whole = _evaluate(trained, samples, Path(folder))
        yield {
            "case": "evaluate",
            "what": f"`smash evaluate`, Earthquake test, {events:,} events of {samples} samples, min",
            "plain": "",
            "ours": f"{whole.wall_s / 60:.1f}",
            "result": f"{whole.peak_mb / 1e3:.2f} GB",
            "goal": "5 min, 2 GB",
            "met": whole.wall_s <= 300.0 and whole.peak_mb <= 2000.0,
            "wall_s": whole.wall_s,
            "cpu_s": whole.cpu_s,
            "peak_mb": whole.peak_mb,
            "events": events,
            "samples": samples,
        }


def _evaluation_memory(quick: bool, run: str) -> Iterator[Row]:
    """Measure the peak memory of `smash evaluate` for the Earthquake test part and for ten times as many events."""
    test = read_event_parts(PRESETS[PRESET].data).test
    events = test.num_events - test.num_sequences
    with tempfile.TemporaryDirectory() as folder:
        trained = run or _brief_run(Path(folder) / "run")
        times, few = (2, 10) if quick else (10, FEW_SAMPLES)
        # Both from files of one kind: the library that reads Parquet takes memory of its own.
        onefold, tenfold = (Path(folder) / f"{name}.parquet" for name in ("once", "tenfold"))
        test.write(onefold)
        concatenate([test] * times).write(tenfold)
        once = _evaluate(trained, few, Path(folder), "--data", str(onefold))
        many = _evaluate(trained, few, Path(folder), "--data", str(tenfold))
        yield {
            "case": "evaluate-tenfold",
            "what": f"peak memory of it with {few} samples an event, and for {times} times the events, MB",
            "plain": f"{once.peak_mb:.0f}",
            "ours": f"{many.peak_mb:.0f}",
            "result": f"{many.peak_mb / once.peak_mb:.2f} times",
            "goal": "1.1 times, 2 GB",
            "met": many.peak_mb <= min(2000.0, 1.1 * once.peak_mb),
            "wall_s": many.wall_s,
            "once_peak_mb": once.peak_mb,
            "peak_mb": many.peak_mb,
            "events": times * events,
            "samples": few,
        }


def _brief_run(folder: Path) -> str:
    command = ["train", "--preset", PRESET, "--run", str(folder), "--fit.epochs", "1", "--loss.perturbations", "1"]
    _smash(*command)
    return str(folder)


def _evaluate(trained: str, samples: int, folder: Path, *more: str) -> timing.Cost:
    return _smash("evaluate", trained, "--sampler.samples", str(samples), "--out", str(folder), *more)


def _smash(*arguments: str) -> timing.Cost:
    cost = timing.measure_command([sys.executable, "-m", "smash.cli", *arguments])
    if cost.code != 0:
        raise UserError(f"smash {arguments[0]}: ended with {cost.code}; expected 0")
    return cost


CASES: dict[str, Callable[[bool, str], Iterator[Row]]] = {
    "samplers": _samplers,
    "training": _training,
    "evaluation": _evaluation,
    "evaluation-memory": _evaluation_memory,
    "help": _help,
}
"""What can be measured; a case may yield several rows."""
