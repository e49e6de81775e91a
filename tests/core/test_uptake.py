"""No baseline, no success: what counts as taken up, as failed, and as not known yet."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.core.restart import Outcome
from netclawd.core.uptake import Baseline, Uptake, judge_uptake, read_baseline

BEFORE = Baseline(4, "old")


def status(generation: Any = 5, digest: Any = "new", phase: str = "ready") -> dict[str, Any]:
    return {"generation": generation, "digest": digest, "phase": phase}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (status(), Uptake.TAKEN),
        (status(phase="rehearsing"), Uptake.TAKEN),
        (status(generation=9), Uptake.TAKEN),
        # The one from before is ready to the last.
        (status(generation=4), Uptake.WAITING),
        (status(generation=4, digest="old"), Uptake.WAITING),
        # A restart of somebody else's comes first.
        (status(digest="old"), Uptake.WAITING),
        (status(digest="theirs"), Uptake.WAITING),
        (status(phase="starting"), Uptake.WAITING),
        (status(phase="warming"), Uptake.WAITING),
        (status(phase="draining"), Uptake.WAITING),
        (status(phase="handing-off"), Uptake.WAITING),
        (status(phase="stopping"), Uptake.WAITING),
        # Who does not tell is no success.
        (status(generation=None), Uptake.WAITING),
        (status(generation="5"), Uptake.WAITING),
        (status(generation=True), Uptake.WAITING),
        (status(digest=None), Uptake.WAITING),
        (status(digest=""), Uptake.WAITING),
        ({"phase": "ready"}, Uptake.WAITING),
        ({}, Uptake.WAITING),
    ],
)
def test_taken_up_is_a_newer_generation_with_the_digest_that_is_ready(
    found: dict[str, Any], verdict: Uptake
) -> None:
    assert judge_uptake(BEFORE, "new", found, None, effective=True) is verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (status(generation=4, digest="old"), Uptake.TAKEN),
        (status(generation=4, digest="old", phase="draining"), Uptake.WAITING),
        (status(generation=5, digest="old"), Uptake.TAKEN),
        (status(generation=4, digest="other"), Uptake.WAITING),
        (status(generation=None, digest="old"), Uptake.WAITING),
    ],
)
def test_a_change_without_effect_needs_no_newer_generation(
    found: dict[str, Any], verdict: Uptake
) -> None:
    assert judge_uptake(BEFORE, "old", found, None, effective=False) is verdict


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_refusal_a_failure_and_a_rollback_end_the_attempt(outcome: Outcome) -> None:
    found = judge_uptake(
        BEFORE, "new", status(generation=4), {"outcome": outcome.value}, effective=True
    )
    failed = outcome in (Outcome.REFUSED, Outcome.FAILED, Outcome.ROLLED_BACK)
    assert found is (Uptake.FAILED if failed else Uptake.WAITING)


def test_a_crash_ends_the_attempt_once_the_next_daemon_serves_the_last_good_configuration() -> None:
    refused = {"refusal": {"reason": "killed"}}
    after, booting = status(digest="old") | refused, status(digest="old", phase="warming") | refused
    other = {"outcome": "overtaken"}
    crash = {"outcome": "crashed"}
    assert judge_uptake(BEFORE, "new", after, crash, effective=True) is Uptake.FAILED
    for found, entry in ((booting, crash), (after, None), (after, other)):
        assert judge_uptake(BEFORE, "new", found, entry, effective=True) is Uptake.WAITING
    assert judge_uptake(BEFORE, "new", status() | refused, crash, effective=True) is Uptake.TAKEN


def test_an_older_failure_does_not_hide_that_it_is_taken_up() -> None:
    assert judge_uptake(BEFORE, "new", status(), {"outcome": "refused"}, effective=True) is (
        Uptake.TAKEN
    )


@pytest.mark.parametrize(
    "found",
    [
        {},
        status(generation=None),
        status(generation="4"),
        status(generation=True),
        status(generation=0),
        status(generation=1.5),
        status(digest=None),
        status(digest=""),
        status(digest=5),
    ],
)
def test_what_does_not_tell_generation_and_digest_is_no_baseline(found: dict[str, Any]) -> None:
    assert read_baseline(found) is None


def test_a_status_is_a_baseline() -> None:
    assert read_baseline(status()) == Baseline(5, "new")
