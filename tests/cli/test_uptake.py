"""Which entry of the restart journal is about a write."""

from __future__ import annotations

from typing import Any

import pytest

from netclawd.adapters.control_client import ControlClient
from netclawd.cli.uptake import Attempt, look, outcome_of


@pytest.mark.parametrize(
    ("outcome", "digest", "found"),
    [
        ("applied", "ours", True),
        ("refused", "ours", True),
        ("rolled-back", "ours", True),
        ("crashed", "ours", True),
        ("pending", "ours", False),
        ("applied", "theirs", False),
    ],
)
def test_an_outcome_is_found_by_its_digest(outcome: str, digest: str, found: bool) -> None:
    entries = [{"outcome": outcome, "new_digest": digest}]
    assert (outcome_of(entries, "ours") is not None) == found


def test_what_was_applied_before_is_not_taken_for_what_is_applied_now() -> None:
    """The entry of the generation that has it is written just after READY."""

    class Journal(ControlClient):
        entries = ({"id": "r1", "outcome": "applied", "new_digest": "theirs", "new_generation": 2},)

        def call(self, do: str, **_arguments: Any) -> Any:
            return {
                "restarts": self.entries,
                "plan": {"verdict": "unchanged", "generation": 3},
            }[do]

    client = Journal("/nonexistent")
    assert look(client, Attempt("/nonexistent", b"", "ours", ())) is None
    ours = {"id": "r2", "outcome": "applied", "new_digest": "by new code", "new_generation": 3}
    client.entries = (ours, *client.entries)  # type: ignore[assignment]
    assert look(client, Attempt("/nonexistent", b"", "ours", ())) == ours
