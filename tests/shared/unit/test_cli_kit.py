"""The command-line kit on a tiny program: every end of a command has its code and its one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from tyro.conf import arg

from stcore import cli
from stcore.cli import Command, Outcome, Program, run_cli
from stcore.errors import Diverged, Interrupted, UserError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part."""

    rate: float = 0.5
    """A rate."""
    kind: Literal["one", "two"] = "one"
    """A choice."""
    switched: bool = True
    """On by default."""
    source: tuple[str, ...] = ()
    """Files."""

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise UserError(f"data.rate: {self.rate}; expected a number in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class Round:
    """A variant."""

    kind: Literal["round"] = "round"
    radius: float = 1.0
    """A length."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Another variant."""

    kind: Literal["square"] = "square"
    side_length: int = 2
    """A length."""
    filled: bool = True
    """A choice."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A configuration."""

    shape: Round | Square = field(default_factory=Round)
    data: Part = field(default_factory=Part)
    steps: int = 3
    """A number of steps."""
    seed: int = 0
    """A seed."""


PRESETS = {
    "small": Settings(),
    "large": Settings(steps=300, data=Part(rate=0.25, switched=False)),
    "square": Settings(shape=Square(side_length=5)),
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions(cli.TrainOptions):
    """Train."""

    settings: Annotated[Settings, arg(name="")] = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True)
class EndOptions(cli.CommonOptions):
    """End in some way."""

    end: str = "done"
    """How."""


PROGRAM = Program("stcore", "a program for tests", {
    "train": Command("train", TrainOptions, f"{__name__}:train", cli.train_defaults(Settings, PRESETS, "small")),
    "end": Command("end", EndOptions, f"{__name__}:end"),
    "config list": Command("list", cli.ConfigOptions, f"{__name__}:config_list"),
    "config show": Command("show", cli.ConfigOptions, f"{__name__}:config_show"),
    "config check": Command("check", cli.ConfigOptions, f"{__name__}:config_check"),
})  # fmt: skip


def train(options: TrainOptions) -> Outcome:
    settings = options.settings
    values = {"steps": settings.steps, "rate": settings.data.rate, "switched": settings.data.switched,
              "source": list(settings.data.source), "quiet": options.quiet, "shape": vars(settings.shape)}  # fmt: skip
    return Outcome(f"trained {settings.steps}", values)


def end(options: EndOptions) -> Outcome | None:
    ends: dict[str, BaseException] = {
        "user": UserError("file.csv: two\nlines; expected one"),
        "diverged": Diverged("step 3: the loss is nan"),
        "ctrl-c": Interrupted(signal.SIGINT, "stopped at step 3"),
        "term": Interrupted(signal.SIGTERM, "stopped at step 3"),
        "keyboard": KeyboardInterrupt(),
        "bug": ZeroDivisionError("division by zero"),
    }
    if options.end in ends:
        raise ends[options.end]
    return None if options.end == "silent" else Outcome("all done", {"done": True})


def config_list(options: cli.ConfigOptions) -> Outcome:
    return cli.config_command("list", options, PRESETS, "small")


def config_show(options: cli.ConfigOptions) -> Outcome:
    return cli.config_command("show", options, PRESETS, "small")


def config_check(options: cli.ConfigOptions) -> Outcome:
    return cli.config_command("check", options, PRESETS, "small")


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep handlers of signals and of the log as they are, and make this module importable by its name."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    monkeypatch.setattr(cli, "_set_up_logging", lambda *, quiet: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_cli(PROGRAM, arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(("how", "code", "line"), [
    ("user", 2, "error: file.csv: two lines; expected one\n"),
    ("diverged", 3, "error: step 3: the loss is nan\n"),
    ("ctrl-c", 130, "error: stopped at step 3\n"),
    ("term", 143, "error: stopped at step 3\n"),
    ("keyboard", 130, "error: interrupted\n"),
])  # fmt: skip
def test_every_end_has_its_code_and_one_line(
    how: str, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "end", "--end", how) == (code, "", line)
    found, out, err = said(capsys, "end", "--end", how, "--debug")
    assert (found, out) == (code, "") and err.startswith("Traceback") and err.endswith(line)


def test_a_bug_keeps_its_traceback_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "end", "--end", "bug")
    assert (code, out) == (1, "") and "ZeroDivisionError: division by zero" in err
    assert err.endswith("error: this is a bug, please report it with the lines above\n")


def test_results_are_words_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "end") == (0, "all done\n", "")
    assert said(capsys, "end", "--end", "silent") == (0, "", "")
    code, out, err = said(capsys, "end", "--json")
    assert (code, json.loads(out), err) == (0, {"done": True}, "")


def test_presets_files_and_flags_replace_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('preset = "whatever a run keeps here"\n[data]\nrate = 0.75\n')

    def trained(*flags: str) -> dict[str, Any]:
        code, out, err = said(capsys, "train", "--json", *flags)
        assert code == 0, err
        return json.loads(out)

    assert trained() == {"steps": 3, "rate": 0.5, "switched": True, "source": [], "quiet": False,
                         "shape": {"kind": "round", "radius": 1.0}}  # fmt: skip
    assert trained("--preset", "large")["steps"] == 300
    over = trained("--preset", "large", "--config", str(file))
    assert (over["steps"], over["rate"], over["switched"]) == (300, 0.75, False)
    assert trained("--preset", "large", "--config", str(file), "--data.rate", "0.1")["rate"] == 0.1
    assert trained("--data", "a.csv", "b.csv", "--steps", "5")["source"] == ["a.csv", "b.csv"]
    assert trained("--data.source", "a.csv")["source"] == ["a.csv"]


def test_a_preset_a_file_or_a_flag_names_the_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[shape]\nkind = "square"\nfilled = false\n')

    def shape(*flags: str) -> dict[str, Any]:
        code, out, err = said(capsys, "train", "--json", *flags)
        assert code == 0, err
        return json.loads(out)["shape"]

    assert shape("--shape.radius", "3") == {"kind": "round", "radius": 3.0}
    assert shape("--preset", "square", "--shape.no-filled") == {"kind": "square", "side_length": 5, "filled": False}
    assert shape("--preset=square", "--shape.side_length=7")["side_length"] == 7
    assert shape("--config", str(file)) == {"kind": "square", "side_length": 2, "filled": False}
    assert shape("--config", str(file), "--preset", "square")["side_length"] == 5
    assert shape("--shape.kind", "square", "--shape.side-length", "9")["side_length"] == 9
    assert shape("--shape.kind=round", "--preset", "square") == {"kind": "round", "radius": 1.0}
    # Flags of the configuration decide nothing before it is known, not even where they look like a choice of it.
    assert shape("--data.source", "square", "--shape.radius", "2")["radius"] == 2.0
    code, out, _ = said(capsys, "train", "--preset", "square", "--help")
    assert code == 0 and "--shape.side-length" in out and "--shape.radius" not in out


@pytest.mark.parametrize("preset", PRESETS)
def test_switches_go_both_ways_whatever_their_default(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also beside a preset or --quiet, which change the default between the first look at the flags and the second."""
    for flag, value in (("--data.switched", True), ("--data.no-switched", False)):
        code, out, err = said(capsys, "train", "--quiet", "--json", "--preset", preset, flag)
        assert (code, err) == (0, "") and json.loads(out)["switched"] is value and json.loads(out)["quiet"] is True


@pytest.mark.parametrize(("arguments", "fragments"), [
    (["trian"], ["no command 'trian'", "did you mean 'train'?"]),
    (["xyzzy"], ["no command 'xyzzy'", "see stcore --help"]),
    (["config"], ["expected one of config list, config show, config check"]),
    (["config", "chekc"], ["no command 'config chekc'", "did you mean 'config check'?"]),
    (["train", "--stepz", "3"], ["--stepz", "--steps"]),
    (["train", "--steps"], ["--steps", "Missing value"]),
    (["train", "--steps", "three"], ["--steps", "three"]),
    (["train", "--steps", "1.5"], ["--steps", "1.5"]),
    (["train", "--data.kind", "three"], ["three", "one", "two"]),
    (["train", "--data.rate", "1.5"], ["data.rate: 1.5", "expected a number in (0, 1)"]),
    (["train", "--data.rate", "nan"], ["data.rate: nan", "expected a number in (0, 1)"]),
    (["train", "--shape.kind", "oval"], ["--shape.kind: 'oval'", "expected one of round, square"]),
    (["train", "--shape.kind"], ["--shape.kind: ''", "expected one of round, square"]),
    (["train", "--shape.side-length", "3"], ["--shape.side-length: a field of kind square", "one of round"]),
    (["train", "--shape.no-filled"], ["--shape.no-filled: a field of kind square", "or --shape.kind square"]),
    (["train", "--preset", "square", "--shape.radius=1"], ["--shape.radius: a field of kind round", "one of square"]),
    (["train", "--shape.radiu", "1"], ["--shape.radiu", "--shape.radius"]),
    (["train", "--shape.radius", "long"], ["--shape.radius", "long"]),
    (["train", "extra"], ["extra"]),
    (["train", "--preset", "smal"], ["no preset 'smal'", "did you mean 'small'?"]),
    (["train", "--preset", "qqq"], ["no preset 'qqq'", "expected one of small, large, square"]),
    (["train", "--config", "none.toml"], ["none.toml", "No such file"]),
    (["train", "--device", "tpu"], ["tpu", "auto", "cpu", "cuda"]),
    (["train", "--resume", "nowhere"], ["nowhere", "no such folder", "expected the folder of a run"]),
    (["train", "--resume", "nowhere", "--preset", "small"], ["--resume", "goes with no --preset"]),
    (["config", "check", "none.toml"], ["none.toml", "No such file"]),
    (["config", "check", "a.toml", "b.toml"], ["b.toml"]),
])  # fmt: skip
def test_bad_command_lines_give_one_line(
    arguments: list[str], fragments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
    assert all(fragment in err for fragment in fragments), err
    assert not any(mark in err for mark in "│╭╰\x1b") and list(tmp_path.iterdir()) == []


def test_resume_takes_the_configuration_of_the_run_and_refuses_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.toml").write_text('preset = "large"\nsteps = 9\n[data]\nrate = 0.125\n')
    code, out, _ = said(capsys, "train", "--json", "--resume", str(tmp_path))
    assert code == 0 and json.loads(out)["steps"] == 9 and json.loads(out)["rate"] == 0.125
    stored = cli.run_config(Settings, tmp_path)
    cli.refuse_changes(stored, stored)
    cli.refuse_changes(stored, Settings(steps=8, data=stored.data), harmless=("steps",))
    with pytest.raises(UserError, match=r"--resume: steps differs .*start a new run with --config"):
        cli.refuse_changes(stored, Settings(steps=8, data=stored.data))
    checkpoint = tmp_path / "checkpoints/step-1.safetensors"
    checkpoint.touch()
    assert cli.run_of(checkpoint) == cli.run_of(tmp_path) == tmp_path
    (tmp_path / "config.toml").write_text("step = 9\n")
    code, _, err = said(capsys, "train", "--resume", str(tmp_path))
    assert code == 2 and "config.toml: unknown key 'step'; did you mean 'steps'?" in err


def test_configuration_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    assert said(capsys, "config", "list")[1] == "small\nlarge\nsquare\n"
    file = tmp_path / "c.toml"
    file.write_text("steps = 8\n")
    code, out, _ = said(capsys, "config", "show", str(file), "--preset", "large", "--seed", "5")
    shown = tomllib.loads(out)
    assert code == 0 and (shown["steps"], shown["data"]["rate"], shown["seed"]) == (8, 0.25, 5)
    # What was shown is a configuration itself.
    file.write_text(out)
    assert said(capsys, "config", "check", str(file)) == (0, f"{file}: fine\n", "")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        code, out, err = said(capsys, *arguments)
        assert (code, err) == (0, "") and all(name in out for name in PROGRAM.commands)
    code, out, _ = said(capsys, "train", "--help")
    assert code == 0 and "--data.rate" in out and "A rate." in out and "--resume" in out
    code, out, _ = said(capsys, "--version")
    assert code == 0 and out.startswith("stcore ") and "torch " in out


def test_a_closed_pipe_is_no_error() -> None:
    program = f"{sys.executable} -c \"import sys; from smash.cli import main; sys.exit(main(['config', 'show']))\""
    done = subprocess.run(["sh", "-c", f"{program} | head -c 1; echo"], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and len(done.stdout.strip()) == 1


def test_a_signal_before_training_leaves_with_its_code(tmp_path: Path) -> None:
    """SIGTERM while a command does something else than train: one line and 143."""
    (tmp_path / "waiting.py").write_text(
        textwrap.dedent("""
        import os, signal, sys, time
        from stcore.cli import Command, CommonOptions, Program, run_cli
        def wait(options):
            number = getattr(signal, os.environ["WHICH"])
            if number == signal.SIGINT:  # a shell lets what it starts in the background ignore Ctrl-C
                signal.signal(number, signal.default_int_handler)
            os.kill(os.getpid(), number)
            time.sleep(600)
        if __name__ == "__main__":
            commands = {"wait": Command("wait", CommonOptions, "waiting:wait")}
            sys.exit(run_cli(Program("stcore", "x", commands), ["wait"]))
    """)
    )
    for which, code in (("SIGTERM", 143), ("SIGINT", 130)):
        done = subprocess.run([sys.executable, "waiting.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "WHICH": which})  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (code, 1) and done.stderr.startswith("error: ")


@pytest.mark.parametrize("package", ["smash", "gpd", "svq", "stpred", "vlm4st"])
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["config", "check"]])
def test_help_and_checks_load_nothing_but_the_command_line(package: str, arguments: list[str]) -> None:
    """Neither torch nor numpy: what is loaded takes the time, and seconds differ from machine to machine."""
    pytest.importorskip(package)
    program = f"""
        import sys
        from {package}.cli import main
        assert main(sys.argv[1:]) in (0, None)
        names = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
        print("loaded:", *sorted(names))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    command_line = {"tyro", "docstring_parser", "typing_extensions", "typeguard", "shtab", "colorama", "rich"}
    # The interpreter's own, of virtual environments and editable installs.
    own = {name for name in loaded if name.startswith("_")}
    assert loaded - own <= {package, "stcore"} | command_line
