"""Says what a reload now would do, and changes nothing: neither the world nor the image.

Called on the control socket's thread while the arbiter goes on. It reads single attributes of the
image, the file, the code on disk and the store; it binds nothing, rehearses nothing and forgets no
refusal.
"""

from __future__ import annotations

from typing import Any

from netclawd.core.events import Refusal
from netclawd.core.lifecycle import Phase
from netclawd.core.plan import (
    Activity,
    Now,
    Plan,
    TurnNow,
    Verdict,
    plan_refusal,
    plan_reload,
)
from netclawd.core.values import replace
from netclawd.daemon.board import Kind
from netclawd.daemon.image import Image
from netclawd.daemon.judgement import aborts, read_candidate
from netclawd.errors import ConfigAbsentError, ConfigError

#: Restarts whose gaps are looked at.
RESTARTS = 50


def plan(image: Image, text: str | None, name: str) -> dict[str, Any]:
    """Judge the file, or ``text`` in its place (called ``name`` in errors); return the plan."""
    return _plan(image, text, name).as_dict()


def _plan(image: Image, text: str | None, name: str) -> Plan:
    now = _now(image)
    note = ""
    try:
        candidate = read_candidate(image, text, name)
    except ConfigAbsentError as error:
        if not error.missing:
            return _refused(image, now, error)
        # A file that is missing under a running daemon is not a change.
        candidate, note = now.snapshot, error.what
    except ConfigError as error:
        return _refused(image, now, error)
    environment = image.parts.source.overridden(candidate)
    note = " ".join(filter(None, (note, _busy(image.phase))))
    held_back = image.upgrade.refusal()
    planned = replace(plan_reload(now, candidate, environment), note=note)
    if held_back is not None and planned.verdict is Verdict.RESTART:
        return plan_refusal(now, held_back, aborts=False)
    return planned


def _busy(phase: Phase) -> str:
    if phase is Phase.READY:
        return ""
    if phase is Phase.STOPPING:
        return "The daemon is stopping: it carries out no reload any more."
    return (
        f"The daemon is {phase.value}: a reload waits for the end of that, and meets what is then."
    )


def _refused(image: Image, now: Now, error: ConfigError) -> Plan:
    refusal = Refusal(error.slug, error.what, error.remedy)
    return plan_refusal(now, refusal, aborts=aborts(image, error))


def _now(image: Image) -> Now:
    return Now(
        generation=image.generation,
        snapshot=image.snapshot,
        code_changed=image.parts.code_on_disk() != image.parts.code,
        held=image.listeners.held,
        turns=_turns(image),
        gaps_ms=_gaps_ms(image),
        refused_digest=image.refused_digest,
    )


def _turns(image: Image) -> tuple[TurnNow, ...]:
    running = {} if image.engine is None else {r.turn_id: r for r in image.engine.running()}
    turns = []
    for turn in image.the_store().open_turns():
        one = TurnNow(turn.id, turn.session_id, turn.state)
        if (at := running.get(turn.id)) is not None:
            one = replace(one, activity=_activity(at.what), what=at.what, for_s=at.for_s)
        turns.append(one)
    return tuple(turns)


def _activity(what: str) -> Activity:
    if what == Kind.MODEL:
        return Activity.MODEL
    return Activity.TOOL if what.startswith(Kind.TOOL) else Activity.CHECKPOINT


def _gaps_ms(image: Image) -> tuple[float, ...]:
    records = image.the_store().restarts(RESTARTS)
    return tuple(record.gap_ms for record in records if record.gap_ms is not None)
