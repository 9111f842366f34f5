"""What each stage of a run was made from: configuration, digests of its inputs, versions; JSON beside its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from stcore.errors import UserError
from stcore.files import to_json, write_atomically

NAME, BEGUN = "made.json", "making.json"
"""Record of a stage that is done, and of one that is being made."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a stage was made from."""

    stage: str
    config: Mapping[str, Any]
    """The parts of the configuration that its result depends on, as plain values."""
    inputs: Mapping[str, str]
    """Digest of each of its inputs, by name: data sets and the results of earlier stages."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else is worth knowing; changes nothing."""

    def write(self, folder: Path, name: str = NAME) -> None:
        """Write this into the folder of its stage, durably.

        Raises:
            UserError: the disk refuses.
        """
        data = {"stage": self.stage, "config": self.config, "inputs": self.inputs, "facts": self.facts,
                "gpd": version("gpd"), "core": version("stcore")}  # fmt: skip
        write_atomically(folder / name, [to_json(data).encode()])

    @classmethod
    def read(cls, folder: Path, name: str = NAME) -> Record | None:
        """Read the record of a stage; None where the stage is not done.

        Raises:
            UserError: what is there is no record.
        """
        path = folder / name
        if not path.is_file():
            return None
        try:
            data = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
            return cls(stage=data["stage"], config=data["config"], inputs=data["inputs"], facts=data["facts"])
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); expected the record of a stage; remove the folder "
                            f"{folder} to do the stage again") from error  # fmt: skip

    def changes(self, wanted: Record) -> list[str]:
        """Return in words what of `wanted` differs from this.

        An option that is off and that this does not know came with a later version, and changes nothing.
        """
        mine, other = json.loads(to_json(self.config)), json.loads(to_json(wanted.config))
        found = list(_differences(mine, other, ""))
        names = {**self.inputs, **wanted.inputs}
        return found + [f"other {name}" for name in names if self.inputs.get(name) != wanted.inputs.get(name)]

    def lacks(self, wanted: Record) -> bool:
        """Return whether this was made otherwise than `wanted`, or from fewer inputs."""
        same = not self.changes(replace(wanted, inputs=self.inputs))
        return not (same and wanted.inputs.items() <= self.inputs.items())


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        for key in {**left, **right}:
            if key not in left and not right[key]:
                continue
            yield from _differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
    elif one != other:
        yield f"{path} {_short(one)}, now {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    state = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            state.update(piece)
    return state.hexdigest()
