"""With which configuration a daemon starts, and what a wrong one does to one that runs."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.process.faults import TRACE
from tests.process.harness import Daemon
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

NO_TOML = "[daemon\n"
UNKNOWN_KEY = "[daemon]\ncolour = 3\n"
WRONG_MEANING = '[daemon]\nlisten = ["0.0.0.0:5199"]\n'
WORDS = "Daemon startup aborted: "
ABORT = {"daemon": {"on_invalid_config": "abort"}}


def refused(daemon: Daemon, text: str) -> None:
    """Write a bad file and wait until the running daemon has refused it."""
    daemon.wait_kept()
    daemon.write_config(text=text)
    wait_for(lambda: daemon.status()["refusal"], 10.0, "the refusal to show")


# -- a start --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NO_TOML, UNKNOWN_KEY, WRONG_MEANING])
def test_after_a_crash_a_bad_file_is_not_served_but_the_last_good_one(
    daemon: Daemon, bad: str
) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "/count 60 0.05")
    wait_event(daemon, session, "turn.started")
    refused(daemon, bad)
    daemon.kill()
    daemon.start()
    status = daemon.status()
    assert status["configuration"] == "last-good"
    assert status["refusal"]["remedy"]
    assert "the last good configuration is served" in daemon.errors()
    assert daemon.config_path.read_text() == bad, "the file is the operator's"
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "turn.resumed")


@pytest.mark.parametrize("bad", [NO_TOML, UNKNOWN_KEY, WRONG_MEANING])
def test_after_a_stop_a_bad_file_ends_the_start_with_the_words(daemon: Daemon, bad: str) -> None:
    refused(daemon, bad)
    assert daemon.stop() == 0
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert WORDS in daemon.errors()
    assert "Remediation: " in daemon.errors()
    # Looking at it again changes nothing.
    daemon.spawn()
    assert daemon.wait_exit() == 78
    daemon.write_config()
    daemon.start()
    assert daemon.status()["configuration"] == "file"


def test_a_file_that_is_mended_while_the_last_good_one_serves_ends_the_refusal(
    daemon: Daemon,
) -> None:
    refused(daemon, UNKNOWN_KEY)
    daemon.kill()
    daemon.start()
    assert daemon.status()["configuration"] == "last-good"
    daemon.write_config()
    wait_for(lambda: daemon.status()["refusal"] is None, 10.0, "the refusal to end")
    assert daemon.status()["configuration"] == "file"


def test_a_file_without_a_last_good_one_ends_the_start(make_daemon: Make) -> None:
    daemon = make_daemon()
    daemon.write_config(text=NO_TOML)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert WORDS in daemon.errors()


def test_what_was_refused_is_not_tried_after_a_crash_and_is_after_a_stop(daemon: Daemon) -> None:
    """An address in use is a good configuration that can't be had."""
    daemon.wait_kept()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{port}"])
        wait_for(lambda: daemon.status()["refusal"], 10.0, "the refusal to show")
    daemon.kill()
    daemon.start()
    status = daemon.status()
    assert status["configuration"] == "last-good"
    assert status["refusal"]["slug"] == "address-unavailable"
    assert status["addresses"] == [f"127.0.0.1:{daemon.port}"]
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.status()["configuration"] == "file"
    assert f"127.0.0.1:{port}" in daemon.status()["addresses"]


# -- abort ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [UNKNOWN_KEY, WRONG_MEANING])
def test_abort_ends_a_running_daemon_that_is_given_a_wrong_meaning(
    make_daemon: Make, bad: str
) -> None:
    daemon = make_daemon(tables={**ABORT, "drain": {"model_timeout_at_stop_s": 0.2}}).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 60 0.05")
    wait_event(daemon, session, "turn.started")
    daemon.write_config(text=bad)
    assert daemon.wait_exit(30.0) == 78
    assert WORDS in daemon.errors()
    assert "Remediation: " in daemon.errors()
    assert (daemon.home / "state" / "manifest.cbor").exists()

    daemon.spawn()
    assert daemon.wait_exit() == 78, "it was not a crash: the file must be mended"
    daemon.write_config()
    daemon.start()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "turn.resumed")
    outcomes = [row["outcome"] for row in daemon.restarts()]
    assert outcomes[:2] == ["stopped", "refused"]


def test_abort_refuses_what_can_not_be_parsed_or_bound_and_goes_on(make_daemon: Make) -> None:
    daemon = make_daemon(tables=ABORT).start()
    refused(daemon, NO_TOML)
    assert daemon.reload()["outcome"] == "refused"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon.write_config(
            listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{taken.getsockname()[1]}"]
        )
        assert daemon.reload()["slug"] == "address-unavailable"
    assert daemon.generation() == 1
    assert daemon.stop() == 0


def test_abort_after_a_crash_ends_the_start_for_a_meaning_and_serves_the_last_good_for_no_toml(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(tables=ABORT).start()
    daemon.wait_kept()
    daemon.kill()
    daemon.write_config(text=UNKNOWN_KEY + 'on_invalid_config = "abort"\n')
    daemon.spawn()
    assert daemon.wait_exit() == 78
    daemon.write_config(text=NO_TOML)
    daemon.start()
    assert daemon.status()["configuration"] == "last-good"
    daemon.kill()
    daemon.write_config(text=UNKNOWN_KEY)
    daemon.start()
    assert daemon.status()["configuration"] == "last-good", "the mode is the file's if it parses"


def test_the_mode_of_a_running_daemon_is_that_of_the_running_configuration(daemon: Daemon) -> None:
    refused(daemon, UNKNOWN_KEY + 'on_invalid_config = "abort"\n')
    assert daemon.generation() == 1


def test_abort_stops_in_the_write_order_of_a_stop(make_daemon: Make) -> None:
    daemon = make_daemon(tables=ABORT, faults=[TRACE]).start()
    daemon.write_config(text=UNKNOWN_KEY)
    assert daemon.wait_exit(30.0) == 78
    effects = daemon.effects()
    order = ["Record", "NotifyStopping", "CloseGate", "MarkManifest", "DrainTurns", "Quiesce"]
    places = [effects.index(name) for name in (*order, "Settle", "Exit")]
    assert places == sorted(places)
    assert "Exec" not in effects
