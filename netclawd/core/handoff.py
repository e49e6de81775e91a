"""The handoff record: all that one image tells the next across execve, besides descriptors.

Pure. The record lies in a memfd that is inherited under the name ``handoff``. It is bound to the
PID, so that a child that inherited the environment by accident can't take it for its own. It
carries the environment, so it never leaves memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netclawd.core.events import Request, Trigger
from netclawd.core.listeners import Kept
from netclawd.core.restart import RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.settings import Snapshot
from netclawd.core.values import as_map, field, field_names, frozen, replace
from netclawd.errors import ManifestError

FORMAT = 1


@frozen
class HandoffRecord:
    pid: int
    #: Generation of the image that wrote it.
    generation: int
    #: What is served from here on.
    snapshot: Snapshot
    #: What was served until here.
    last_good: Snapshot
    #: The journal entry so far; the new image adds generation, outcome and gap.
    restart: RestartRecord
    #: Requests that this restart answers, and those that are still to be judged.
    requests: tuple[Request, ...]
    queued: tuple[Request, ...]
    #: Arguments and environment of the first start, which every image is started from.
    argv: tuple[bytes, ...]
    environ: Mapping[bytes, bytes]
    #: Monotonic instant after which the old image accepted nothing.
    last_accept: float
    kept: tuple[Kept, ...]
    #: Identity of the code that the new image runs, as the old one found it on disk. If the disk
    #: has changed since, the next reload finds a difference and re-executes: the safe side.
    code: str
    #: Wall clock of the first start, seconds since the epoch.
    started_at: float
    #: What is counted and goes on over a restart (core/counters.py); an older image hands over none.
    counters: Mapping[str, float] = field(default_factory=dict)


def to_map(record: HandoffRecord) -> dict[str, Any]:
    """Return the record as a map of plain values."""
    return {
        **{
            k: getattr(record, k)
            for k in ("pid", "generation", "last_accept", "code", "started_at")
        },
        "format": FORMAT,
        "snapshot": snapshot_to_map(record.snapshot),
        "last_good": snapshot_to_map(record.last_good),
        "restart": record.restart.as_dict(),
        "requests": [_request_to_map(r) for r in record.requests],
        "queued": [_request_to_map(r) for r in record.queued],
        "argv": list(record.argv),
        "environ": dict(record.environ),
        "kept": [{**as_map(k), "peer": list(k.peer)} for k in record.kept],
        "counters": dict(record.counters),
    }


def from_map(values: Mapping[str, Any], pid: int) -> HandoffRecord:
    """Read a map; ManifestError when it is not the record of this process."""
    try:
        if values["format"] != FORMAT or values["pid"] != pid:
            raise ManifestError(
                f"The handoff record has format {values['format']} and PID {values['pid']}, "
                f"expected {FORMAT} and {pid}.",
                "Start the daemon without LISTEN_FDS from an earlier run.",
            )
        return HandoffRecord(
            **{k: values[k] for k in ("pid", "generation", "last_accept", "code", "started_at")},
            snapshot=snapshot_from_map(values["snapshot"]),
            last_good=snapshot_from_map(values["last_good"]),
            restart=RestartRecord.from_dict(values["restart"]),
            requests=tuple(_request_from_map(r) for r in values["requests"]),
            queued=tuple(_request_from_map(r) for r in values["queued"]),
            argv=tuple(values["argv"]),
            environ=values["environ"],
            kept=tuple(Kept(**{**k, "peer": tuple(k["peer"])}) for k in values["kept"]),
            counters=dict(values.get("counters", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(
            f"The handoff record is not in the known form ({type(error).__name__}: {error}).",
            "Start the daemon anew; the sessions are resumed from the store.",
        ) from error


def renumber(kept: tuple[Kept, ...], numbers: Mapping[int, int]) -> tuple[Kept, ...]:
    """Return the kept connections under the descriptor numbers that they will have after execve."""
    return tuple(replace(k, fd=numbers[k.fd]) for k in kept)


def snapshot_to_map(snapshot: Snapshot) -> dict[str, Any]:
    return as_map(snapshot)


def snapshot_from_map(values: Mapping[str, Any]) -> Snapshot:
    return Snapshot(**{k: values[k] for k in field_names(Snapshot)})


def _request_to_map(request: Request) -> dict[str, Any]:
    return as_map(request)


def _request_from_map(values: Mapping[str, Any]) -> Request:
    return Request(
        RestartId(values["id"]),
        Trigger(**values["trigger"]),
        force=bool(values["force"]),
        at=float(values["at"]),
    )
