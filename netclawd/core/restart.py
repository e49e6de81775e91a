"""What is remembered of each restart, refusal and stop: one journal entry.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from netclawd.core.session import RestartId
from netclawd.core.values import as_map, field_names, frozen


class Outcome(StrEnum):
    """How a request for a restart ended; the values are protocol."""

    #: Not ended yet.
    PENDING = "pending"
    #: The new generation serves.
    APPLIED = "applied"
    #: Nothing was new; no restart.
    UNCHANGED = "unchanged"
    #: Refused before the commit point; the old generation goes on.
    REFUSED = "refused"
    #: execve returned; the old generation goes on.
    FAILED = "failed"
    #: The new image failed before it was ready; the last good configuration serves again.
    ROLLED_BACK = "rolled-back"
    #: A stop came first.
    OVERTAKEN = "overtaken"
    #: The process stopped after a whole drain.
    STOPPED = "stopped"
    #: The process ended without a drain and this start found out.
    CRASHED = "crashed"


@frozen
class RestartRecord:
    id: RestartId
    outcome: Outcome
    #: What asked: hup, file, control, boot, term, int, abort.
    trigger: str
    #: Who asked, as far as known ("uid 1000 pid 4711").
    actor: str
    #: Wall clock, seconds since the epoch.
    requested_at: float
    ended_at: float | None = None
    #: Generation that was asked, and the one that serves afterwards.
    generation: int = 0
    new_generation: int | None = None
    old_digest: str = ""
    new_digest: str = ""
    changed_keys: tuple[str, ...] = ()
    code_changed: bool = False
    #: A secret behind an unchanged reference, or the text in the system prompt's file, is another one.
    secrets_changed: bool = False
    drained: int = 0
    cut: int = 0
    parked: int = 0
    deferred: int = 0
    #: From the end of accepting by the old image to its beginning by the new one, milliseconds.
    gap_ms: float | None = None
    drain_s: float | None = None
    #: The reason of a refusal or failure, and what to do about it.
    reason: str = ""
    remedy: str = ""
    slug: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-compatible values under the field names."""
        return {
            **as_map(self),
            "outcome": self.outcome.value,
            "changed_keys": list(self.changed_keys),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RestartRecord:
        """Read what :meth:`as_dict` wrote; unknown keys are left out."""
        known = {k: v for k, v in values.items() if k in field_names(cls)}
        known["outcome"] = Outcome(known["outcome"])
        known["changed_keys"] = tuple(known.get("changed_keys", ()))
        return cls(**known)
