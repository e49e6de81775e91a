"""A model server whose answers follow from the conversation, and what a model must have been told.

``Model`` speaks either wire format. What it was sent is read back from the bytes by :func:`seen`, and
:func:`told` makes the same from the daemon's events: the two must be equal, whatever happened between.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netclawd.core.session import EventType, SessionEvent, SessionId, TurnId
from netclawd.core.turn_invariants import check_invariants
from tests.counterparts import Answer, Asked, ChatServer, MessagesServer, Reply
from tests.process import talk

#: Kinds of providers that ask over a socket.
KINDS = ("openai", "anthropic")
SUMMARY = "They exchanged pages."

#: What a model is told, in order: (who, what). "call" is a call as JSON, "note" a note of the daemon.
View = list[tuple[str, str]]


@dataclass(frozen=True)
class Scene:
    """A conversation's newest turn, as the model plays its part."""

    #: First word of the input.
    name: str
    #: The reply of each step.
    replies: tuple[Answer, ...]
    #: Which step is answered by ``held`` when it is asked for the first time; 0 is the summary.
    held_step: int | None = None
    held: Answer | None = None


class Model:
    """A counterpart that plays scenes, many at a time, and counts how often each step was asked for."""

    def __init__(self, kind: str, scenes: Sequence[Scene]) -> None:
        self.kind = kind
        self._scenes = {scene.name: scene for scene in scenes}
        self._lock = threading.Lock()
        #: By scene and step.
        self.asked: dict[tuple[str, int], list[Asked]] = {}
        make = ChatServer if kind == "openai" else MessagesServer
        self.server = make(answer=self._answer)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def settings(self, **more: Any) -> dict[str, Mapping[str, Any]]:
        """Return the tables that have the daemon's agent ask this server."""
        provider = {"kind": self.kind, "base_url": self.server.base_url, "model": "m", **more}
        return {"agent": {"provider": "counterpart"}, "providers.counterpart": provider}

    def times(self, scene: str, step: int) -> int:
        return len(self.asked.get((scene, step), ()))

    def last(self, scene: str) -> Asked:
        """Return the request of the scene's last step that came last."""
        step = max(step for name, step in self.asked if name == scene)
        return self.asked[scene, step][-1]

    def _answer(self, asked: Asked) -> Answer:
        if is_summary(asked):
            (found,) = (s for s in self._scenes.values() if s.held_step == 0)
            return self._choose(found, 0, asked)
        view = seen(asked.body)
        newest = max(n for n, (who, _) in enumerate(view) if who == "user")
        scene = self._scenes[view[newest][1].split()[0]]
        return self._choose(scene, 1 + _replies(view[newest:]), asked)

    def _choose(self, scene: Scene, step: int, asked: Asked) -> Answer:
        with self._lock:
            rows = self.asked.setdefault((scene.name, step), [])
            rows.append(asked)
            first = len(rows) == 1
        if step == scene.held_step and first:
            assert scene.held is not None
            return scene.held
        return Reply(SUMMARY) if step == 0 else scene.replies[step - 1]


def is_summary(asked: Asked) -> bool:
    system = asked.body.get("system") or asked.body["messages"][0]["content"]
    return str(system).startswith("You condense")


def _replies(view: View) -> int:
    """Count replies: what follows each other of one speaker is one."""
    return sum(
        1 for n, (who, _) in enumerate(view) if who == "assistant" and view[n - 1][0] != "assistant"
    )


# -- what it was sent ------------------------------------------------------------------------------


def seen(body: Any) -> View:
    """Read a request in either wire format; calls by their place, so that equal ones differ."""
    view: View = []
    places: dict[str, int] = {}
    for message in body["messages"]:
        if message["role"] != "system":
            view += _read(message, places)
    return view


def _read(message: Mapping[str, Any], places: dict[str, int]) -> Iterator[tuple[str, str]]:
    role, content = message["role"], message.get("content") or ""
    blocks: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if role == "tool":
        yield from _outcome(places.pop(message["tool_call_id"]), content)
        return
    for block in blocks:
        match block["type"]:
            case "text" if role == "assistant":
                yield "assistant", block["text"]
            case "text":
                yield from _parts(block["text"])
            case "tool_use":
                places[block["id"]] = len(places)
                yield _call(block["name"], block["input"])
            case "tool_result":
                yield from _outcome(places.pop(block["tool_use_id"]), block["content"])
    for call in message.get("tool_calls") or ():
        places[call["id"]] = len(places)
        yield _call(call["function"]["name"], json.loads(call["function"]["arguments"]))


def _call(name: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    return "call", f"{name} {json.dumps(arguments, sort_keys=True)}"


def _outcome(place: int, content: str) -> Iterator[tuple[str, str]]:
    del place  # That it was there and is no more is what counts: one answer for each call.
    text, *notes = re.split(r"\n\n(?=\[netclawd\] )", content)
    yield "outcome", text
    for note in notes:
        yield "note", _note(note)


def _parts(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split("\n\n"):
        yield ("note", _note(part)) if part.startswith("[netclawd]") else ("user", part)


def _note(text: str) -> str:
    """Return what identifies a note: the restart, the change's outcome, or all of it."""
    if found := re.search(r"generation (\d+) now", text):
        return f"restart: generation {found[1]}"
    if found := re.search(
        r"Your change of the configuration \((.*?)\) (is applied|was rolled|\w+ \w+)", text
    ):
        return f"changed {found[1]}: {found[2]}"
    return text


# -- what it is to have been told --------------------------------------------------------------------


def told(rows: Sequence[talk.SessionEvent]) -> View:
    """Make from a session's events what the model was to be told when it was asked last."""
    view: View = []
    summaries = talk.of_type(rows, "context.summarised")
    covered = summaries[-1]["upto_seq"] if summaries else 0
    if summaries:
        note = "[netclawd] Summary of the earlier part of this conversation:\n"
        view.append(("note", note + summaries[-1]["text"]))
    for turn in dict.fromkeys(row["turn_id"] for row in rows if row["turn_id"]):
        own = [row for row in rows if row["turn_id"] == turn]
        if own[-1]["seq"] > covered:
            view += _told(own)
    last = max(n for n, (who, _) in enumerate(view) if who == "assistant")
    return view[:last]


def _told(rows: Sequence[talk.SessionEvent]) -> Iterator[tuple[str, str]]:
    outcomes = {row["call_id"]: row for row in talk.of_type(rows, "tool.finished", "tool.unknown")}
    held: list[tuple[str, str]] = []
    open_calls: set[str] = set()
    calls: list[str] = []
    for row in rows:
        match row["type"]:
            case "input.admitted":
                yield "user", row["text"]
            case "model.completed":
                yield "assistant", row["text"]
                calls = [call["id"] for call in row["calls"]]
                for call in row["calls"]:
                    yield _call(call["name"], call["arguments"])
                open_calls = set(calls)
            case "restart":
                held.append(("note", f"restart: generation {row['generation']}"))
            case "config.outcome":
                done = {"applied": "is applied", "rolled-back": "was tried"}[row["outcome"]]
                held.append(("note", f"changed {', '.join(row['changes'])}: {done}"))
            case "tool.finished" | "tool.unknown":
                open_calls.discard(row["call_id"])
                if not open_calls:
                    for call_id in calls:
                        yield "outcome", _outcome_text(outcomes[call_id])
        if not open_calls:
            yield from held
            held.clear()


def _outcome_text(row: talk.SessionEvent) -> str:
    if row["type"] == "tool.unknown":
        return (
            "[unknown] Outcome unknown: the daemon ended while this call ran. It may or may not have had "
            "its effect; it was not repeated. Check before you try again."
        )
    return str(row["text"] if row["status"] == "ok" else f"[{row['status']}] {row['text']}")


# -- what holds at the end ---------------------------------------------------------------------------


def check_model_turns(model: Model, scene: str, rows: Sequence[talk.SessionEvent]) -> None:
    """Assert that the session's turns ran once, and that the model was told what the store has."""
    talk.check_history(rows)
    for turn in dict.fromkeys(row["turn_id"] for row in rows if row["turn_id"]):
        check_invariants([_event(row) for row in rows if row["turn_id"] == turn])
    assert rows[-1]["type"] == "turn.completed", [row["type"] for row in rows]
    was_seen, was_told = seen(model.last(scene).body), told(rows)
    assert was_seen == was_told, f"the model was sent\n{was_seen}\nbut the store has\n{was_told}"
    asked = [asked for key, found in model.asked.items() if key[0] == scene for asked in found]
    assert all(isinstance(one.answer, Reply) or one.hung_up_at for one in asked), (
        "a request was refused"
    )
    assert len(talk.of_type(rows, "reply.sent")) == len(talk.of_type(rows, "input.admitted"))


def _event(row: talk.SessionEvent) -> SessionEvent:
    data = {key: value for key, value in row.items() if key not in ("seq", "type", "at", "turn_id")}
    return SessionEvent(
        SessionId("s"), row["seq"], EventType(row["type"]), row["at"], TurnId(row["turn_id"]), data
    )
