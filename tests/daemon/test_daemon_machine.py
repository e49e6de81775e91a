"""Long random lives of a daemon on paper, with all that can go wrong at any moment.

:mod:`tests.daemon.paper` has the daemon, :mod:`tests.daemon.paper_oracle` what is asserted of it.
A failure prints the steps, and the line that replays them (CONTRIBUTING.md).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import netclawd.__main__ as stub
from netclawd.core.lifecycle import Stage
from netclawd.core.session import SessionId, TurnState
from netclawd.errors import ConflictError, DrainingError, NotFoundError, StoreClosedError
from tests.daemon.paper import Host, Process
from tests.daemon.paper_disk import SESSIONS, PaperStore
from tests.daemon.paper_oracle import SHORTEST_S
from tests.daemon.paper_turns import PaperEngine

PROVE = os.environ.get("NETCLAW_PROVE") == "1"


def _listen(*ports: int, more: str = "") -> bytes:
    listen = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    return f"[daemon]\nlisten = [{listen}]\n{more}".encode()


GOOD = (
    _listen(5199),
    _listen(5199) + b"# a comment\n",
    _listen(5200),
    _listen(5199, 5200),
    _listen(5200, 5199),
    _listen(5201, more='[drain]\nnew_work = "reject"\n'),
    _listen(5199, more="[sessions]\nresume_limit = 1\nworkers = 1\n"),
    _listen(5199, more='on_invalid_config = "abort"\n'),
    b"[sessions]\nworkers = 2\n",
    _listen(5199, more=f"[approvals]\ntimeout_s = {SHORTEST_S}\n"),
)
BAD = {
    "syntax": b"[broken\n",
    "schema": _listen(5199, more="no_such_key = 1\n"),
    "meaning, twice": _listen(5202, 5202),
    "meaning, exposed": b'[daemon]\nlisten = ["0.0.0.0:5199"]\n',
    "meaning, in a file that says abort": _listen(5202, 5202, more='on_invalid_config = "abort"\n'),
    "empty": b"\n",
    "missing": None,
}
TEXTS = (
    "talk",
    "talk once",
    "talk safe once",
    "talk ask",
    "talk once ask once",
    "talk once+safe+once",
    "talk ask+safe+ask once+once",
    "talk gone+once+ask",
)
#: What goes wrong where it is met next.
TROUBLE = ("rehearsal", "bind", "listen", "exec", "boot")
STEPS = st.sampled_from([40, 80, *range(1, 30)])


class Daemon(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.undo = contextlib.ExitStack()
        self.host = Host()
        self.undo.enter_context(mock.patch.object(stub, "time", self.host.clock))
        self.undo.enter_context(mock.patch.object(stub, "_say"))
        self.keys = 0

    @property
    def process(self) -> Process:
        assert self.host.process is not None
        return self.host.process

    def is_up(self) -> bool:
        return self.host.process is not None

    def engine(self) -> PaperEngine | None:
        engine = self.process.image.engine
        return engine if isinstance(engine, PaperEngine) else None

    # -- the configuration ------------------------------------------------------------------------

    @initialize(
        content=st.sampled_from(GOOD),
        steps=st.sampled_from([100, 8, 0]),
        chance=st.integers(0, 1_000),
    )
    def the_first_start(self, content: bytes, steps: int, chance: int = 0) -> None:
        self.host.disk.chance.seed(chance)
        self.host.save(content)
        self.host.start()
        self.go_on(steps, work_first=False)

    @rule(content=st.sampled_from(GOOD))
    def edit(self, content: bytes) -> None:
        self.host.save(content)

    @rule(what=st.sampled_from(sorted(BAD)))
    def bad_edit(self, what: str) -> None:
        self.host.save(BAD[what])

    @rule()
    def upgrade(self) -> None:
        self.host.disk.code = self.host.new("code")

    @rule()
    def package_is_unpacked(self) -> None:
        """Until it is configured too, no code on disk is run."""
        self.host.upgrading = True

    @precondition(lambda self: self.host.upgrading)
    @rule()
    def package_is_configured(self) -> None:
        self.upgrade()
        self.host.upgrading = False

    @precondition(is_up)
    @rule()
    def hup(self) -> None:
        self.host.hup()

    @precondition(is_up)
    @rule(force=st.booleans())
    def reload(self, force: bool) -> None:
        self.host.ask(force=force)

    @precondition(is_up)
    @rule(
        content=st.sampled_from(GOOD),
        trouble=st.sampled_from([None, *TROUBLE]),
        effects=st.integers(0, 14),
        steps=STEPS,
    )
    def restart(self, content: bytes, trouble: str | None, effects: int, steps: int) -> None:
        """Edit and reload, with something that goes wrong on the way; go on for a while."""
        if trouble == "boot":
            self.next_boot_fails(effects)
        elif trouble is not None:
            self.host.armed.add(trouble)
        self.host.save(content)
        self.host.hup()
        self.go_on(steps, work_first=False)

    # -- people -----------------------------------------------------------------------------------

    @precondition(is_up)
    @rule(session=st.sampled_from(SESSIONS), text=st.sampled_from(TEXTS))
    def message(self, session: SessionId, text: str) -> None:
        self.keys += 1
        self._send(f"key-{self.keys}", session, text)

    @precondition(lambda self: self.is_up() and self.host.oracle.acknowledged)
    @rule(data=st.data())
    def message_again(self, data: st.DataObject) -> None:
        known = self.host.oracle.acknowledged
        key = data.draw(st.sampled_from(sorted(known)))
        self._send(key, known[key][0], known[key][2])

    def _send(self, key: str, session: SessionId, text: str) -> None:
        if not self.process.accepting:
            return
        service = self.process.service

        def send() -> None:
            admitted = service.admit(session, text, key)
            self.host.oracle.on_acknowledged(key, session, admitted.turn_id, text)

        # A second stop closes the store under a server that accepts still: that is told with 503.
        with contextlib.suppress(DrainingError, StoreClosedError):
            self.host.run(send)

    @precondition(is_up)
    @rule(session=st.sampled_from(SESSIONS))
    def cancel_what_runs(self, session: SessionId) -> None:
        engine = self.engine()
        if self.process.accepting and engine is not None:
            engine.cancel_running(session, "uid 0")

    @precondition(is_up)
    @rule(data=st.data(), do=st.sampled_from(["park", "resume", "cancel", "grant", "deny"]))
    def decide(self, data: st.DataObject, do: str) -> None:
        process, store = self.process, PaperStore(self.host.disk)
        if not process.accepting or process.image.engine is None:
            return
        service = process.service
        if do in ("grant", "deny"):
            asked = store.approvals(pending_only=True)
            if asked:
                approval = data.draw(st.sampled_from(asked))
                self._try(lambda: service.decide_approval(approval.id, do == "grant", "uid 0"))
            return
        turns = [t for t in store.open_turns() if do != "cancel" or t.state is TurnState.PARKED]
        if turns:
            turn = data.draw(st.sampled_from(turns))
            act = getattr(service, f"{do}_turn")
            self._try(lambda: act(turn.session_id, turn.id, "uid 0"))

    def _try(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(ConflictError, NotFoundError, DrainingError, StoreClosedError):
            self.host.run(act)

    # -- time, and what goes wrong ----------------------------------------------------------------

    @precondition(is_up)
    @rule(steps=STEPS, work_first=st.booleans())
    def go_on(self, steps: int, work_first: bool) -> None:
        for _ in range(steps):
            if not self._one(work_first=work_first):
                return

    def _one(self, *, work_first: bool = False) -> bool:
        process = self.host.process
        if process is None:
            return False
        return self.host.run(lambda: process.go_on(work_first=work_first))

    @precondition(is_up)
    @rule(steps=st.integers(1, 6))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            if self.is_up():
                self.host.run(self.process.work)

    @rule(seconds=st.sampled_from([0.3, 1.5, 3.0, 31.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        self.host.clock.pass_time(seconds)

    @rule(seconds=st.sampled_from([-86_400.0, -30.0, 30.0, 3_600.0, 86_400.0]))
    def clock_jump(self, seconds: float) -> None:
        self.host.clock.wall_s += seconds

    @rule(fault=st.sampled_from(TROUBLE[:-1]))
    def next_fails(self, fault: str) -> None:
        self.host.armed.add(fault)

    @rule(effects=st.integers(0, 14))
    def next_boot_fails(self, effects: int) -> None:
        if self.host.boot_fuse is None:
            self.host.boot_fuse = effects

    @precondition(lambda self: self.is_up() and self.engine() is not None)
    @rule(calls=st.booleans(), tools=st.booleans())
    def deadlines_cut(self, calls: bool, tools: bool) -> None:
        engine = self.engine()
        assert engine is not None
        engine.cut_calls = calls
        for tool in engine.tools.values():
            tool.cut = tools

    @precondition(is_up)
    @rule()
    def kill(self) -> None:
        self.host.kill()

    @precondition(is_up)
    @rule(moments=st.integers(0, 60))
    def kill_soon(self, moments: int) -> None:
        self.host.disk.fuse = moments

    @precondition(is_up)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGINT]))
    def stop(self, number: int) -> None:
        self.host.term(number)

    @precondition(lambda self: not self.is_up())
    @rule()
    def start(self) -> None:
        self.host.start()

    # -- what holds -------------------------------------------------------------------------------

    @rule()
    def quiet(self) -> None:
        """Nothing more goes wrong: it comes to rest, serves, and owes nobody anything."""
        self._calm()
        for _ in range(5):
            self._settle()
            if self.is_up():
                break
            self.host.start()
            if not self.is_up():  # A bad file, and nothing else to serve: a person mends it.
                self.host.save(GOOD[0])
                self.host.start()
        assert self.is_up(), "it ends again and again"
        self._decide_all()
        self._settle()
        if self.is_up():  # A stop that was noted comes at its own time.
            self.host.oracle.check_rest(self.process)

    def _calm(self) -> None:
        self.host.upgrading = False
        self.host.armed.clear()
        self.host.boot_fuse = self.host.disk.fuse = None

    def _settle(self) -> None:
        for _ in range(3_000):
            if self._one():
                continue
            at = self.process.next_timer() if self.is_up() else None
            if at is None:
                return
            self.host.clock.pass_time(max(0.0, at - self.host.clock.mono))
        raise AssertionError("it does not come to rest")

    def _decide_all(self) -> None:
        """A person lets all that is parked go on."""
        store = PaperStore(self.host.disk)
        for _ in range(50):
            self._settle()
            asked = store.approvals(pending_only=True)
            parked = [t for t in store.open_turns() if t.state is TurnState.PARKED]
            if not (asked or parked) or not self.is_up():
                return
            service = self.process.service
            for approval in asked:
                self._try(partial(service.decide_approval, approval.id, True, "uid 0"))
            for turn in parked:
                self._try(partial(service.resume_turn, turn.session_id, turn.id, "uid 0"))
        raise AssertionError("turns are parked again and again")

    @invariant()
    def no_effect_is_repeated(self) -> None:
        self.host.oracle.check_effects()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and self.host.oracle.seen:
                self.quiet()
        finally:
            if self.host.process is not None:
                self.host.process.arbiter.close()
            self.host.disk.database.close()
            self.undo.close()


TestDaemon = Daemon.TestCase
TestDaemon.settings = settings(
    max_examples=1500 if PROVE else 60, stateful_step_count=50, deadline=None
)


def _settled(host: Host) -> None:
    while host.process is not None and host.run(host.process.go_on):
        pass


def test_it_goes_back_three_times_a_minute_and_then_ends_for_the_supervisor() -> None:
    host = Host()
    with mock.patch.object(stub, "time", host.clock), mock.patch.object(stub, "_say"):
        host.save(GOOD[0])
        host.start()
        for _ in range(3):
            _settled(host)
            host.boot_fuse = 0
            host.ask(force=True)
            _settled(host)
            assert host.process is not None
        host.boot_fuse = 0
        host.ask(force=True)
        _settled(host)
    assert (host.process, host.ended) == (None, 75)
    assert len(host.oracle.rollbacks) == 3
    host.disk.database.close()


@pytest.mark.parametrize(("text", "most"), [("talk once", 60), ("talk once+safe+once safe", 90)])
def test_a_call_that_may_have_had_its_effect_is_not_issued_again_after_a_kill_at_any_moment(
    text: str, most: int
) -> None:
    for moments in range(most):
        host = Host()
        host.disk.chance.seed(moments)
        host.save(GOOD[0])
        host.start()
        _settled(host)
        assert host.process is not None
        admitted = host.process.service.admit(SESSIONS[0], text, "key")
        host.disk.fuse = moments
        _settled(host)
        host.disk.fuse = None
        if host.process is None:
            host.start()
            _settled(host)
        host.oracle.check_effects()
        assert PaperStore(host.disk).turn(admitted.turn_id).state is TurnState.COMPLETED
        host.kill()
        host.disk.database.close()


@pytest.mark.parametrize("trouble", [None, *TROUBLE])
def test_a_restart_killed_at_any_moment_and_once_more_later_keeps_every_promise(
    trouble: str | None,
) -> None:
    for moments in range(0, 130, 1 if PROVE else 3):
        life = Daemon()
        life.the_first_start(GOOD[0], 100)
        life.kill_soon(moments)
        life.restart(GOOD[2], trouble, moments % 9, 80)
        life.quiet()
        if life.is_up():
            life.kill()
            life.quiet()
        life.teardown()


def test_what_was_rolled_back_is_not_tried_again_after_a_stop_that_was_killed() -> None:
    for steps in range(26 if PROVE else 12):
        life = Daemon()
        life.the_first_start(GOOD[0], 100)
        life.restart(GOOD[2], "boot", 6, 20)
        assert not life.process.boot.over, "it was rolled back and is not ready"
        life.stop(signal.SIGTERM)
        life.go_on(steps, work_first=False)
        if life.is_up():
            life.kill()
        life.quiet()
        life.teardown()


def test_what_an_upgrade_held_back_is_not_done_twice_when_the_package_asks_first() -> None:
    host = Host()
    host.save(GOOD[0])
    host.start()
    _settled(host)
    host.upgrading = True
    host.ask(force=True)
    _settled(host)
    assert host.process is not None
    assert host.process.image.upgrade.waiting is not None
    host.disk.code = host.new("code")
    host.upgrading = False
    host.ask(force=False)
    while host.process.arbiter.stage is Stage.READY:  # Before the next tick.
        assert host.process._take_event()
    _settled(host)
    assert host.process.image.generation == 2
    host.kill()
    host.disk.database.close()


def test_a_failed_execve_leaves_no_manifest_for_a_later_crash() -> None:
    host = Host()
    host.save(GOOD[0])
    host.start()
    _settled(host)
    host.armed.add("exec")
    host.save(GOOD[2])
    host.hup()
    _settled(host)
    assert "failed" in host.oracle.seen
    assert host.disk.manifest is None
    host.kill()
    host.disk.database.close()


def test_a_first_start_that_is_killed_before_it_has_kept_its_configuration_has_no_last_good_one() -> (
    None
):
    for moments in range(30):
        life = Daemon()
        life.the_first_start(GOOD[0], 0)
        life.kill_soon(moments)
        life.bad_edit("syntax")
        life.go_on(40, work_first=False)
        life.quiet()
        life.teardown()


def test_what_was_refused_is_tried_again_after_a_start_that_met_a_good_file() -> None:
    life = Daemon()
    life.the_first_start(GOOD[0], 100)
    life.restart(GOOD[2], "rehearsal", 0, 40)
    life.kill()
    life.bad_edit("empty")
    life.quiet()
    life.edit(GOOD[2])
    life.teardown()
