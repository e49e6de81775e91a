"""Whatever a courier does or is cut at, the outbox has each message shown exactly once, with its last text.

Random walks: turns stream, ask, answer and are cancelled while a courier that keeps the port's rules is cut
between any two of its steps, by a platform that refuses, and that swallows requests which may land later.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from netclawd.adapters.store.sqlite import SqliteStore
from netclawd.core.outgoing import Outgoing, OutgoingId
from netclawd.core.session import Lease, OutboxState, TurnId
from netclawd.core.values import replace
from netclawd.errors import ConflictError
from tests.adapters.channel_stores import SLACK, answer, ask, cancel, decide, spoken_to

PROVE = os.environ.get("NETCLAW_PROVE") == "1"
WALKS = 400 if PROVE else 6
STEPS = 60
PENDING, SENDING, STREAMING = OutboxState.PENDING, OutboxState.SENDING, OutboxState.STREAMING


class Platform:
    """Shows messages; what was swallowed lands by the next look at the latest, or never."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.shown: dict[OutgoingId, list[str]] = {}
        self._swallowed: list[tuple[OutgoingId, str]] = []

    def post(self, message: Outgoing) -> None:
        self.shown.setdefault(message.id, []).append(message.text)

    def swallow(self, message: Outgoing) -> None:
        self._swallowed.append((message.id, message.text))

    def edit(self, message: Outgoing) -> None:
        self.shown[message.id][-1] = message.text

    def look_up(self, message: Outgoing) -> tuple[str, ...]:
        for id_, text in self._swallowed:
            if self._chance.random() < 0.5:
                self.shown.setdefault(id_, []).append(text)
        self._swallowed.clear()
        return tuple(f"{message.id}.{n}" for n in range(len(self.shown.get(message.id, ()))))


class Courier:
    """Keeps the rules of :class:`netclawd.ports.channels.Outbox`; may be cut wherever it yields."""

    def __init__(self, walk: Walk) -> None:
        self._walk, self._outbox, self._platform = walk, walk.store.outgoing, walk.platform
        self._doubts: set[OutgoingId] = set()

    def work(self) -> Iterator[None]:
        for message in self._outbox.unsettled(SLACK):
            if message.state is SENDING or not message.receipts:
                self._doubts.add(message.id)
        while True:
            for id_ in tuple(self._doubts):
                yield from self._clear_up(id_)
            for message in self._outbox.due(SLACK, 1e9, 100):
                yield
                if self._outbox.begin(message, 50.0):
                    yield from self._deliver(message)
            for turn_id in tuple(self._walk.open):
                yield from self._show(turn_id)
            yield

    def _clear_up(self, id_: OutgoingId) -> Iterator[None]:
        row = next((each for each in self._outbox.unsettled(SLACK) if each.id == id_), None)
        self._doubts.discard(id_)
        if row is None:
            return
        yield
        found = self._platform.look_up(row)
        yield
        if len(found) <= len(row.receipts):
            self._outbox.put_off(row, 50.0, "", 50.0)
            return
        self._outbox.record(row, found, 50.0)
        if row.state is SENDING:
            yield from self._deliver(replace(row, receipts=found))

    def _deliver(self, message: Outgoing) -> Iterator[None]:
        if message.receipts:
            self._platform.edit(message)
            yield
            self._outbox.sent(message, message.receipts, 50.0)
            return
        yield from self._post(message)
        if message.id not in self._doubts and self._platform.shown.get(message.id):
            yield
            self._outbox.sent(message, (f"{message.id}.0",), 50.0)

    def _post(self, message: Outgoing) -> Iterator[None]:
        match self._walk.fate():
            case "taken":
                self._platform.post(message)
                yield
                self._outbox.record(message, (f"{message.id}.0",), 50.0)
            case "refused":
                yield
                self._outbox.put_off(message, 50.0, "Slack is busy.", 50.0)
            case "swallowed":
                self._platform.swallow(message)
                self._doubts.add(message.id)

    def _show(self, turn_id: TurnId) -> Iterator[None]:
        try:
            message = self._outbox.stream(turn_id, 50.0)
        except ConflictError:
            return
        if message is None:
            return
        yield
        if message.id in self._doubts:
            return
        shown = replace(message, text="Well …")
        if message.receipts:
            self._platform.edit(shown)
        else:
            yield from self._post(shown)


class Walk:
    def __init__(self, store: SqliteStore, seed: int) -> None:
        self.chance = random.Random(seed)
        self.store = store
        self.platform = Platform(self.chance)
        self.open: dict[TurnId, Lease] = {}
        self.asked: dict[str, Lease] = {}
        self.calm = False

    def fate(self) -> str:
        return "taken" if self.calm else self.chance.choice(("taken", "refused", "swallowed"))

    def go(self) -> None:
        courier = Courier(self).work()
        for _ in range(STEPS):
            dice = self.chance.random()
            if dice < 0.7:
                next(courier)
            elif dice < 0.92:
                self._turn()
            else:
                courier = Courier(self).work()
        self.calm = True
        for lease in tuple(self.open.values()):
            self._end(lease)
        for _ in range(100 * STEPS):
            next(courier)
            if not self.store.outgoing.messages((PENDING, SENDING, STREAMING), 1):
                return
        raise AssertionError("the outbox never comes to rest")

    def _turn(self) -> None:
        if not self.open or self.chance.random() < 0.3:
            lease = spoken_to(self.store)
            self.open[lease.turn_id] = lease
            return
        lease = self.chance.choice(list(self.open.values()))
        if self.chance.random() < 0.4:
            self._end(lease)
        elif self.asked and self.chance.random() < 0.5:
            self._decide(self.chance.choice(list(self.asked)))
        else:
            id_ = f"a-{lease.turn_id}-{len(self.asked)}-{self.chance.random()}"
            self.asked[id_] = lease
            ask(self.store, lease, id_, said="Well, I need this.")

    def _decide(self, id_: str) -> None:
        decide(self.store, self.asked.pop(id_), id_)

    def _end(self, lease: Lease) -> None:
        for id_ in [id_ for id_, asked in self.asked.items() if asked == lease]:
            self._decide(id_)
        answered = self.chance.random() < 0.7
        if answered:
            answer(self.store, lease)
        if not answered or self.chance.random() < 0.5:
            cancel(self.store, lease)
        del self.open[lease.turn_id]


def test_each_message_is_shown_once_with_its_last_text(tmp_path: Path) -> None:
    shown = 0
    for seed in range(WALKS):
        with closing(SqliteStore.open(str(tmp_path / f"{seed}.db"))) as store:
            walk = Walk(store, seed)
            walk.go()
            for message in store.outgoing.messages((), 10_000):
                there = walk.platform.shown.pop(message.id, [])
                if message.state is OutboxState.SENT:
                    assert there == [message.text], f"seed {seed}: {message}"
                    shown += 1
                else:
                    assert message.state is OutboxState.DROPPED, f"seed {seed}: {message}"
                    assert len(there) <= 1, f"seed {seed}: {message}"
            assert walk.platform.shown == {}, (
                f"seed {seed}: shown, and the outbox knows nothing of it"
            )
    assert shown > 3 * WALKS
