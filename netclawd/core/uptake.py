"""Whether a daemon has taken up what was written: no baseline, no success.

Pure. A daemon that answers "ready" may be the one from before the write, on its way out. So what counts is
compared with a baseline, taken before the write: a generation newer than that one, which serves the digest
that was written, and is ready. Who can't be read has no baseline, and then nothing may be called a success.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from netclawd.core.values import frozen

#: Phases in which a generation answers everybody and is not about to leave.
SERVING = ("ready", "rehearsing")
#: Outcomes after which this attempt is over and the daemon has another configuration.
_FAILED = ("refused", "failed", "rolled-back")


@frozen
class Baseline:
    """The daemon as it was before the write."""

    generation: int
    #: Published digest of what it served.
    digest: str


class Uptake(StrEnum):
    """What became of the attempt so far."""

    WAITING = "waiting"
    TAKEN = "taken"
    FAILED = "failed"


def read_baseline(status: Mapping[str, Any]) -> Baseline | None:
    """Read a status document as a baseline; None when it does not tell generation and digest."""
    generation, digest = status.get("generation"), status.get("digest")
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 1:
        return None
    return Baseline(generation, digest) if isinstance(digest, str) and digest else None


def judge_uptake(
    before: Baseline,
    digest: str,
    status: Mapping[str, Any],
    entry: Mapping[str, Any] | None,
    *,
    effective: bool,
) -> Uptake:
    """Say what a look tells of an attempt.

    ``digest``: of what was written. ``effective``: it differs from what the daemon served, so that only a
    newer generation can have it. ``entry``: the journal entry of the attempt, once it has an outcome.
    """
    now = read_baseline(status)
    newer = now is not None and (now.generation > before.generation or not effective)
    if now is not None and newer and now.digest == digest and status.get("phase") in SERVING:
        return Uptake.TAKEN
    return Uptake.FAILED if entry is not None and _has_failed(entry, status) else Uptake.WAITING


def _has_failed(entry: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    if entry["outcome"] in _FAILED:
        return True
    # Killed while it changed over: the next start serves the last good configuration, and goes on with that.
    started = status.get("phase") in SERVING and status.get("refusal") is not None
    return bool(entry["outcome"] == "crashed" and started)
