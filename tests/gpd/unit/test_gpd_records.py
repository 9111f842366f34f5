"""What a stage was made from: read back, compared, and refused when it is no record."""

from __future__ import annotations

import pytest

from gpd.records import BEGUN, Record, digest_of
from stcore.errors import UserError

MADE = Record(stage="generate", config={"sampling": {"steps": 25, "eta": 0.0}, "days": 3}, inputs={"rows": "a"},
              facts={"nodes": 7})  # fmt: skip


def test_a_record_is_read_back(tmp_path):
    assert Record.read(tmp_path) is None
    MADE.write(tmp_path)
    found = Record.read(tmp_path)
    assert found is not None
    assert (found.stage, found.config, found.inputs, found.facts) == (MADE.stage, MADE.config, MADE.inputs, MADE.facts)
    assert found.changes(MADE) == []
    assert Record.read(tmp_path, BEGUN) is None


def test_changes_are_named():
    wanted = Record(stage="generate", config={"sampling": {"steps": 10, "eta": 0.0}, "days": 7}, inputs={"days": "b"})
    assert MADE.changes(wanted) == ["sampling.steps 25, now 10", "days 3, now 7", "other rows", "other days"]


def test_options_of_later_versions_change_nothing_while_they_are_off():
    later = {"sampling": {"steps": 25, "eta": 0.0, "rates": []}, "days": 3}
    wanted = Record(stage="generate", config=later, inputs=MADE.inputs)
    assert MADE.changes(wanted) == [] and not MADE.lacks(wanted)
    later["sampling"]["rates"] = [0.1]  # type: ignore[index]
    assert MADE.changes(wanted) == ["sampling.rates null, now [0.1]"] and MADE.lacks(wanted)


def test_tuples_of_a_configuration_are_lists_in_a_file(tmp_path):
    made = Record(stage="a", config={"features": ("x", "y")}, inputs={})
    made.write(tmp_path)
    found = Record.read(tmp_path)
    assert found is not None
    assert found.changes(made) == []


def test_more_inputs_than_wanted_lack_nothing():
    fewer = Record(stage="generate", config=MADE.config, inputs={})
    assert not MADE.lacks(fewer)
    assert fewer.lacks(MADE)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"stage": 1}', b"\xff"])
def test_what_is_no_record_is_refused(tmp_path, content):
    (tmp_path / "made.json").write_bytes(content)
    with pytest.raises(UserError, match=r"made.json: cannot be read .*; expected the record of a stage"):
        Record.read(tmp_path)


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
