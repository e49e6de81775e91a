"""People talk, answer questions and press buttons while Slack fails at random and the daemon is restarted,
stopped and killed at random: by the workspace's ledger each message is answered once and in its order.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.counterparts.slack import DIRECT, Workspace
from tests.counterparts.slack_ledger import Cut, Fault, Limited, Message, Page, Refuse
from tests.process.harness import Daemon
from tests.process.slack import NOTICES, connected, counted, in_slack
from tests.waiting import wait_for

pytestmark = pytest.mark.prove

PEOPLE, FOR_S = 10, 60.0
#: A number of one's own makes another storm.
SEED = int(os.environ.get("NETCLAW_SEED", "1"))
SAID, ANSWERED = "I ask a person first.", "The answer is here: granted"
FAULTS: tuple[Fault | None, ...] = (
    *(Limited(1), Page(), Page(200), Refuse("internal_error"), None),
    *(Cut(), Cut(performed=True), Cut(late_s=1.0)),
)


class Person:
    """One thread in Slack, and what is to stand in it: counts by their numbers, which grow, and answers."""

    def __init__(self, slack: Workspace, number: int) -> None:
        self._slack, self._name = slack, f"user{number}"
        self.chance = random.Random(SEED * 1000 + number)
        self._place = self.chance.choice((DIRECT, "general", "random"))
        self._first = slack.say(self._name, self._place, "/count 4")
        self.counts = [4]
        self.asked = 0

    def _say(self, text: str) -> None:
        self._slack.say(self._name, self._place, text, self._first)

    def act(self) -> None:
        """Say the next thing, or press what there is to press."""
        dice = self.chance.random()
        if dice < 0.3:
            self.asked += 1
            self._say(f"/ask May I do {self.asked}?")
        elif dice < 0.7:
            self.counts.append(self.counts[-1] + 1)
            self._say(f"/count {self.counts[-1]} {self.chance.choice((0, 0.05, 0.3))}")
        self.press()

    def press(self) -> None:
        for message in self._slack.answers(self._first):
            if message.buttons:
                self._slack.press(self._name, message, "Grant")

    def rows(self) -> list[Message]:
        return [m for m in self._slack.answers(self._first) if m.deleted_at is None]

    def has_all(self) -> bool:
        there = Counter(m.text for m in self.rows())
        return there[ANSWERED] >= self.asked and all(counted(n) in there for n in self.counts)

    def check(self) -> None:
        """Assert that each answer is there once and in its order, and nothing else is."""
        texts = [m.text for m in self.rows() if m.text not in NOTICES]
        known = {counted(number): number for number in self.counts}
        assert [known[text] for text in texts if text in known] == self.counts
        others = [text for text in texts if text not in known]
        questions = [text for text in others if "May I do" in text]
        assert len(questions) == self.asked
        assert all("Granted by" in text for text in questions)
        assert others.count(ANSWERED) == self.asked
        assert set(others) <= {SAID, ANSWERED, *questions}
        after = [text for text in others if text != SAID]
        assert after == [text for question in questions for text in (question, ANSWERED)]


def name_of(message: Message) -> tuple[str, int]:
    payload: Mapping[str, Any] = (message.metadata or {})["event_payload"]
    return payload["id"], payload["part"]


def test_whatever_fails_together_each_message_is_answered_once(slack: Workspace) -> None:
    chance = random.Random(SEED)

    def fail() -> None:
        for method in ("chat.postMessage", "chat.update", "conversations.replies"):
            slack.fault(method, *chance.choices(FAULTS, k=2))

    def end(daemon: Daemon) -> Callable[[], None]:
        return lambda: daemon.interrupt(chance.choice(("restart", "restart", "kill", "stop")))

    tables: dict[str, dict[str, Any]] = {
        "sessions": {"resume_limit": 100},
        "providers.demo": {"kind": "demo", "word_interval_s": 0.3},
    }
    with in_slack(slack, tables=tables) as daemon:
        daemon.start()
        connected(daemon, slack)
        people = [Person(slack, number) for number in range(PEOPLE)]
        over = threading.Event()

        def storm() -> None:
            deeds = (fail, fail, end(daemon), slack.drop_sockets, slack.disconnect)
            while not over.wait(chance.uniform(0.5, 4.0)):
                chance.choice(deeds)()

        weather = threading.Thread(target=storm)
        weather.start()
        until = time.monotonic() + FOR_S
        while time.monotonic() < until:
            chance.choice(people).act()
            over.wait(chance.uniform(0.0, 0.6))
        over.set()
        weather.join()

        def calm() -> bool:
            for person in people:
                person.press()
            whole = all(person.has_all() for person in people)
            return whole and not slack.unacknowledged and not daemon.control("outbox")

        wait_for(calm, 120.0, lambda: f"{daemon.control('outbox')}\n{daemon.errors()}")
        for person in people:
            person.check()
        names = [name_of(m) for m in slack.posts if m.bot and not m.only_for]
        assert len(names) == len(set(names)), "each part was posted once"
        notices = Counter(
            (m.thread, name.split(":")[1])
            for m in slack.posts
            if m.metadata and (name := name_of(m)[0]).startswith("notice:")
        )
        assert max(notices.values(), default=0) <= 1, (
            "one sentence for each conversation and restart"
        )
