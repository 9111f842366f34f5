"""Each package alone, from a clone by plain pip: imported, asked for help, trained one step."""

from __future__ import annotations

from pathlib import Path

import pytest
from installed_alone import (
    INSTALL,
    PACKAGES,
    check_package,
    copy_clone,
    empty_environment,
    run_command,
    write_constraint,
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def constraint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_constraint(tmp_path_factory.mktemp("constraint"))


@pytest.mark.network
@pytest.mark.parametrize("name", PACKAGES)
def test_installs_alone_from_a_clone(name: str, clone: Path, constraint: Path, tmp_path: Path) -> None:
    scripts = empty_environment(tmp_path / "environment")
    run_command(scripts / "python", "-m", "pip", *INSTALL, "./shared", f"./packages/{name}", cwd=clone,
                PIP_CONSTRAINT=str(constraint))  # fmt: skip
    check_package(PACKAGES[name], scripts, tmp_path, clone / "shared")
