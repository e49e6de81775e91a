"""Random lives of a real daemon, beside a model that knows what it must serve and remember.

The model: the file's content, the configuration that serves, the messages that were acknowledged, and a
generation that only rises. A failure prints the line that replays it; it isn't shrunk, which would
take as many lives again.
"""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.process.harness import Daemon, full_or
from tests.process.talk import ENDS, check_history, check_ledger, events, new_session, of_type, send
from tests.waiting import wait_for

pytestmark = pytest.mark.long

BAD: dict[str, str | bytes] = {
    "no TOML": "[daemon\n",
    "unknown key": "[daemon]\ncolour = 3\n",
    "wrong meaning": '[daemon]\nlisten = ["0.0.0.0:5199"]\n',
    "not UTF-8": b"[daemon]\n# \xff\n",
}
SAID = ["hello", "/count 6 0.02", "/ledger 2 0.05", "/ledger 2 0.05 idempotent", "/clock", "/fail"]

CONTENTS = st.integers(1, 4)
#: What the log says in a restart, in order; a kill follows it.
PARTS = ["phase rehearsing", "phase draining", "phase handing-off", "serving on", "phase ready"]


class Life(RuleBasedStateMachine):
    """One home, and the daemons that live on it one after the other."""

    def __init__(self) -> None:
        super().__init__()
        # A call that is cut is repeated after the restart, so that a drain costs little.
        self.daemon = Daemon(tables={"drain": {"model_timeout_s": 0.1, "tool_timeout_s": 0.3}})
        #: What the file has: a number of workers, or the name of something bad.
        self.content: int | str = 1
        #: The number of workers that serves, and what is known of it.
        self.served = 1
        self.digests: dict[int, str] = {}
        self.generation = 0
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.sessions: list[str] = []
        try:
            self.write(1)
            self.daemon.start()
            self.notice_start()
            self.sessions = [new_session(self.daemon) for _ in range(2)]
        except BaseException:
            self.teardown()
            raise

    def teardown(self) -> None:
        failed = self.daemon.process is not None and self.daemon.process.poll() is not None
        self.daemon.__exit__(AssertionError if failed else None)

    # -- what it sees ------------------------------------------------------------------------

    @property
    def bad(self) -> bool:
        return isinstance(self.content, str)

    def text(self, content: int | str) -> str | bytes:
        if isinstance(content, str):
            return BAD[content]
        return self.daemon.config_text(tables={"sessions": {"workers": content}})

    def write(self, content: int | str, *, in_place: bool = False) -> None:
        self.content = content
        self.daemon.write_config(text=self.text(content), in_place=in_place)

    def notice_start(self) -> None:
        """A start or restart took place: the generation is a higher one, and what serves is known."""
        generation = self.daemon.generation()
        assert generation > self.generation
        self.generation = generation

    def wait_kept(self) -> None:
        """Wait until what serves is remembered, which is done just after READY."""
        kept = self.daemon.home / "state" / "last-good.toml"
        wanted = str(self.text(self.served)).encode()
        wait_for(
            lambda: kept.exists() and kept.read_bytes() == wanted,
            10.0,
            lambda: f"{wanted!r} to be kept\n{self.daemon.errors()}",
        )

    # -- what happens ------------------------------------------------------------------------

    @rule(content=CONTENTS, in_place=st.booleans())
    def somebody_edits(self, content: int, in_place: bool) -> None:
        changes = content != self.served
        self.write(content, in_place=in_place)
        if changes:
            self.daemon.wait_ready(above=self.generation)
            self.served = content
            self.notice_start()
        else:
            wait_for(
                lambda: self.daemon.status()["refusal"] is None, 10.0, "the refusal to be gone"
            )

    @rule(content=st.sampled_from(sorted(BAD)), hup=st.booleans())
    def somebody_spoils_the_file(self, content: str, hup: bool) -> None:
        self.write(content)
        if hup:
            self.daemon.signal(signal.SIGHUP)
        wait_for(lambda: self.daemon.status()["refusal"], 10.0, "the refusal to show")

    @rule(force=st.booleans())
    def somebody_asks_for_a_reload(self, force: bool) -> None:
        outcome = self.daemon.reload(force=force)["outcome"]
        if self.bad:
            assert outcome == "refused"
        elif force:
            assert outcome == "applied"
            self.notice_start()
        else:
            assert outcome == "unchanged"

    @rule(count=st.integers(1, 20))
    def hups_come(self, count: int) -> None:
        for _ in range(count):
            self.daemon.signal(signal.SIGHUP)
        assert self.daemon.reload()["outcome"] == ("refused" if self.bad else "unchanged")

    @rule(
        which=st.integers(0, 1),
        text=st.sampled_from(SAID),
        again=st.booleans(),
    )
    def somebody_says_something(self, which: int, text: str, again: bool) -> None:
        key = f"key-{len(self.acknowledged)}"
        answer = send(self.daemon, self.sessions[which], text, key)
        assert answer.status == 202, answer
        self.acknowledged[key] = answer.json
        if again:
            repeated = send(self.daemon, self.sessions[which], text, key)
            assert repeated.status == 200, repeated
            assert repeated.json["input_id"] == answer.json["input_id"]

    @rule()
    def it_is_killed_and_started(self) -> None:
        self.wait_kept()
        self.daemon.kill()
        self.daemon.start()
        self.notice_start()
        self.took_over()

    def took_over(self) -> None:
        """After an unclean end the file serves if it is good, and else the last good configuration."""
        status = self.daemon.status()
        if self.bad:
            assert status["configuration"] == "last-good"
            assert status["refusal"]["remedy"]
        else:
            assert status["configuration"] == "file"

    @precondition(lambda self: not self.bad)
    @rule(content=CONTENTS, edit=st.booleans(), part=st.sampled_from(PARTS))
    def it_is_killed_somewhere_in_a_restart(self, content: int, edit: bool, part: str) -> None:
        before, logged = self.served, self.daemon.stderr.stat().st_size
        self.wait_kept()
        if edit:
            self.write(content)
        try:
            self.daemon.control("reload", force=True)
        except OSError:
            pass  # The watcher was faster, and the restart has closed the connection.
        wait_for(
            lambda: part in self.daemon.stderr.read_text(errors="replace")[logged:],
            20.0,
            lambda: f"the restart to log {part!r}\n{self.daemon.errors()}",
            interval_s=0.001,
        )
        self.daemon.kill()
        self.daemon.start()
        self.notice_start()
        if not edit or self.daemon.status()["configuration"] == "file":
            self.served = content if edit else before
            return
        # Killed while it changed over: that isn't tried again by itself, but when somebody asks.
        assert self.daemon.status()["refusal"]["slug"] == "boot-crashed"
        self.check_digest()
        assert self.daemon.reload()["outcome"] == "applied"
        self.served = content
        self.notice_start()

    @rule(mended=CONTENTS)
    def it_is_stopped_and_started(self, mended: int) -> None:
        assert self.daemon.stop() == 0
        if self.bad:
            self.daemon.spawn()
            assert self.daemon.wait_exit() == 78
            self.write(mended)
        self.daemon.start()
        assert isinstance(self.content, int)
        self.served = self.content
        self.notice_start()
        assert self.daemon.status()["configuration"] == "file"

    @rule()
    def somebody_looks_at_what_became_of_it(self) -> None:
        """Every turn ends, or is parked because it was interrupted too often."""
        rows: dict[str, list[Any]] = {}

        def all_ended() -> bool:
            rows.update((each, list(events(self.daemon, each))) for each in self.sessions)
            return all(_over(own) for own in rows.values())

        wait_for(all_ended, 40.0, lambda: f"every turn to end: {rows}", interval_s=0.05)
        for own in rows.values():
            check_history(own)
        everything = [row for own in rows.values() for row in own]
        check_ledger(self.daemon, everything)
        admitted = [row["input_id"] for row in of_type(everything, "input.admitted")]
        assert sorted(admitted) == sorted(a["input_id"] for a in self.acknowledged.values())

    # -- what always holds -------------------------------------------------------------------

    def check_digest(self) -> None:
        digest = self.daemon.status()["digest"]
        assert self.digests.setdefault(self.served, digest) == digest
        assert len(set(self.digests.values())) == len(self.digests)

    @invariant()
    def it_serves_what_the_model_says(self) -> None:
        assert self.daemon.running.poll() is None
        status = self.daemon.status()
        assert status["pid"] == self.daemon.pid
        assert status["generation"] == self.generation
        assert (status["refusal"] is not None) == self.bad
        self.check_digest()


def _over(rows: list[Any]) -> bool:
    turns = {row["turn_id"] for row in of_type(rows, "input.admitted")}
    ended = {row["turn_id"] for row in of_type(rows, *ENDS)}
    limited = {
        row["turn_id"] for row in of_type(rows, "turn.parked") if row["reason"] == "resume-limit"
    }
    # What waits behind a parked turn waits with it.
    return turns <= ended or bool(limited - ended)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=full_or(2, 40),
    stateful_step_count=full_or(10, 20),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
