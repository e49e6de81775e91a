"""What may be asked over the control socket: each request is one call of the daemon's Service.

It decides nothing and blocks on nothing: a request that waits gives back :class:`Later`, which the
server asks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from netclawd.adapters.control.arguments import Arguments, Peer
from netclawd.core.events import Trigger
from netclawd.core.restart import Outcome
from netclawd.core.session import (
    ApprovalId,
    RestartId,
    SessionEvent,
    SessionId,
    Turn,
    TurnId,
    TurnState,
)
from netclawd.core.values import as_map, frozen, is_value
from netclawd.errors import BadRequestError, DrainingError, NetclawError
from netclawd.ports import Service

#: Longest wait of one request, seconds.
WAIT_S = 60.0


@frozen
class Later:
    """An answer that may not exist yet: ``ask`` returns None until it does."""

    ask: Callable[[], Any]
    wait_s: float
    #: The answer when the time is up.
    otherwise: Any = None


def _outcome(service: Service, args: Arguments) -> Later:
    restart_id = RestartId(args.text("restart_id"))

    def ask() -> Any:
        record = service.outcome(restart_id, 0.0)
        ended = record is not None and record.outcome is not Outcome.PENDING
        return record.as_dict() if record is not None and ended else None

    return Later(ask, args.number("wait_s", 0.0, WAIT_S))


def _events(service: Service, args: Arguments) -> Later:
    session_id = SessionId(args.text("session_id"))
    after, limit = args.count("after", 0, 2**53), args.count("limit", 200, 1000)

    def ask() -> Any:
        found = service.events(session_id, after, limit)
        return [_event(event) for event in found] or None

    return Later(ask, args.number("wait_s", 0.0, WAIT_S), otherwise=[])


def _event(event: SessionEvent) -> dict[str, Any]:
    head = {"seq": event.seq, "type": event.type, "at": event.at, "turn_id": event.turn_id}
    return {**head, **event.data}


def _admit(service: Service, args: Arguments) -> Any:
    session_id = SessionId(args.text("session_id"))
    return service.admit(session_id, args.text("text"), args.optional_text("key"))


def _about(args: Arguments) -> tuple[SessionId, TurnId | None]:
    """Return the session and the turn that is named in it, if one is."""
    turn_id = args.optional_text("turn_id")
    return SessionId(args.text("session_id")), None if turn_id is None else TurnId(turn_id)


def _cancel(service: Service, args: Arguments, by: str) -> Any:
    session_id, turn_id = _about(args)
    if not args.flag("all"):
        return {"turns": [service.cancel_turn(session_id, turn_id, by)]}
    if turn_id is not None:
        raise BadRequestError("'turn_id' and 'all' exclude each other.", "Give one of them.")
    return {"turns": list(service.cancel_turns(session_id, by))}


def _park(service: Service, args: Arguments, by: str) -> Turn | Later:
    session_id, turn_id = _about(args)
    first = service.park_turn(session_id, turn_id, by)

    def ask() -> Turn | None:
        turn = service.park_turn(session_id, first.id, by)
        return None if turn.state is TurnState.RUNNING else turn

    if first.state is not TurnState.RUNNING:
        return first
    return Later(ask, args.number("wait_s", 0.0, WAIT_S), otherwise=first)


def answer(service: Service, do: Any, args: Arguments, peer: Peer) -> Any:
    """Make the one call that the request asks for."""
    trigger = Trigger("control", peer.actor)
    match do:
        case "status":
            return service.status()
        case "restarts":
            return service.restarts(args.count("limit", 20, 1000))
        case "plan":
            name = args.optional_text("name") or "The candidate"
            return service.plan(args.optional_text("text"), name)
        case "reload":
            return {"restart_id": service.request_reload(trigger, args.flag("force"))}
        case "outcome":
            return _outcome(service, args)
        case "stop":
            service.request_stop(trigger)
            return {}
        case "create_session":
            return service.create_session()
        case "sessions":
            return service.sessions(args.optional_text("cursor"), args.count("limit", 50, 200))
        case "session":
            return service.session(SessionId(args.text("session_id")))
        case "events":
            return _events(service, args)
        case "admit":
            return _admit(service, args)
        case "park":
            return _park(service, args, f"uid {peer.uid}")
        case "resume":
            return service.resume_turn(*_about(args), f"uid {peer.uid}")
        case "cancel":
            return _cancel(service, args, f"uid {peer.uid}")
        case "approvals":
            return service.approvals(not args.flag("all"))
        case "decide":
            peer.insist_on_a_person()
            approval_id = ApprovalId(args.text("approval_id"))
            return service.decide_approval(approval_id, args.flag("granted"), f"uid {peer.uid}")
    return _about_outbox_or_reminders(service, do, args, peer)


def _about_outbox_or_reminders(service: Service, do: Any, args: Arguments, peer: Peer) -> Any:
    """Answer about reminders and the outbox, whose modules serving doesn't need."""
    from netclawd.adapters.control import outbox, reminders

    if do in outbox.REQUESTS:
        return outbox.REQUESTS[do](service, args)
    if do in reminders.REQUESTS:
        return reminders.REQUESTS[do](service.reminders, args, f"uid {peer.uid}")
    raise BadRequestError(f"The daemon knows no request {do!r}.", "Use a client of its version.")


def _plain(value: Any) -> Any:
    if is_value(value) and not isinstance(value, type):
        return as_map(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, default=_plain, separators=(",", ":")).encode() + b"\n"


def success(request_id: Any, result: Any) -> bytes:
    """Return the line that answers a request."""
    return _line({"id": request_id, "ok": True, "result": result})


def problem(request_id: Any, error: NetclawError) -> bytes:
    """Return the line that tells why a request was not answered."""
    body: dict[str, Any] = {"slug": error.slug, "what": error.what, "remedy": error.remedy}
    if isinstance(error, DrainingError):
        body["retry_after_s"] = error.retry_after_s
    return _line({"id": request_id, "ok": False, "error": body})
