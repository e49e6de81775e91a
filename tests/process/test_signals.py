"""HUP and TERM in every phase; a stop beats a restart, a second stop beats the drain."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

import pytest

from tests.process.client import ControlRefusedError
from tests.process.faults import NEW_IMAGE, OLD_IMAGE, TRACE, Fault
from tests.process.harness import PROVE, Daemon
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

#: Where the daemon is held when the signal comes: an effect, and its occurrence over both images.
ALL_PLACES = [
    *((effect, 1) for effect in OLD_IMAGE),
    ("Image", 2),
    *((effect, 2) for effect in NEW_IMAGE if effect != "Retire"),
]
REDUCED = {"Rehearse", "MarkManifest", "Quiesce", "Settle", "Exec", "Image", "Serve", "OpenGate"}
PLACES = [place for place in ALL_PLACES if PROVE or place[0] in REDUCED]
#: A HUP is one event like any other: a reduced run tries it around the commit point.
HUP_PLACES = [
    place for place in PLACES if PROVE or place[0] in {"Rehearse", "Quiesce", "Exec", "Serve"}
]


@pytest.fixture
def held_in_a_restart(make_daemon: Make) -> Callable[[str, int], tuple[Daemon, Fault]]:
    """Make a daemon with a turn in flight that is held before one effect of a restart."""

    def make(effect: str, nth: int) -> tuple[Daemon, Fault]:
        daemon = make_daemon(tables={"drain": {"model_timeout_s": 0.3}})
        held = Fault("hold", "before", effect, nth=nth, until=daemon.home / "go")
        daemon.faults = [held]
        daemon.start()
        accepted(daemon, new_session(daemon), "/count 20 0.05")
        daemon.control("reload", force=True)
        wait_for(lambda: held.reached, 20.0, f"the daemon to be held before {effect}")
        return daemon, held

    return make


@pytest.mark.parametrize(("effect", "nth"), PLACES)
def test_term_stops_a_restart_wherever_it_is(
    held_in_a_restart: Callable[[str, int], tuple[Daemon, Fault]], effect: str, nth: int
) -> None:
    daemon, held = held_in_a_restart(effect, nth)
    daemon.signal(signal.SIGTERM)
    held.release()
    assert daemon.wait_exit(20.0) == 0
    assert not (daemon.home / "run" / "netclawd.pid").exists()

    daemon.faults = []
    daemon.start()
    (session,) = [row["id"] for row in daemon.ask("/api/sessions").json["sessions"]]
    check_history(wait_all_ended(daemon, [session])[session])


@pytest.mark.parametrize(("effect", "nth"), HUP_PLACES)
def test_hup_in_a_restart_is_answered_and_costs_no_second_one(
    held_in_a_restart: Callable[[str, int], tuple[Daemon, Fault]], effect: str, nth: int
) -> None:
    daemon, held = held_in_a_restart(effect, nth)
    pid = daemon.pid
    daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGHUP)
    held.release()
    assert daemon.wait_ready(above=1) == 2
    # The HUPs came before this request, so they have been judged when it is answered.
    assert daemon.reload()["outcome"] == "unchanged"
    assert (daemon.generation(), daemon.pid) == (2, pid)


@pytest.mark.parametrize("effect", ["Rehearse", "MarkManifest", "Quiesce", "Exec"])
def test_a_change_during_a_restart_is_taken_up_by_the_next(
    held_in_a_restart: Callable[[str, int], tuple[Daemon, Fault]], effect: str
) -> None:
    daemon, held = held_in_a_restart(effect, 1)
    daemon.write_config(tables={"sessions": {"workers": 3}})
    daemon.signal(signal.SIGHUP)
    held.release()
    daemon.wait_ready(above=2)
    wait_for(
        lambda: daemon.restarts()[0]["changed_keys"] == ["sessions.workers"],
        10.0,
        lambda: f"the change to be applied: {daemon.restarts()}",
    )


def test_two_hups_are_one_reload(make_daemon: Make) -> None:
    daemon = make_daemon()
    held = Fault("hold", "before", "Judge", until=daemon.home / "go")
    daemon.faults = [held]
    daemon.start()
    daemon.signal(signal.SIGHUP)
    wait_for(lambda: held.reached, 10.0, "the first HUP to be judged")
    daemon.write_config(tables={"sessions": {"workers": 3}})
    for _ in range(5):
        daemon.signal(signal.SIGHUP)
    held.release()
    daemon.wait_ready(above=1)
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.generation() == 2


def test_a_hup_with_nothing_new_restarts_nothing(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[TRACE]).start()
    daemon.signal(signal.SIGHUP)
    wait_for(lambda: "Record" in daemon.effects(), 10.0, "the HUP to be answered")
    assert daemon.generation() == 1
    assert "Rehearse" not in daemon.effects()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_and_ends_with_zero(daemon: Daemon, number: signal.Signals) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 0.5")
    wait_event(daemon, session, "tool.started")
    daemon.signal(number)
    assert daemon.wait_exit() == 0
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert [row["status"] for row in rows if row["type"] == "tool.finished"] == ["ok"]


def test_a_second_term_ends_the_drain(daemon: Daemon) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 15")
    wait_event(daemon, session, "tool.started")
    daemon.signal(signal.SIGTERM)
    wait_for(lambda: daemon.control("status")["phase"] == "stopping", 10.0, "the stop to begin")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(5.0) == 0
    daemon.start()
    check_history(wait_all_ended(daemon, [session])[session])


def test_a_reload_during_a_stop_is_answered(daemon: Daemon) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "/ledger 1 15")
    wait_event(daemon, session, "tool.started")
    daemon.signal(signal.SIGTERM)
    wait_for(lambda: daemon.control("status")["phase"] == "stopping", 10.0, "the stop to begin")
    with contextlib.suppress(ControlRefusedError):
        asked = daemon.control("reload", force=True)
        answer = daemon.control("outcome", restart_id=asked["restart_id"], wait_s=3)
        assert answer["outcome"] == "overtaken"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(5.0) == 0


def test_usr1_and_usr2_change_nothing(daemon: Daemon) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        daemon.signal(number)
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.generation() == 1
