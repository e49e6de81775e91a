"""The handoff record: all that one image tells the next across execve, besides descriptors.

Pure. The record lies in a memfd that is inherited under the name ``handoff``. It is bound to the
PID, so that a child that inherited the environment by accident can't take it for its own. It
carries the environment, so it never leaves memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netclawd.core import shape
from netclawd.core.beginning import RefusedConfig
from netclawd.core.events import Refusal, Request, Trigger
from netclawd.core.listeners import Kept
from netclawd.core.restart import RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.settings import Snapshot
from netclawd.core.text import one_line
from netclawd.core.values import as_map, field, frozen, replace
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
    #: A refusal that stands: what is handed over is no newer file, but the one from before it.
    refused: RefusedConfig | None = None


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
        "refused": as_map(record.refused) if record.refused is not None else None,
    }


def from_map(values: Mapping[str, Any], pid: int) -> HandoffRecord:
    """Read a map; ManifestError when it is not the record of this process."""
    try:
        written, owner = shape.whole(values, "format"), shape.whole(values, "pid")
        if written != FORMAT or owner != pid:
            raise ManifestError(
                f"The handoff record has format {written} and PID {owner}, "
                f"expected {FORMAT} and {pid}.",
                "Start the daemon without LISTEN_FDS from an earlier run.",
            )
        return HandoffRecord(
            pid=pid,
            generation=shape.whole(values, "generation"),
            snapshot=snapshot_from_map(shape.table(values, "snapshot")),
            last_good=snapshot_from_map(shape.table(values, "last_good")),
            restart=_restart_from_map(shape.table(values, "restart")),
            requests=tuple(_request_from_map(r) for r in shape.rows(values, "requests")),
            queued=tuple(_request_from_map(r) for r in shape.rows(values, "queued")),
            argv=shape.all_of(values, "argv", bytes),
            environ=shape.pairs(values, "environ", bytes),
            last_accept=shape.number(values, "last_accept"),
            kept=tuple(_kept_from_map(k) for k in shape.rows(values, "kept")),
            code=shape.text(values, "code"),
            started_at=shape.number(values, "started_at"),
            counters=_counters(values),
            refused=refused_from_map(values.get("refused")),
        )
    except (KeyError, TypeError, ValueError) as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise ManifestError(
            f"The handoff record is not in the known form ({why}).",
            "Start the daemon anew; the sessions are resumed from the store.",
        ) from error


def _restart_from_map(values: Mapping[str, Any]) -> RestartRecord:
    """Read the journal entry; it must be fit for the journal."""
    shape.all_of(values, "changed_keys", str)
    for key in values.keys() - {"changed_keys"}:
        if not isinstance(values[key], str | int | float | None):
            raise TypeError(f"{key} has another type: {type(values[key]).__name__}")
    return RestartRecord.from_dict(values)


def _counters(values: Mapping[str, Any]) -> dict[str, float]:
    if "counters" not in values:
        return {}
    found = shape.table(values, "counters")
    return {shape.text({"counter": name}, "counter"): shape.number(found, name) for name in found}


def _kept_from_map(values: Mapping[str, Any]) -> Kept:
    peer = shape.all_of(values, "peer", object)
    fd, listener = shape.whole(values, "fd"), shape.text(values, "listener")
    return Kept(**{**values, "fd": fd, "peer": peer, "listener": listener})


def renumber(kept: tuple[Kept, ...], numbers: Mapping[int, int]) -> tuple[Kept, ...]:
    """Return the kept connections under the descriptor numbers that they will have after execve."""
    return tuple(replace(k, fd=numbers[k.fd]) for k in kept)


def snapshot_to_map(snapshot: Snapshot) -> dict[str, Any]:
    return as_map(snapshot)


def snapshot_from_map(values: Mapping[str, Any]) -> Snapshot:
    """Read a snapshot; KeyError, TypeError when it has another form."""
    return Snapshot(
        path=shape.text(values, "path"),
        text=None if values["text"] is None else shape.raw(values, "text"),
        effective=shape.table(values, "effective"),
        digest=shape.text(values, "digest"),
        published_digest=shape.text(values, "published_digest"),
    )


def refused_from_map(values: Mapping[str, Any] | None) -> RefusedConfig | None:
    """Read what ``as_map`` wrote; KeyError or TypeError for anything else."""
    if values is None:
        return None
    refusal = shape.table(values, "refusal")
    words = (shape.text(refusal, key) for key in ("slug", "reason", "remedy"))
    return RefusedConfig(shape.text(values, "digest"), Refusal(*words))


def _request_to_map(request: Request) -> dict[str, Any]:
    return as_map(request)


def _request_from_map(values: Mapping[str, Any]) -> Request:
    trigger = shape.table(values, "trigger")
    return Request(
        RestartId(shape.text(values, "id")),
        Trigger(shape.text(trigger, "kind"), shape.text(trigger, "actor")),
        force=shape.flag(values, "force"),
        at=shape.number(values, "at"),
    )
