"""READMEs say what is true: every command line in them is one the package has, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import gpd.cli
import smash.cli
import stpred.cli
import svq.cli
import vlm4st.cli
from stcore.cli import parse

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "shared/README.md", *sorted(ROOT.glob("packages/*/README.md"))]
PROGRAMS = {"gpd": gpd.cli.PROGRAM, "smash": smash.cli.PROGRAM, "stpred": stpred.cli.PROGRAM, "svq": svq.cli.PROGRAM,
            "vlm4st": vlm4st.cli.PROGRAM}  # fmt: skip


def _commands(document: Path) -> list[str]:
    """Return the command lines of our programs in fenced blocks, continuation lines joined."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    blocks = [text for language, text in fenced if language in ("", "sh", "console")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    wanted = rf"(?:^|uv run )((?:{'|'.join(PROGRAMS)}) .*)"
    return [match[1].partition("  #")[0] for line in lines if (match := re.search(wanted, line))]


@pytest.mark.parametrize(
    ("document", "line"), [(document, line) for document in DOCUMENTS for line in _commands(document)],
    ids=lambda value: value if isinstance(value, str) else value.parent.name,
)  # fmt: skip
def test_documented_commands_parse(document: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    program = PROGRAMS[words[0]]
    if words[1].startswith("--"):
        assert words[1] in ("--help", "--version")
        return
    name = " ".join(words[1:3]) if " ".join(words[1:3]) in program.commands else words[1]
    command = program.commands[name]
    arguments = words[1 + len(name.split()) :]
    if "--resume" in arguments or (command.defaults is not None and name != "train"):
        # Their defaults come from a run, which is not here; the words themselves must still be known.
        command = type(command)(command.summary, command.options, command.target)
    assert parse(command, arguments, prog=line) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    "member", ["shared", "packages/gpd", "packages/smash", "packages/stpred", "packages/svq", "packages/vlm4st"]
)
def test_members_are_complete(member: str) -> None:
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        assert (ROOT / member / name).stat().st_size > 50
    assert list((ROOT / member / "src").glob("*/py.typed"))
