"""The drain manifest: which sessions had work in flight when the daemon drained, and why.

Pure. It holds ids, never contents. The store is the truth about every turn; the manifest says what
to warm up first and tells people what happened. So a lost or damaged one costs order and a reason,
never a turn. Unknown keys survive a read and a write, so that an older release can carry a newer
one's manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from netclawd.core import shape
from netclawd.core.text import one_line
from netclawd.core.values import field, frozen
from netclawd.errors import ManifestError

FORMAT = 1


class WorkState(StrEnum):
    """What became of a session's work in flight."""

    #: Marked before the drain; a manifest that still says so was left by a kill in the drain.
    RUNNING = "running"
    #: Stopped at a checkpoint.
    DRAINED = "drained"
    #: A model call or tool was cut at its deadline.
    CUT = "cut"
    #: Waits for a person.
    PARKED = "parked"
    #: Admitted while the gate was closed.
    DEFERRED = "deferred"


@frozen
class Work:
    """One session's work in flight."""

    session_id: str
    turn_id: str
    #: Number of the session's newest event at its last checkpoint.
    checkpoint: int
    state: WorkState
    #: Delivery route ("api").
    route: str
    #: Wall clock after which the turn is parked instead of resumed; None when a person is waited for.
    resume_deadline: float | None
    extra: Mapping[str, Any] = field(default_factory=dict)


@frozen
class Manifest:
    generation: int
    restart_id: str
    #: reload or stop.
    reason: str
    trigger: str
    #: Wall clock, seconds since the epoch.
    requested_at: float
    old_digest: str
    new_digest: str
    #: Version of the program that wrote it.
    writer: str
    #: Listener names with their addresses.
    listeners: Mapping[str, str]
    work: tuple[Work, ...]
    #: Written after the drain, not before it: what it says of the work is final.
    settled: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


_WORK_KEYS = ("session_id", "turn_id", "checkpoint", "state", "route", "resume_deadline")
_KEYS = (
    "generation",
    "restart_id",
    "reason",
    "trigger",
    "requested_at",
    "old_digest",
    "new_digest",
    "writer",
    "listeners",
)


def to_map(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as a map of plain values, without its checksum."""
    rows = [
        {**work.extra, **{k: getattr(work, k) for k in _WORK_KEYS}, "state": work.state.value}
        for work in manifest.work
    ]
    known = {k: getattr(manifest, k) for k in _KEYS}
    return {
        **manifest.extra,
        **known,
        "format": FORMAT,
        "listeners": dict(manifest.listeners),
        "work": rows,
        "settled": manifest.settled,
    }


def from_map(values: Mapping[str, Any]) -> Manifest:
    """Read a map; ManifestError when a key is missing or has another type, or a newer format."""
    try:
        if shape.whole(values, "format") > FORMAT:
            raise ManifestError(
                f"The manifest has format {values['format']}, this release reads up to {FORMAT}.",
                "Start the release that wrote it, or move the file aside: the store has every turn.",
            )
        if values["format"] < 1:
            raise ValueError(f"format is {values['format']}")
        return Manifest(
            **{k: _READ.get(k, shape.text)(values, k) for k in _KEYS},
            work=tuple(_work(row) for row in shape.rows(values, "work")),
            settled="settled" in values and shape.flag(values, "settled"),  # 0.1 didn't say.
            extra={
                k: v for k, v in values.items() if k not in (*_KEYS, "format", "work", "settled")
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise ManifestError(
            f"The manifest is not in the known form ({why}).",
            "It was set aside; the sessions are resumed from the store.",
        ) from error


def _work(row: Mapping[str, Any]) -> Work:
    known = {k: _READ.get(k, shape.text)(row, k) for k in _WORK_KEYS}
    known["state"] = WorkState(known["state"])
    return Work(**known, extra={k: v for k, v in row.items() if k not in _WORK_KEYS})


#: How a key is read that isn't text.
_READ: Mapping[str, Callable[[Mapping[str, Any], str], Any]] = {
    "generation": shape.whole,
    "checkpoint": shape.whole,
    "requested_at": shape.number,
    "resume_deadline": shape.number_or_none,
    "listeners": lambda values, key: shape.pairs(values, key, str),
}
