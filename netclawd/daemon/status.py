"""What the daemon says of itself: the status document, and one line for STATUS=."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from netclawd.core.lifecycle import Phase
from netclawd.core.manifest import Work, WorkState
from netclawd.core.values import as_map, frozen
from netclawd.daemon.image import Image
from netclawd.errors import StoreError


def status(image: Image) -> Mapping[str, Any]:
    """Return the status document (its keys are protocol)."""
    folders = image.parts.folders
    last, refusal = image.journal.last(), image.refusal
    watched = image.watcher.state() if image.watcher is not None else None
    return {
        "pid": os.getpid(),
        "phase": image.phase.value,
        "generation": image.generation,
        "version": image.parts.version,
        "digest": image.snapshot.published_digest,
        "home": folders.home,
        "config_path": folders.config_path,
        "state_dir": folders.state,
        "runtime_dir": folders.runtime,
        "addresses": [str(a) for a in image.listeners.held if a not in image.retiring],
        "retiring": [str(address) for address in image.retiring],
        "exposure": image.settings.daemon.exposure.value,
        "unauthenticated": image.settings.daemon.allow_unauthenticated,
        "watcher": watched.mode.value if watched is not None else None,
        "degraded": degraded_reasons(image),
        "refusal": as_map(refusal) if refusal is not None else None,
        "configuration": "last-good" if image.serves_last_good else "file",
        "upgrade": _upgrade(image),
        "settled": is_settled(image),
        "started_at": image.parts.origin.started_at,
        "gate": "open" if image.gate.state.open else "closed",
        "new_work": image.settings.drain.new_work.value,
        "drain": _drain(image),
        "turns": _turns(image),
        "calls": _calls(image),
        "approvals": _approvals(image),
        "provider": _provider(image),
        "reminders": _reminders(image),
        **channels_and_outbox(image),
        "streams": image.http.streams() if image.http is not None else 0,
        "last_restart": last.as_dict() if last is not None else None,
    }


def is_settled(image: Image) -> bool:
    """Tell whether nothing is under way, and all code that will be used has been imported."""
    imports = image.imports
    imported = imports is not None and not imports.is_alive()
    return image.phase is Phase.READY and imported


def _upgrade(image: Image) -> dict[str, Any] | None:
    """Return what a package upgrade holds back, None when none is under way."""
    held_back, waiting = image.upgrade.refusal(), image.upgrade.waiting
    if held_back is None:
        return None
    return {**as_map(held_back), "waiting": as_map(waiting) if waiting is not None else None}


def degraded_reasons(image: Image) -> list[str]:
    """Return why the daemon is degraded, a sentence each."""
    watcher, store = image.watcher, image.store  # Read once: the arbiter may take them away.
    channels = image.channels
    troubles = (
        watcher.state().trouble if watcher is not None else "",
        store.trouble() if store is not None else "",
        image.stored.trouble,
        f"No progress is made by: {image.progress.stuck}." if image.progress.stuck else "",
        *(channels.troubles() if channels is not None else ()),
    )
    return [*image.degraded.values(), *(trouble for trouble in troubles if trouble)]


def _drain(image: Image) -> dict[str, Any] | None:
    deadline = image.gate.state.deadline
    if deadline is None or image.engine is None:
        return None
    now = image.parts.clock.monotonic()
    return {
        "deadline_s": round(max(0.0, deadline - now), 1),
        "running": [as_map(running) for running in image.engine.running()],
    }


def _turns(image: Image) -> dict[str, int]:
    if image.engine is None:
        return {"running": 0, "queued": 0, "parked": 0, "deferred": 0}
    return dict(image.engine.counts())


def _calls(image: Image) -> int:
    """Count the model calls of clients, which belong to no turn."""
    return image.engine.open_calls() if image.engine is not None else 0


def _approvals(image: Image) -> int | None:
    """Count what waits for a person's answer; None while the store can't tell."""
    store = image.store  # Read once: the arbiter may take it away.
    try:
        return len(store.approvals(True)) if store is not None else None
    except StoreError:
        return None


def _reminders(image: Image) -> dict[str, Any]:
    from netclawd.daemon.reminders import status  # Not needed to serve.

    return status(image)


def channels_and_outbox(image: Image) -> dict[str, Any]:
    """Return each channel's state, and how many messages aren't sent; None: the store can't tell."""
    store, channels = image.store, image.channels  # Read once: the arbiter may take them away.
    try:
        tally = store.outgoing.tally() if store is not None else None
    except StoreError:
        tally = None
    outbox: Counter[str] = Counter()
    for counts in (tally or {}).values():
        outbox.update(counts.messages)
    shown = [] if channels is None else channels.told(tally or {})
    return {"channels": shown, "outbox": dict(outbox) if tally is not None else None}


def _provider(image: Image) -> dict[str, Any]:
    """Return who answers, and what came of the newest model calls of this generation."""
    chosen = image.settings.providers[image.settings.provider]
    asked = image.engine.provider() if image.engine is not None else {}
    return {
        "name": chosen.name,
        "kind": chosen.kind,
        "model": chosen.model,
        "base_url": chosen.base_url,
        "last_reply_at": None,
        "error": None,
        **asked,
    }


def status_line(image: Image) -> str:
    """Return the text of STATUS=: the phase first, then what an operator wants to know of it."""
    if image.progress.stuck:
        return f"no progress, so the watchdog may end it: {image.progress.stuck}"
    return _phase_line(image)


#: What a phase does, for those who wait for its end.
_DOING = {
    Phase.STARTING: "starting: adopting listeners, opening the session store",
    Phase.WARMING: "warming up",
    Phase.REHEARSING: "rehearsing a new configuration or new code",
    Phase.HANDING_OFF: "handing off to the next image",
}


def _phase_line(image: Image) -> str:
    turns = _turns(image)["running"]
    if image.phase in (Phase.DRAINING, Phase.STOPPING):
        word = "stopping" if image.phase is Phase.STOPPING else "draining"
        calls = _calls(image)
        line = f"{word}: {_count(turns, 'turn')}"
        if calls:
            line += f", {_count(calls, 'model call')} of clients"
        deadline = image.gate.state.deadline
        if deadline is None:  # The drain is announced before it begins.
            return line
        return f"{line}, {max(0.0, deadline - image.parts.clock.monotonic()):.0f} s left"
    if image.phase is Phase.STARTING:
        return _DOING[image.phase]
    running = f"{_count(turns, 'turn')} running"
    if image.phase is not Phase.READY:
        return f"generation {image.generation} {_DOING[image.phase]}, {running}"
    if image.refusal is not None:
        return f"configuration refused: {image.parts.redact(image.refusal.reason)}"
    line = f"generation {image.generation} ready, {running}"
    if image.upgrade.seen:
        return f"{line}; a package upgrade holds restarts back"
    reasons = degraded_reasons(image)
    return f"{line}; degraded: {image.parts.redact(reasons[0])}" if reasons else line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@frozen
class Tally:
    """How many sessions' work in flight ended in each way."""

    drained: int
    cut: int
    parked: int
    deferred: int


def tally(work: Iterable[Work]) -> Tally:
    """Count what became of the work in flight, for the restart journal."""
    states = [one.state for one in work]
    return Tally(
        drained=states.count(WorkState.DRAINED),
        cut=states.count(WorkState.CUT),
        parked=states.count(WorkState.PARKED),
        deferred=states.count(WorkState.DEFERRED),
    )
