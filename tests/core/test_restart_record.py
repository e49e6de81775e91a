"""One entry of the restart journal, to JSON and back."""

from __future__ import annotations

import json

import pytest

from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.values import field_names

BARE = RestartRecord(RestartId("r1"), Outcome.PENDING, "hup", "", 1700000000.0)

FULL = RestartRecord(
    RestartId("r2"),
    Outcome.FAILED,
    "control",
    "uid 1000 pid 4711",
    1700000000.0,
    ended_at=1700000002.5,
    generation=7,
    new_generation=8,
    old_digest="a" * 64,
    new_digest="b" * 64,
    changed_keys=("daemon.listen", "drain.timeout_s"),
    code_changed=True,
    secrets_changed=True,
    drained=1,
    cut=2,
    parked=3,
    deferred=4,
    gap_ms=41.5,
    drain_s=1.25,
    reason="execve failed.",
    remedy="Mend it.",
    slug="exec-failed",
)


@pytest.mark.parametrize("record", [BARE, FULL], ids=["bare", "full"])
def test_a_record_survives_json(record: RestartRecord) -> None:
    assert RestartRecord.from_dict(json.loads(json.dumps(record.as_dict()))) == record


def test_every_field_is_shown_under_its_name_as_plain_values() -> None:
    shown = FULL.as_dict()
    assert set(shown) == set(field_names(RestartRecord))
    assert shown["outcome"] == "failed"
    assert shown["changed_keys"] == ["daemon.listen", "drain.timeout_s"]
    assert all(type(value) in (str, int, float, bool, list, type(None)) for value in shown.values())


def test_what_a_newer_release_added_is_left_out() -> None:
    assert RestartRecord.from_dict({**FULL.as_dict(), "mood": "good"}) == FULL


def test_what_an_older_release_did_not_write_has_its_default() -> None:
    kept = ("id", "outcome", "trigger", "actor", "requested_at")
    old = {key: value for key, value in BARE.as_dict().items() if key in kept}
    assert RestartRecord.from_dict(old) == BARE


def test_the_outcomes_are_protocol() -> None:
    assert {outcome.value for outcome in Outcome} == {
        "pending",
        "applied",
        "unchanged",
        "refused",
        "failed",
        "rolled-back",
        "overtaken",
        "stopped",
        "crashed",
    }
