"""WATCHDOG=1 comes only while arbiter, session store and HTTP loop all make progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.process.faults import Fault
from tests.process.notify_socket import NotifySocket
from tests.process.supervised import Supervised
from tests.process.talk import accepted, check_history, new_session, wait_all_ended, wait_event
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

#: A unit with a short WatchdogSec=: the limit of each part is half of it.
WATCHDOG_S = 3.0
#: How long a part hangs: longer than the limit and the supervisor's time together.
HANG_S = 6

Make = Callable[..., Supervised]


@pytest.fixture
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotifySocket]:
    with NotifySocket(str(tmp_path_factory.mktemp("n") / "notify"), room=16) as one:
        yield one


@pytest.fixture
def make_supervised(supervisor: NotifySocket) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(*faults: Fault) -> Supervised:
            daemon = Supervised(
                supervisor,
                watchdog_s=WATCHDOG_S,
                faults=faults,
                environment={"TEST_HOLD_S": str(HANG_S)},
            )
            return stack.enter_context(daemon)

        yield make


class Beats:
    """WATCHDOG=1 as the supervisor sees it."""

    def __init__(self, supervisor: NotifySocket) -> None:
        self._supervisor = supervisor

    @property
    def count(self) -> int:
        return len(self._supervisor.with_field("WATCHDOG"))

    def wait_more(self, number: int, timeout_s: float) -> None:
        until = self.count + number
        wait_for(lambda: self.count >= until, timeout_s, "WATCHDOG=1 to come")

    def wait_silence(self, timeout_s: float) -> None:
        """Wait until none has come for longer than the supervisor's time."""
        last, since = self.count, time.monotonic()

        def silent() -> bool:
            nonlocal last, since
            if self.count != last:
                last, since = self.count, time.monotonic()
            return time.monotonic() - since > WATCHDOG_S

        wait_for(silent, timeout_s, "WATCHDOG=1 to be withheld")


@contextmanager
def asking(ask: Callable[[], object]) -> Iterator[None]:
    """Ask something that is answered late, beside the body."""

    def run() -> None:
        ask()

    thread = threading.Thread(target=run, name="asking")
    thread.start()
    try:
        yield
    finally:
        thread.join(scaled(60.0))


def test_it_comes_in_time_from_every_image(supervisor: NotifySocket, make_supervised: Make) -> None:
    daemon, beats = make_supervised().start(), Beats(supervisor)
    for number in (2, 3):
        beats.wait_more(2, WATCHDOG_S)
        assert daemon.reload(force=True)["new_generation"] == number
    beats.wait_more(2, WATCHDOG_S)
    assert "no progress" not in daemon.errors()


@pytest.mark.parametrize(("thread", "name"), [("http", "HTTP loop"), ("store", "session store")])
def test_a_part_that_hangs_withholds_it_and_is_named_once(
    supervisor: NotifySocket, make_supervised: Make, thread: str, name: str
) -> None:
    wedge = Fault("wedge", "after", "Retire", thread=thread)
    daemon, beats = make_supervised(wedge).start(), Beats(supervisor)
    session = new_session(daemon)
    wait_for(lambda: "Retire" in daemon.effects(when="after"), 10.0, "the part to be wedged")
    with asking(lambda: accepted(daemon, session, "/count 3")):
        wait_for(lambda: name in supervisor.status(), 10.0, "STATUS= to name the part")
        beats.wait_silence(10.0)
        assert supervisor.status().startswith("no progress")
        assert any(name in why for why in daemon.control("status")["degraded"])
        # It was only slow: the supervisor, had it more patience, hears of it again.
        beats.wait_more(2, 15.0)
    assert daemon.errors().count("WATCHDOG=1 is withheld: ") == 1
    assert f"there is progress again: {name}" in daemon.errors()
    wait_for(lambda: "ready" in supervisor.status(), 5.0, "STATUS= to be as before")
    check_history(wait_all_ended(daemon, [session])[session])


def test_a_wedged_arbiter_is_started_again_and_the_turn_goes_on(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    daemon, beats = make_supervised(Fault("hang", "before", "Judge")).start(), Beats(supervisor)
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 8 1")
    wait_event(daemon, session, "turn.started")
    wait_for(lambda: supervisor.names(), 10.0, "the listener to be kept")
    daemon.control("reload", force=True)
    beats.wait_silence(10.0)
    daemon.kill()  # What the supervisor does now.
    daemon.start()
    assert daemon.generation() == 2
    check_history(wait_all_ended(daemon, [session], timeout_s=60.0)[session])


def test_what_is_stuck_in_a_drain_gets_no_more_time(
    supervisor: NotifySocket, make_supervised: Make
) -> None:
    """EXTEND_TIMEOUT_USEC moves systemd's watchdog as well: it would be put off for ever."""
    wedge = Fault("wedge", "before", "DrainTurns", thread="http")
    daemon = make_supervised(wedge).start()
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 5")
    wait_event(daemon, session, "tool.started")
    daemon.control("reload", force=True)
    wait_for(lambda: "HTTP loop" in supervisor.status(), 10.0, "STATUS= to name the part")
    wait_for(lambda: "HTTP loop" not in supervisor.status(), 15.0, "the part to go on")
    told = list(supervisor.notices)
    stuck = [n for n, one in enumerate(told) if "HTTP loop" in dict(one.fields).get("STATUS", "")]
    after = next(n for n, one in enumerate(told) if n > stuck[-1] and "STATUS" in one)
    assert [one for one in told[: stuck[0]] if "EXTEND_TIMEOUT_USEC" in one], "the drain got time"
    meanwhile = [name for one in told[stuck[0] : after] for name, _ in one.fields]
    assert "EXTEND_TIMEOUT_USEC" not in meanwhile
    daemon.wait_ready(above=1)
