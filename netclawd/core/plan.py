"""What a reload now would do: the same comparison that a restart begins with, as values to be shown.

Pure. Values in, values out; whoever asks has read them without changing anything, and nothing that
comes out is carried out. Invariant: the deadlines are those of the *running* configuration, because
a drain is the old generation's; the new one's begin with its READY.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from netclawd.core import budgets
from netclawd.core.events import Refusal
from netclawd.core.listeners import Address, ListenerPlan, parse_addresses, plan_listeners
from netclawd.core.session import SessionId, TurnId, TurnState
from netclawd.core.settings import DrainSettings, Snapshot, differences, secrets_changed
from netclawd.core.values import as_map, field, frozen


class Verdict(StrEnum):
    """What would come of it; the values are protocol."""

    RESTART = "restart"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    #: No daemon runs: the next start would serve it.
    START = "start"


class Activity(StrEnum):
    """What a turn is at."""

    MODEL = "model"
    TOOL = "tool"
    #: Between two of them.
    CHECKPOINT = "checkpoint"


class Fate(StrEnum):
    """What would become of a turn that has not ended; the values are protocol."""

    #: It stops at its next checkpoint and is resumed.
    CHECKPOINT = "checkpoint"
    #: Its model call may end in time; otherwise it is cut, and repeated by the new generation.
    REPEATED = "repeated"
    #: Its tool may end in time; otherwise it is told to stop.
    ENDED = "ended"
    #: It waits for a person, before and after.
    PARKED = "parked"
    #: Nobody has begun it: the new generation does.
    DEFERRED = "deferred"


@frozen
class TurnNow:
    """A turn that has not ended, and what it is at right now."""

    turn_id: TurnId
    session_id: SessionId
    state: TurnState
    activity: Activity = Activity.CHECKPOINT
    #: In words: "model call", "tool NAME".
    what: str = ""
    #: Seconds that it has taken so far.
    for_s: float = 0.0


@frozen
class TurnPlan:
    turn_id: TurnId
    session_id: SessionId
    what: str
    for_s: float
    fate: Fate
    #: Seconds that it gets at most, None where nothing is waited for.
    at_most_s: float | None


@frozen
class ValueChange:
    """One effective value that differs; None where it is not set."""

    key: str
    old: Any
    new: Any


@frozen
class Gap:
    """How long nobody was accepted at restarts before this one."""

    median_ms: float
    worst_ms: float
    #: Of so many restarts.
    restarts: int


@frozen
class Bounds:
    """The longest that each part of a restart may take, seconds."""

    rehearsal_s: float
    drain_s: float
    #: What a request in progress gets beyond the drain.
    quiesce_s: float
    #: From execve to READY; the warm-up is a part of it.
    boot_s: float
    warm_up_s: float
    #: All of them, from the request to READY.
    sum_s: float


@frozen
class Now:
    """What runs, as far as a plan needs it."""

    generation: int
    snapshot: Snapshot
    code_changed: bool
    held: tuple[Address, ...]
    turns: tuple[TurnNow, ...]
    #: Gaps of recent restarts, milliseconds.
    gaps_ms: tuple[float, ...]
    #: Digest that was refused, which only somebody who asks has tried again.
    refused_digest: str | None = None


@frozen
class Plan:
    verdict: Verdict
    generation: int | None = None
    #: Published digests of what runs and of the candidate.
    digest: str = ""
    new_digest: str = ""
    refusal: Refusal | None = None
    #: The refusal would end the daemon (``daemon.on_invalid_config = "abort"``).
    aborts: bool = False
    #: What else is to be known: the file is missing, a restart is under way.
    note: str = ""
    changes: tuple[ValueChange, ...] = ()
    code_changed: bool = False
    secrets_changed: bool = False
    listeners: ListenerPlan = ListenerPlan((), (), ())
    turns: tuple[TurnPlan, ...] = ()
    gap: Gap | None = None
    bounds: Bounds | None = None
    #: This content was refused before: a change of the file alone doesn't have it tried again.
    refused_before: bool = False
    #: Settings that an environment variable of the daemon decides, with its name.
    environment: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-compatible values under the field names, addresses as they are configured."""
        return {
            **as_map(self),
            "listeners": {
                name: [str(address) for address in getattr(self.listeners, name)]
                for name in ("bind", "keep", "retire")
            },
        }


def plan_reload(now: Now, candidate: Snapshot, environment: Mapping[str, str]) -> Plan:
    """Say what asking for a reload would do with a candidate that has passed its judgement."""
    running = now.snapshot
    nothing_new = candidate.digest == running.digest and not now.code_changed
    return Plan(
        verdict=Verdict.UNCHANGED if nothing_new else Verdict.RESTART,
        generation=now.generation,
        digest=running.published_digest,
        new_digest=candidate.published_digest,
        changes=changed_values(running.effective, candidate.effective),
        code_changed=now.code_changed,
        secrets_changed=secrets_changed(running, candidate),
        listeners=_listeners(now.held, candidate),
        turns=() if nothing_new else plan_turns(now.turns, running.settings.drain),
        gap=None if nothing_new else expected_gap(now.gaps_ms),
        bounds=None if nothing_new else plan_bounds(running),
        refused_before=candidate.digest == now.refused_digest,
        environment=environment,
    )


def plan_refusal(now: Now, refusal: Refusal, *, aborts: bool) -> Plan:
    """Say that a candidate would be refused, and whether that would end the daemon."""
    return Plan(
        verdict=Verdict.REFUSED,
        generation=now.generation,
        digest=now.snapshot.published_digest,
        refusal=refusal,
        aborts=aborts,
        code_changed=now.code_changed,
    )


def plan_start(before: Snapshot, candidate: Snapshot, environment: Mapping[str, str]) -> Plan:
    """Say what a start would serve, compared with what was served (or would be) before."""
    return Plan(
        verdict=Verdict.START,
        digest=before.published_digest,
        new_digest=candidate.published_digest,
        changes=changed_values(before.effective, candidate.effective),
        secrets_changed=secrets_changed(before, candidate),
        listeners=_listeners((), candidate),
        environment=environment,
    )


def _listeners(held: Sequence[Address], candidate: Snapshot) -> ListenerPlan:
    return plan_listeners(held, parse_addresses(candidate.settings.daemon.listen))


def changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[ValueChange, ...]:
    """Return the effective values that differ, by their keys; a table that comes or goes is one."""
    return tuple(ValueChange(*each) for each in differences(old, new))


def plan_turns(turns: Sequence[TurnNow], drain: DrainSettings) -> tuple[TurnPlan, ...]:
    """Say what would become of each turn, those that are at work first."""
    planned = [_plan_turn(turn, drain) for turn in turns]
    return tuple(sorted(planned, key=lambda turn: list(Fate).index(turn.fate)))


def _plan_turn(turn: TurnNow, drain: DrainSettings) -> TurnPlan:
    fate, at_most_s = _fate(turn, drain)
    return TurnPlan(turn.turn_id, turn.session_id, turn.what, turn.for_s, fate, at_most_s)


def _fate(turn: TurnNow, drain: DrainSettings) -> tuple[Fate, float | None]:
    match turn.state, turn.activity:
        case TurnState.PARKED, _:
            return Fate.PARKED, None
        case TurnState.QUEUED, _:
            return Fate.DEFERRED, None
        case _, Activity.MODEL:
            return Fate.REPEATED, min(drain.model_timeout_s, drain.timeout_s)
        case _, Activity.TOOL:
            return Fate.ENDED, min(drain.tool_timeout_s, drain.timeout_s)
        case _:
            return Fate.CHECKPOINT, drain.timeout_s


def expected_gap(gaps_ms: Sequence[float]) -> Gap | None:
    """Return what past restarts let expect, None when there was none."""
    if not gaps_ms:
        return None
    ordered = sorted(gaps_ms)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return Gap(round(middle, 1), ordered[-1], len(ordered))


def plan_bounds(running: Snapshot) -> Bounds:
    """Add up the deadlines of a restart from this configuration."""
    drain_s = running.settings.drain.timeout_s
    if running.settings.slack is not None:
        drain_s += budgets.CHANNEL_SEND_S
    boot_s = running.settings.daemon.boot_timeout_s
    parts = (budgets.REHEARSAL_S, drain_s, budgets.REQUEST_MINIMUM_S, boot_s)
    return Bounds(*parts, warm_up_s=budgets.WARM_UP_S, sum_s=round(sum(parts), 1))
