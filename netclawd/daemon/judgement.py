"""Judges what a request for a restart would change, and writes down what became of it.

Reads the configuration file once; that reading is what is rehearsed, handed over and served.
"""

from __future__ import annotations

import logging
from typing import Any

from netclawd.core.events import (
    BY_ITSELF,
    Change,
    Event,
    JudgedChanged,
    JudgedFatal,
    JudgedUnchanged,
    Refusal,
    Refused,
    Request,
    Trigger,
)
from netclawd.core.handoff import HandoffRecord
from netclawd.core.listeners import parse_addresses
from netclawd.core.restart import Outcome, RestartRecord
from netclawd.core.session import RestartId
from netclawd.core.settings import OnInvalid, Snapshot, changed_keys, secrets_changed
from netclawd.core.values import replace
from netclawd.daemon.image import Image
from netclawd.daemon.runtime_files import refuse_our_files
from netclawd.daemon.status import Tally
from netclawd.errors import ConfigAbsentError, ConfigError, ConfigSyntaxError

log = logging.getLogger("netclawd.lifecycle")


def judge(image: Image, request: Request) -> Event:
    """Say what a request would change; during a package upgrade nothing is changed.

    The marker is looked at last: what was compared before it came was whole.
    """
    event = _compare(image, request)
    held_back = image.upgrade.refusal()
    if held_back is None and isinstance(event, JudgedChanged):
        image.upgrade.waiting = None  # This restart does what waited for the end of an upgrade.
    if held_back is None or isinstance(event, JudgedUnchanged):
        return event
    if request.trigger.kind in BY_ITSELF and image.upgrade.waiting is not None:
        return JudgedUnchanged()  # What waits reads the file again; nobody needs to be told twice.
    return Refused(held_back)


def _compare(image: Image, request: Request) -> Event:
    """Compare the file and the code on disk with what runs."""
    image.candidate_digest = image.absent = None
    image.candidate_published = ""
    image.candidate_without_file = False
    by_itself = request.trigger.kind in BY_ITSELF
    code = image.parts.code_on_disk()
    code_changed = code != image.parts.code
    # New code alone is run for who asks by name: a file that is touched after an upgrade is no request.
    asked = request.force or (code_changed and not by_itself)
    try:
        snapshot = read_candidate(image)
    except ConfigAbsentError as error:
        # Missing or empty under a running daemon is not a change. Who asked to load an empty file is
        # told; a refusal stays, since no good configuration has come.
        if not error.missing and not by_itself:
            return Refused(Refusal(error.slug, error.what, error.remedy))
        log.info("configuration unchanged: %s", error.what)
        if not asked:
            if (
                image.snapshot.text or b""
            ).strip():  # What runs came from a file: who asks is told.
                image.absent = Refusal(error.slug, error.what, error.remedy)
            return JudgedUnchanged()
        snapshot = image.snapshot
        image.candidate_without_file = True
    except ConfigError as error:
        return _judge_error(image, error, by_itself=by_itself)
    if by_itself and snapshot.digest == image.refused_digest:
        return JudgedUnchanged()
    if snapshot.digest == image.snapshot.digest and not asked:
        image.end_refusal()
        image.parts.memory.keep_refused(None)
        return JudgedUnchanged()
    image.code_changed, image.candidate_code = code_changed, code
    image.candidate_digest = snapshot.digest
    image.candidate_published = snapshot.published_digest
    wanted = parse_addresses(snapshot.settings.daemon.listen)
    plan = image.listeners.plan(wanted)
    keys = changed_keys(image.snapshot.effective, snapshot.effective)
    return JudgedChanged(Change(snapshot, plan, keys, code_changed))


def _judge_error(image: Image, error: ConfigError, *, by_itself: bool) -> Event:
    """Refuse, or end the daemon."""
    refusal = Refusal(error.slug, error.what, error.remedy)
    if by_itself and refusal == image.refusal:
        return JudgedUnchanged()
    if not aborts(image, error):
        return Refused(refusal)
    parts = image.parts
    stop = Request(RestartId(parts.ids.new("r")), Trigger("abort"), at=parts.clock.wall())
    return JudgedFatal(refusal, stop)


def aborts(image: Image, error: ConfigError) -> bool:
    """Whether this error ends the daemon. What can't be parsed may be half-written: no reason to die."""
    abort = image.settings.daemon.on_invalid_config is OnInvalid.ABORT
    return abort and not isinstance(error, ConfigSyntaxError)


def read_candidate(image: Image, text: str | None = None, name: str = "") -> Snapshot:
    """Read the file, or take this text; judge what only we know: our files and the sockets handed over."""
    from netclawd.core.exposure import judge_handed_over  # Not on the way to serving.

    source, served = image.parts.source, image.settings.daemon
    if text is None:
        snapshot = source.read(running=True, served=served)
    else:
        snapshot = source.candidate(text.encode(), name, served)
    refuse_our_files(snapshot.settings.daemon.listen, image.parts.folders.runtime)
    judge_handed_over(snapshot.settings.daemon, image.listeners.handed_over_hosts())
    return snapshot


def file_differs(image: Image) -> bool:
    """Tell whether the file now differs from what is served; a file that is bad differs too."""
    try:
        return read_candidate(image).digest != image.snapshot.digest
    except ConfigAbsentError:
        return False
    except ConfigError:
        return True


def describe(image: Image, snapshot: Snapshot | None) -> dict[str, Any]:
    """Return the fields of a journal entry that tell what changes."""
    if snapshot is None:
        return {}
    return {
        "new_digest": snapshot.published_digest,
        "changed_keys": changed_keys(image.snapshot.effective, snapshot.effective),
        "code_changed": image.code_changed,
        "secrets_changed": secrets_changed(image.snapshot, snapshot),
    }


def begin_record(image: Image, request: Request, snapshot: Snapshot | None) -> RestartRecord:
    """Open a journal entry for a request that is being carried out."""
    return RestartRecord(
        id=request.id,
        outcome=Outcome.PENDING,
        trigger=request.trigger.kind,
        actor=request.trigger.actor,
        requested_at=request.at,
        generation=image.generation,
        old_digest=image.snapshot.published_digest,
        **describe(image, snapshot),
    )


def with_drain(record: RestartRecord, tally: Tally, drain_s: float | None) -> RestartRecord:
    """Add what the drain did."""
    return replace(
        record,
        drained=tally.drained,
        cut=tally.cut,
        parked=tally.parked,
        deferred=tally.deferred,
        drain_s=None if drain_s is None else round(drain_s, 3),
    )


def ended(
    record: RestartRecord, outcome: Outcome, wall: float, refusal: Refusal | None
) -> RestartRecord:
    """Close a journal entry that did not lead to a new generation."""
    if refusal is None:
        return replace(record, outcome=outcome, ended_at=wall)
    return replace(
        record,
        outcome=outcome,
        ended_at=wall,
        reason=refusal.reason,
        remedy=refusal.remedy,
        slug=refusal.slug,
    )


def applied(
    handoff: HandoffRecord,
    generation: int,
    wall: float,
    gap_ms: float,
    failure: Refusal | None,
) -> tuple[RestartRecord, ...]:
    """Close the entries of all requests that the restart answers; with a failure as rolled back."""
    outcome = Outcome.APPLIED if failure is None else Outcome.ROLLED_BACK
    done = replace(
        ended(handoff.restart, outcome, wall, failure),
        new_generation=generation,
        gap_ms=round(gap_ms, 1),
    )
    joined = (
        replace(done, id=r.id, trigger=r.trigger.kind, actor=r.trigger.actor, requested_at=r.at)
        for r in handoff.requests[1:]
    )
    return (*joined, done)
