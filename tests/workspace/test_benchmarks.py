"""The benchmark entry: result lines, generated tables, clocks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import machine, run, tables, timing

from stcore.errors import Interrupted

ROOT = Path(__file__).resolve().parents[2]


def row(case: str, *, ratio: float = 1.0, quick: bool = False, date: str = "2026-01-02T03:04Z") -> dict[str, Any]:
    return {
        "case": case,
        "ratio": ratio,
        "quick": quick,
        "date": date,
        "commit": {"hash": "abc1234", "dirty": False},
        "versions": {"torch": "2.13.0"},
        "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
    }


def test_tables_of_every_readme_equal_the_results() -> None:
    assert [str(path.relative_to(ROOT)) for path in tables.stale_readmes(ROOT)] == []


def test_every_marked_table_names_a_benchmark_that_exists() -> None:
    known = run.find_subjects(ROOT)
    assert ("smash", "speed") in known
    named: list[tuple[str, str]] = []
    for path in tables.readmes(ROOT):
        tables.render(path.read_text(), lambda package, subject: named.append((package, subject)) or "")
    assert set(named) <= set(known)


def test_result_lines_hold_no_host_names_and_no_paths() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            found = json.loads(line)
            assert {"case", "package", "subject", "quick", "date", "commit", "versions", "machine"} <= set(found)
            assert '"/' not in line and str(Path.home()) + "/" not in line


def test_newest_full_result_of_each_case_wins(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    for line in (row("a", ratio=1.0), row("b"), row("a", ratio=3.0), row("a", ratio=9.0, quick=True)):
        tables.append_row(path, line)
    assert [(found["case"], found["ratio"]) for found in tables.latest_rows(path)] == [("a", 3.0), ("b", 1.0)]
    assert tables.latest_rows(tmp_path / "absent.jsonl") == []


def test_every_device_has_a_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tables.results_file(tmp_path, "toy", "speed")
    for device, ratio in (("cpu", 1.0), ("NVIDIA H200", 7.0), ("cpu", 2.0)):
        tables.append_row(path, {**row("a", ratio=ratio), "device": device})
    module = types.ModuleType("benchmarks.toy.speed")
    module.table = lambda rows: "; ".join(f"{found['device']} {found['ratio']}" for found in rows)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.toy", types.ModuleType("benchmarks.toy"))
    monkeypatch.setitem(sys.modules, "benchmarks.toy.speed", module)
    assert tables.table_from_results(tmp_path, "toy", "speed") == "cpu 2.0\n\nNVIDIA H200 7.0"


def test_render_replaces_only_what_is_between_markers() -> None:
    text = "before\n<!-- table:smash-speed -->\nold\nold\n<!-- /table -->\nafter <!-- /table -->\n"
    once = tables.render(text, lambda package, subject: f"{package}/{subject}\n")
    assert once == "before\n<!-- table:smash-speed -->\nsmash/speed\n<!-- /table -->\nafter <!-- /table -->\n"
    assert tables.render(once, lambda package, subject: f"{package}/{subject}") == once
    empty = "<!-- table:gpd-long-name -->\n<!-- /table -->"
    assert "gpd long-name" in tables.render(empty, lambda package, subject: f"{package} {subject}")


def test_markdown_and_provenance() -> None:
    assert tables.markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n|---|---|\n| 1 | x |"
    said = tables.provenance([row("a"), row("b")])
    assert said == "Measured on Chip, 2 cores, 2 threads, torch 2.13.0, commit abc1234, 2026-01-02."


def test_tables_command_writes_once_and_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "packages" / "toy" / "README.md"
    readme.parent.mkdir(parents=True)
    readme.write_text("# toy\n<!-- table:toy-speed -->\n<!-- /table -->\n")
    tables.append_row(tables.results_file(tmp_path, "toy", "speed"), row("a", ratio=2.5))
    module = types.ModuleType("benchmarks.toy.speed")
    module.table = lambda rows: tables.markdown(["case", "ratio"], [[r["case"], r["ratio"]] for r in rows])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.toy", types.ModuleType("benchmarks.toy"))
    monkeypatch.setitem(sys.modules, "benchmarks.toy.speed", module)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert run.main(["tables", "--check"]) == 1
    assert "stale" in capsys.readouterr().out
    assert run.main(["tables"]) == 0
    assert "| a | 2.5 |" in readme.read_text()
    assert run.main(["tables", "--check"]) == 0


@pytest.mark.parametrize(
    ("flags", "kept"), [(["--quick"], 0), (["--quick", "--append"], 1), ([], 1)], ids=["quick", "append", "full"]
)
def test_run_appends_full_runs_and_what_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    kept: int,
) -> None:
    source = tmp_path / "benchmarks" / "toy" / "speed_of_light.py"
    source.parent.mkdir(parents=True)
    source.write_text("# a toy\ndef run(quick): ...\n")
    module = types.ModuleType("benchmarks.toy.speed_of_light")
    module.run = lambda quick, factor="1": iter([{"case": "c", "value": 2.0 * float(factor)}])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.toy", types.ModuleType("benchmarks.toy"))
    monkeypatch.setitem(sys.modules, "benchmarks.toy.speed_of_light", module)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "_set_threads", lambda threads: None)
    assert run.main(["toy", "speed-of-light", "--option", "factor=3", *flags]) == 0
    assert "value" in capsys.readouterr().out
    path = tables.results_file(tmp_path, "toy", "speed-of-light")
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert len(lines) == kept
    for line in lines:
        assert line["value"] == 6.0
        assert line["machine"]["threads"] == 2
        assert line["versions"]["python"].startswith("3.")


def test_an_interrupted_benchmark_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "benchmarks" / "toy" / "long.py"
    source.parent.mkdir(parents=True)
    source.write_text("# a toy\ndef run(quick): ...\n")

    def stopped(quick: bool) -> Iterator[dict[str, Any]]:
        yield {"case": "c"}
        raise Interrupted(signal.SIGTERM, "stopped at step 7; go on with --resume here")

    module = types.ModuleType("benchmarks.toy.long")
    module.run = stopped  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.toy", types.ModuleType("benchmarks.toy"))
    monkeypatch.setitem(sys.modules, "benchmarks.toy.long", module)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "_set_threads", lambda threads: None)
    assert run.main(["toy", "long"]) == 143
    said = capsys.readouterr().err
    assert said == "benchmarks: stopped at step 7; go on with --resume here; or with the same command again\n"
    assert len(tables.results_file(tmp_path, "toy", "long").read_text().splitlines()) == 1


def test_unknown_benchmark_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["smash", "colour"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "smash speed" in said


def test_commit_and_date_have_their_forms() -> None:
    commit = machine.describe_commit()
    assert commit is None or (set(commit) == {"hash", "dirty"} and len(str(commit["hash"])) >= 7)
    assert len(machine.now()) == len("2026-01-02T03:04Z")


def test_candidates_take_turns_and_warm_ups_do_not_count() -> None:
    order: list[str] = []
    timings = timing.time_in_turn(
        {"slow": lambda: order.append("slow"), "fast": lambda: order.append("fast")}, repeats=3, warm_up=1
    )
    assert order == ["slow", "fast"] * 4
    assert len(timings["slow"].wall_s) == len(timings["fast"].cpu_s) == 3


def test_comparison_takes_the_median_of_the_paired_ratios() -> None:
    slow, fast = timing.Timings((2.0, 8.0, 3.0), (1.0, 1.0, 1.0)), timing.Timings((1.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    found = timing.compare(slow, fast)
    assert found["ratio_per_round"] == [2.0, 4.0, 1.5]
    assert (found["ratio"], found["cpu_ratio"], found["plain_s"], found["ours_s"]) == (2.0, 2.0, 3.0, 2.0)


def test_peak_memory_is_that_of_the_command_alone() -> None:
    ballast = bytearray(300_000_000)  # held by this process; a naive count would add it to the child's
    small = timing.measure_command([sys.executable, "-c", "print('hello')"])
    large = timing.measure_command([sys.executable, "-c", "x = bytearray(200_000_000); x[::4096] = x[::4096]"])
    assert len(ballast) == 300_000_000
    assert (small.code, small.output.strip()) == (0, "hello")
    assert small.peak_mb < 60.0
    assert 200.0 < large.peak_mb < 280.0
    assert timing.measure_command([sys.executable, "-c", "raise SystemExit(3)"]).code == 3


def test_a_call_runs_in_a_fresh_process() -> None:
    cost = timing.measure_command(timing.call_command("builtins:print", sep="-"))
    assert cost.code == 0
    assert 0.0 < cost.cpu_s < 5.0


def test_script_runs_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "run.py"), "nothing", "here"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("benchmarks: nothing here; expected one of: ")
