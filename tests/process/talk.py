"""Sessions as a client sees them, and the invariants that every history of theirs satisfies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tests.process.client import Answer
from tests.process.harness import Daemon
from tests.waiting import wait_for

SessionEvent = Mapping[str, Any]


class Served(Protocol):
    """A daemon that answers, wherever it runs."""

    def ask(self, path: str, **options: Any) -> Answer: ...


ENDS = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})


def new_session(daemon: Served) -> str:
    answer = daemon.ask("/api/sessions", method="POST", data={})
    assert answer.status == 201, answer
    return str(answer.json["id"])


def send(daemon: Served, session: str, text: str, key: str | None = None) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    return daemon.ask(
        f"/api/sessions/{session}/messages", method="POST", data={"text": text}, headers=headers
    )


def accepted(daemon: Served, session: str, text: str, key: str | None = None) -> Any:
    """Send, insist on 202, and return the answer's body."""
    answer = send(daemon, session, text, key)
    assert answer.status == 202, answer
    return answer.json


def events(daemon: Served, session: str, after: int = 0) -> list[SessionEvent]:
    """Return all durable events above ``after``, page by page."""
    found: list[SessionEvent] = []
    while True:
        answer = daemon.ask(f"/api/sessions/{session}/events?after={after}")
        assert answer.status == 200, answer
        page = answer.json["events"]
        if not page:
            return found
        found += page
        after = page[-1]["seq"]


def of_type(rows: Iterable[SessionEvent], *types: str) -> list[SessionEvent]:
    return [row for row in rows if row["type"] in types]


def wait_event(
    daemon: Served, session: str, kind: str, *, count: int = 1, timeout_s: float = 20.0
) -> SessionEvent:
    """Wait until the session has ``count`` events of a type; return the last of them."""

    def seen() -> list[SessionEvent]:
        found = of_type(events(daemon, session), kind)
        return found if len(found) >= count else []

    return wait_for(seen, timeout_s, lambda: f"{count} {kind}; there are {types(daemon, session)}")[
        count - 1
    ]


def types(daemon: Served, session: str) -> list[str]:
    return [row["type"] for row in events(daemon, session)]


def wait_all_ended(
    daemon: Served, sessions: Sequence[str], *, timeout_s: float = 30.0
) -> dict[str, list[SessionEvent]]:
    """Wait until every admitted turn of these sessions has ended; return all events."""
    found: dict[str, list[SessionEvent]] = {session: [] for session in sessions}

    def ended() -> bool:
        for session, rows in found.items():
            rows += events(daemon, session, after=rows[-1]["seq"] if rows else 0)
            if len(of_type(rows, *ENDS)) < len(of_type(rows, "input.admitted")):
                return False
        return True

    def open_turns() -> str:
        return "every turn to end: " + "; ".join(
            f"{session}: {Counter(row['type'] for row in rows)}" for session, rows in found.items()
        )

    wait_for(ended, timeout_s, open_turns, interval_s=0.05)
    return found


def check_history(rows: Sequence[SessionEvent]) -> None:
    """Assert what holds for the events of one session, whatever happened to the daemon."""
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), "a hole or a repeat"
    turns = {row["turn_id"] for row in rows if row["turn_id"]}
    for turn in turns:
        own = [row for row in rows if row["turn_id"] == turn]
        counts = Counter(row["type"] for row in own)
        assert counts["input.admitted"] == 1, f"an input was stored twice: {counts}"
        assert counts["turn.started"] <= 1, f"a turn was run twice: {counts}"
        assert sum(counts[end] for end in ENDS) <= 1, f"a turn ended twice: {counts}"
        assert counts["reply.sent"] <= 1, f"a reply was sent twice: {counts}"
        check_calls(own)
        steps = Counter(row["step"] for row in of_type(own, "model.completed"))
        assert all(count == 1 for count in steps.values()), f"a step was completed twice: {steps}"
    admitted = [row["turn_id"] for row in of_type(rows, "input.admitted")]
    started = [row["turn_id"] for row in of_type(rows, "turn.started")]
    assert started == [turn for turn in admitted if turn in started], "turns ran out of order"


def check_calls(rows: Sequence[SessionEvent]) -> None:
    """Assert that no tool call of a turn was repeated blindly or reported twice."""
    starts: dict[str, list[SessionEvent]] = {}
    for row in of_type(rows, "tool.started"):
        starts.setdefault(row["call_id"], []).append(row)
    for call, begun in starts.items():
        assert len(begun) == 1 or all(row["idempotent"] for row in begun), f"{call} was re-issued"
    verdicts = Counter(row["call_id"] for row in of_type(rows, "tool.finished", "tool.unknown"))
    assert all(count == 1 for count in verdicts.values()), f"a call has two verdicts: {verdicts}"


def ledger(daemon: Daemon) -> list[str]:
    """Return the call ids in the ledger tool's file, in order."""
    files = [p for p in (daemon.home / "state").rglob("ledger*") if p.is_file()]
    assert len(files) <= 1, files
    return [line.split()[0] for path in files for line in path.read_text().splitlines() if line]


def check_ledger(daemon: Daemon, rows: Iterable[SessionEvent]) -> None:
    """Assert that the file has what the events promise: finished calls once, unknown ones at most."""
    entries = Counter(ledger(daemon))
    rows = list(rows)
    assert all(count == 1 for count in entries.values()), f"an effect was repeated: {entries}"
    for row in of_type(rows, "tool.finished"):
        if row["name"] == "ledger" and row["status"] == "ok":
            assert entries[row["call_id"]] == 1, f"{row['call_id']} finished but left no entry"
    known = {row["call_id"] for row in of_type(rows, "tool.started")}
    assert set(entries) <= known, "an effect without a start record"
