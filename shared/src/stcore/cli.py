"""The command-line kit: commands are dataclasses of options and the name of the function that takes them.

A package lists its commands, and `run_cli` parses, calls and turns what happens into one line and an exit code.
Nothing here or in a package's `cli.py` imports torch before a command runs.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_type_hints

from tyro.conf import Positional

from stcore.configuration import differences, from_plain, overlay, read_toml, to_plain
from stcore.errors import BUG, DIVERGED, DONE, USER_ERROR, Diverged, Interrupted, UserError
from stcore.files import to_json
from stcore.variants import choose_by_flags, fields_of

ConfigType = TypeVar("ConfigType")
MANY = 60
"""Names that an error lists at most."""


class Outcome(NamedTuple):
    """What a command found: words for people, data for `--json`."""

    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options of every command."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; `auto` takes a GPU where there is one."""
    quiet: bool = False
    """Print nothing but results and errors."""
    debug: bool = False
    """Show the traceback of an error."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CommonOptions):
    """Options of `train` beside the configuration itself."""

    preset: str = ""
    """Named configuration to start from; see `config list`."""
    config: Path | None = None
    """TOML file that replaces fields of the preset; a run's config.toml repeats that run."""
    run: Path | None = None
    """Folder of the run; by default a fresh one under runs/."""
    resume: Path | None = None
    """Run or checkpoint to go on with, exactly."""
    init_from: Path | None = None
    """Run whose weights a new run starts from."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions(CommonOptions):
    """Options of `demo`."""

    run: Path | None = None
    """Folder of the run; by default a fresh one under runs/."""
    seed: int = 0
    """Seed of everything."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(CommonOptions):
    """Options of `convert`."""

    file: Positional[Path]
    """File of the original implementation."""
    out: Path
    """File to write."""
    seed: int = 0
    """Not used by a conversion; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions(CommonOptions):
    """Options of `config show` and `config check`."""

    file: Positional[Path | None] = None
    """TOML file that replaces fields of the preset."""
    preset: str = ""
    """Named configuration to start from."""
    seed: int | None = None
    """Replaces the seed."""


@dataclass(frozen=True, kw_only=True)
class NameOptions(CommonOptions):
    """Options of commands on one named thing."""

    name: Positional[str] = ""
    """Name in the catalogue."""
    seed: int = 0
    """Not used; accepted everywhere."""


@dataclass(frozen=True)
class Command:
    """One command of a package."""

    summary: str
    """One line for `--help`."""
    options: Any
    """Dataclass of its options."""
    target: str
    """`module:function`, called with the options; imported only when the command runs."""
    defaults: Callable[[Any], Any] | None = None
    """From the options as first parsed to the defaults of the final parse: a preset, or a run's configuration. Where
    options have a field `settings`, that is the configuration, and it has its default still."""


@dataclass(frozen=True)
class Program:
    """A package's command line."""

    package: str
    summary: str
    commands: Mapping[str, Command] = field(default_factory=dict[str, Command])
    """Commands by name; a name of two words makes a group, as in `data check`."""


def run_cli(program: Program, argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        outcome = _run(program, arguments)
        # Of several processes the first speaks for all.
        if outcome is not None and os.environ.get("RANK", "0") == "0":
            _write(to_json(outcome.data) if "--json" in arguments else outcome.text)
    except UserError as error:
        return _fail(str(error), USER_ERROR, debug=debug)
    except Diverged as error:
        return _fail(str(error), DIVERGED, debug=debug)
    except Interrupted as error:
        return _fail(str(error), error.exit_code, debug=debug)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT, debug=debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception:
        traceback.print_exc()
        return _fail("this is a bug, please report it with the lines above", BUG, debug=False)
    return DONE


def _run(program: Program, arguments: list[str]) -> Outcome | None:
    if not arguments or arguments[0] in ("-h", "--help"):
        return Outcome(_overview(program), {"commands": list(program.commands)})
    if arguments[0] == "--version":
        versions = {name: _version(name) for name in (program.package, "stcore", "torch")}
        return Outcome(", ".join(f"{name} {version}" for name, version in versions.items()), versions)
    name, rest = _find_command(program, arguments)
    command = program.commands[name]
    options = parse(command, rest, prog=f"{program.package} {name}")
    if options is None:
        return None
    signal.signal(signal.SIGTERM, _terminated)
    _set_up_logging(quiet=options.quiet)
    module, _, function = command.target.partition(":")
    outcome = getattr(importlib.import_module(module), function)(options)
    return cast("Outcome | None", outcome)


def parse(command: Command, arguments: Sequence[str], *, prog: str) -> Any:
    """Parse the options of `command`; None when help was printed instead.

    Raises:
        UserError: whatever is wrong, in one line.
    """
    tokens = [re.sub(r"^--data(?==|$)", "--data.source", token) for token in arguments]
    if command.defaults is None:
        return _parse_once(command.options, tokens, prog)
    early = _parse_early if "settings" in fields_of(command.options) else _parse_once
    options = early(command.options, tokens, prog)
    if options is None:
        return None
    defaults = command.defaults(options)
    if early is _parse_early:
        defaults = replace(defaults, settings=choose_by_flags(defaults.settings, tokens))
    return _parse_once(command.options, tokens, prog, default=defaults)


def train_defaults(kind: type[ConfigType], presets: Mapping[str, ConfigType], default: str) -> Callable[[Any], Any]:
    """Make the `defaults` of a `train` command whose options hold the configuration in `settings`.

    A preset, then a file, then flags; with `--resume` the run's own configuration and flags that change nothing.
    """

    def defaults(options: Any) -> Any:
        if options.resume is not None:
            if options.preset or options.config or options.run or options.init_from:
                raise UserError("--resume: goes with no --preset, --config, --run or --init-from; the run has its own")
            return replace(options, settings=run_config(kind, run_of(options.resume)))
        base = pick_preset(presets, options.preset or default)
        if options.config is None:
            return replace(options, settings=base)
        values = {key: value for key, value in read_toml(options.config).items() if key != "preset"}
        return replace(options, settings=overlay(base, values, where=str(options.config)))

    return defaults


def refuse_changes(stored: Any, wanted: Any, *, harmless: Sequence[str] = ()) -> None:
    """Refuse flags on `--resume` that would change results.

    Raises:
        UserError: names the first such field.
    """
    for path in differences(stored, wanted):
        if path not in harmless:
            raise UserError(
                f"--resume: {path} differs from the run's configuration; expected the same, since it changes results; "
                "start a new run with --config on the run's config.toml, or --init-from the run"
            )


def pick_preset(presets: Mapping[str, ConfigType], name: str) -> ConfigType:
    """Return the preset `name`.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name in presets:
        return presets[name]
    near = difflib.get_close_matches(name, presets, n=1)
    known = ", ".join(presets) if len(presets) <= MANY else f"{len(presets)} names; see config list"
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {known}"
    raise UserError(f"--preset: no preset {name!r}; {hint}")


def run_of(target: Path) -> Path:
    """Return the folder of the run that `target`, a run or one of its checkpoints, belongs to."""
    return target.parent.parent if target.is_file() and target.parent.name == "checkpoints" else target


def run_config(kind: type[ConfigType], run: Path) -> ConfigType:
    """Read the configuration of a run.

    Raises:
        UserError: `run` is no run, or its configuration no longer fits.
    """
    path = run / "config.toml"
    if not path.is_file():
        what = "no such folder" if not run.exists() else "no config.toml inside"
        raise UserError(f"{run}: {what}; expected the folder of a run")
    values = {key: value for key, value in read_toml(path).items() if key != "preset"}
    return from_plain(kind, values, where=str(path))


def config_command(action: str, options: Any, presets: Mapping[str, Any], default: str) -> Outcome:
    """Do `config list`, `config show` or `config check`."""
    if action == "list":
        return Outcome("\n".join(presets), {"presets": list(presets)})
    config = pick_preset(presets, options.preset or default)
    if options.file is not None:
        values = {key: value for key, value in read_toml(options.file).items() if key != "preset"}
        config = overlay(config, values, where=str(options.file))
    if options.seed is not None:
        config = replace(config, seed=options.seed)
    if action == "check":
        return Outcome(f"{options.file or options.preset or default}: fine", {"valid": True})
    import tomli_w

    return Outcome(tomli_w.dumps(to_plain(config)).rstrip(), to_plain(config))


def _parse_early(kind: Any, tokens: Sequence[str], prog: str) -> Any:
    """Parse what decides on the configuration (preset, file, run), and leave the configuration's own flags alone: which
    of them there are may depend on it."""
    given = [token for token in tokens if token not in ("-h", "--help")]
    if not given:
        return kind()
    hints = get_type_hints(kind, include_extras=True)
    chosen: list[Any] = [
        (one.name, hints[one.name], field(default=one.default, default_factory=one.default_factory))
        for one in fields(kind) if one.name != "settings"
    ]  # fmt: skip
    plain = make_dataclass(kind.__name__, chosen, kw_only=True)
    known = _parse_once(plain, given, prog, lenient=True)
    return kind(**vars(known))


def _parse_once(kind: Any, tokens: Sequence[str], prog: str, *, default: Any = None, lenient: bool = False) -> Any:
    import tyro

    known: dict[str, Any] = {} if default is None else {"default": default}
    printed, complained = io.StringIO(), io.StringIO()
    columns = os.environ.get("COLUMNS")
    try:
        # Wide, so that a complaint is not wrapped in the middle of a word.
        if "--help" not in tokens and "-h" not in tokens:
            os.environ["COLUMNS"] = "1000"
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            # A flag has its --no- form too, whatever the default that a preset or a run gives it.
            markers = (tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff)
            parsed: Any = tyro.cli(kind, args=list(tokens), prog=prog, config=markers, return_unknown_args=lenient,
                                   **known)  # fmt: skip
            return parsed[0] if lenient else parsed
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise UserError(_unboxed(complained.getvalue(), prog)) from None
        _write(printed.getvalue().rstrip())
        return None
    finally:
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns


def _unboxed(box: str, prog: str) -> str:
    """Make one line of the framed complaint that tyro prints: title, frame and the hint at --help go."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[-─]{4,}", "", line.strip(" │|╭╮╰╯├┤")).strip() for line in plain.splitlines()]
    wanted = [line for line in lines[1:] if line and not line.startswith(("For full helptext", f"{prog} --help"))]
    # Our own errors name the field already, and the help of a field is a --help away.
    text = re.sub(r"Error parsing settings[\w.]*: | Argument helptext: .*", "", " ".join(wanted))
    return f"{prog}: {text.rstrip('.') or 'cannot be understood'}; see {prog} --help"


def _find_command(program: Program, arguments: list[str]) -> tuple[str, list[str]]:
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in program.commands:
            return name, arguments[words:]
    group = [name for name in program.commands if name.startswith(f"{arguments[0]} ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        raise UserError(f"{program.package} {arguments[0]}: expected one of {', '.join(group)}")
    given = " ".join(arguments[:2]) if group else arguments[0]
    near = difflib.get_close_matches(given, group or list(program.commands), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"see {program.package} --help"
    raise UserError(f"{program.package}: no command {given!r}; {hint}")


def _overview(program: Program) -> str:
    width = max(len(name) for name in program.commands)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in program.commands.items()]
    head = f"{program.package} {_version(program.package)}: {program.summary}"
    tail = f"{program.package} COMMAND --help shows the options of a command; --version prints the versions."
    return "\n".join([head, "", *lines, "", tail])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _set_up_logging(*, quiet: bool) -> None:
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", handlers=[handler])
    for noisy in ("accelerate", "torch", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _terminated(number: int, frame: object) -> None:
    raise Interrupted(number, "terminated; nothing was being trained")


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
