"""The one entry to every benchmark.

    python benchmarks/run.py <package> <subject> [--quick] [--append] [--threads N] [--option NAME=VALUE …]
    python benchmarks/run.py tables [--check]

The first runs `benchmarks/<package>/<subject>.py`, prints its results and appends them to
`benchmarks/results/<package>-<subject>.jsonl`; a quick run is printed only, unless `--append` is given. The second
writes the tables in the READMEs from the newest result of each case.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # `benchmarks/smash` would shadow nothing, but must not be found as `smash` either

from benchmarks import machine, tables  # noqa: E402

from stcore.errors import Interrupted, UserError  # noqa: E402


def find_subjects(root: Path) -> list[tuple[str, str]]:
    """Return (package, subject) of every module below `benchmarks/` that exposes `run`."""
    return [
        (path.parent.name, path.stem.replace("_", "-"))
        for path in sorted((root / "benchmarks").glob("*/*.py"))
        if "\ndef run(" in path.read_text(encoding="utf-8")
    ]


def measured_rows(
    package: str, subject: str, *, quick: bool, threads: int, options: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the results of one benchmark, each with machine, versions, commit and date."""
    module = importlib.import_module(f"benchmarks.{package}.{subject.replace('-', '_')}")
    about = {
        "package": package,
        "subject": subject,
        "quick": quick,
        "date": machine.now(),
        "commit": machine.describe_commit(),
        "versions": machine.describe_versions(package),
        "machine": machine.describe_machine(threads),
    }
    for row in module.run(quick, **options):
        yield {**row, **about}


def run_benchmark(package: str, subject: str, arguments: argparse.Namespace) -> int:
    """Run one benchmark, print its results, and append them where that is asked for."""
    if (package, subject) not in find_subjects(ROOT):
        known = ", ".join(" ".join(pair) for pair in find_subjects(ROOT))
        print(f"benchmarks: {package} {subject}; expected one of: {known}", file=sys.stderr)
        return 2
    _set_threads(arguments.threads)
    options = dict(option.split("=", 1) for option in arguments.option)
    rows = measured_rows(package, subject, quick=arguments.quick, threads=arguments.threads, options=options)
    try:
        for row in rows:
            _print_row(row)
            if arguments.append or not arguments.quick:
                tables.append_row(tables.results_file(ROOT, package, subject), row)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"benchmarks: {stopped}; or with the same command again", file=sys.stderr)
        return stopped.exit_code
    return 0


def write_tables(*, check: bool) -> int:
    """Bring the tables of the READMEs up to date, or only say which are not (exit code 1)."""
    stale = tables.stale_readmes(ROOT)
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {'stale' if check else 'written'}")
    return 1 if check and stale else 0


def _set_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _print_row(row: dict[str, Any]) -> None:
    about = {"package", "subject", "quick", "date", "commit", "versions", "machine", "case"}
    print(f"\n{row['package']} {row['subject']}: {row['case']}")
    for name, value in row.items():
        if name not in about:
            print(f"  {name:<24} {_short(value)}")
    sys.stdout.flush()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _option(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE")
    return text


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line as a namespace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", help="a package, or `tables` to write the tables of the READMEs")
    parser.add_argument("subject", nargs="?", help="what of the package to measure")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats; printed, not kept")
    parser.add_argument("--append", action="store_true", help="keep the results of a quick run too")
    parser.add_argument("--threads", type=int, default=2, help="threads of every timed run (default 2)")
    parser.add_argument("--option", action="append", default=[], type=_option, help="NAME=VALUE for the benchmark")
    parser.add_argument("--check", action="store_true", help="with `tables`: exit with 1 if a README is stale")
    arguments = parser.parse_args(argv)
    if (arguments.subject is None) != (arguments.package == "tables"):
        parser.error("expected <package> <subject>, or tables")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parse_arguments(argv)
    if arguments.package == "tables":
        return write_tables(check=arguments.check)
    return run_benchmark(arguments.package, arguments.subject, arguments)


if __name__ == "__main__":
    sys.exit(main())
