"""A new image that fails on its way up: the last good configuration serves, and nobody is refused.

At every step of a boot, by an error, by an exit and by hanging; with connections of every kind open.
"""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.client import read_answer
from tests.process.faults import TRACE, Fault
from tests.process.harness import PROVE, Daemon, free_port, full_or, refused
from tests.process.load import Target, ask_over, check_nothing_lost, under_load
from tests.process.talk import (
    accepted,
    check_history,
    new_session,
    of_type,
    wait_all_ended,
    wait_event,
)
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

#: Where an image from a handoff can fail before it is ready, in order.
STEPS = [
    ("before", "Import", 2),
    ("before", "ClaimListeners", 2),
    ("after", "ClaimListeners", 2),
    ("before", "OpenStore", 2),
    ("after", "OpenStore", 2),
    ("before", "Serve", 2),
    ("after", "Serve", 2),
    ("before", "WarmUp", 2),
    ("after", "WarmUp", 2),
    ("before", "OpenGate", 2),
    ("after", "OpenGate", 2),
    ("before", "NotifyReady", 2),
]
#: What a reduced run takes: each kind at an early and a late step.
REDUCED = {
    ("raise", "before", "Import"),
    ("raise", "after", "ClaimListeners"),
    ("raise", "before", "NotifyReady"),
    ("exit", "before", "Import"),
    ("exit", "before", "OpenGate"),
    ("hang", "before", "OpenStore"),
    ("hang", "before", "NotifyReady"),
}
FAULTS = [
    Fault(kind, when, effect, nth=nth)
    for kind in ("raise", "exit", "hang")
    for when, effect, nth in STEPS
    if PROVE or (kind, when, effect) in REDUCED
]
QUICK = {"daemon": {"boot_timeout_s": 2}}


def failing(make: Make, *faults: Fault, **daemon: object) -> Daemon:
    return make(faults=list(faults), tables={"daemon": {**QUICK["daemon"], **daemon}}).start()


def ask_for_more(daemon: Daemon) -> int:
    """Write a configuration with one address more; the new image is the one to fail. Return the port."""
    more = free_port()
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{more}"])
    return more


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.do}-{f.when}-{f.effect}")
def test_a_boot_that_fails_leads_back_and_loses_nothing(make_daemon: Make, fault: Fault) -> None:
    daemon = failing(make_daemon, fault)
    pid, session = daemon.pid, new_session(daemon)
    other = new_session(daemon)
    idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=scaled(15.0))
    idle.request("GET", "/api/health/live")
    assert read_answer(idle.getresponse()).generation == 1
    silent = socket.create_connection(("127.0.0.1", daemon.port), scaled(15.0))
    accepted(daemon, other, "/count 30 0.02")
    try:
        with under_load(Target(daemon.port, session), at_most_s=60.0) as ledgers:
            more = ask_for_more(daemon)
            generation = daemon.wait_ready(above=2)
        idle.request("GET", "/api/health/live")
        assert read_answer(idle.getresponse()).generation == 3
        assert ask_over(silent).generation == 3
    finally:
        idle.close()
        silent.close()
    check_nothing_lost(ledgers)

    assert generation == 3, "the failed image has used up 2"
    newest = daemon.ended_restarts()[0]
    assert (newest["outcome"], newest["new_generation"]) == ("rolled-back", 3)
    assert newest["slug"] == ("boot-timeout" if fault.do == "hang" else "boot-failed")
    assert newest["reason"].startswith("The new image ")
    assert newest["remedy"]
    status = daemon.status()
    assert status["pid"] == pid
    assert status["refusal"]["slug"] == newest["slug"]
    assert status["configuration"] == "last-good"
    assert status["addresses"] == [f"127.0.0.1:{daemon.port}"]
    wait_for(lambda: refused(more), 10.0, "the address of the failed configuration to be closed")
    for rows in wait_all_ended(daemon, [session, other], timeout_s=60.0).values():
        check_history(rows)

    # The same content is tried again on request only; a good one ends the refusal.
    again = daemon.reload()
    assert (again["outcome"], again["new_generation"]) == ("applied", 4)
    assert daemon.status()["refusal"] is None
    assert daemon.status()["configuration"] == "file"


def test_the_watcher_does_not_try_what_was_rolled_back_and_takes_what_is_mended(
    make_daemon: Make,
) -> None:
    daemon = failing(make_daemon, Fault("raise", "before", "Serve", nth=2))
    ask_for_more(daemon)
    bad = daemon.config_path.read_text()
    assert daemon.wait_ready(above=2) == 3
    # The same content in another file, and with a comment more: the watcher sees both.
    wait_judged(daemon, 2)  # By the image that went back, when it began to watch.
    daemon.write_config(text=bad + "# the same again\n")
    wait_judged(daemon, 3)
    mended = free_port()
    daemon.write_config(listen=[f"127.0.0.1:{daemon.port}", f"127.0.0.1:{mended}"])
    wait_for(
        lambda: f"127.0.0.1:{mended}" in daemon.status()["addresses"],
        20.0,
        "the mended configuration to serve",
    )
    assert daemon.generation() == 4, "one restart for the mended one, none for the other"
    assert daemon.effects().count("Rehearse") == 2, "nor was one begun"
    assert daemon.status()["refusal"] is None


def wait_judged(daemon: Daemon, times: int) -> None:
    wait_for(
        lambda: daemon.effects(when="after").count("Judge") >= times,
        10.0,
        f"the file to have been judged {times} times",
    )


def test_who_waits_for_the_reload_is_told_of_the_rollback(make_daemon: Make) -> None:
    daemon = failing(make_daemon, Fault("exit", "before", "Serve", nth=2))
    entry = daemon.reload(force=True)
    assert (entry["outcome"], entry["slug"]) == ("rolled-back", "boot-failed")
    assert "it exited with 5" in entry["reason"]


def test_three_rollbacks_within_a_minute_and_then_the_supervisor_must_act(
    make_daemon: Make,
) -> None:
    daemon = failing(make_daemon, *(Fault("raise", "before", "Serve", nth=n) for n in range(2, 9)))
    session = new_session(daemon)
    accepted(daemon, session, "/count 20 0.02")
    ask_for_more(daemon)
    assert daemon.wait_exit(30.0) == 75
    # The image that was handed to, and three that went back to the last good configuration.
    assert daemon.effects().count("Serve") == 1 + 1 + 3
    assert "Giving up" in daemon.errors()

    daemon.faults = []
    daemon.start()
    status = daemon.status()
    assert status["configuration"] == "last-good"
    assert status["generation"] > 1
    check_history(wait_all_ended(daemon, [session])[session])


def test_a_boot_that_never_lets_go_of_the_interpreter_is_ended_for_the_supervisor(
    make_daemon: Make,
) -> None:
    daemon = failing(make_daemon, Fault("seize", "before", "OpenStore", nth=2), boot_timeout_s=1)
    ask_for_more(daemon)
    assert daemon.wait_exit(30.0) == 1
    assert "Timeout" in daemon.errors()
    daemon.faults = []
    daemon.start()
    assert daemon.status()["refusal"]["slug"] == "boot-crashed"


def test_a_term_to_an_image_that_hangs_stops_the_one_that_takes_over(make_daemon: Make) -> None:
    daemon = failing(make_daemon, Fault("hang", "before", "OpenStore", nth=2))
    ask_for_more(daemon)
    wait_for(lambda: daemon.effects().count("OpenStore") == 2, 20.0, "the new image to hang")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(30.0) == 0
    assert daemon.effects().count("Image") == 3
    assert daemon.effects()[-1] == "Exit"


@pytest.mark.parametrize(
    "effect",
    full_or(
        ["Import", "Serve", "OpenGate"],
        ["Import", "ClaimListeners", "Serve", "WarmUp", "OpenGate"],
    ),
)
def test_after_a_crash_of_the_new_image_the_next_start_serves_the_last_good(
    make_daemon: Make, effect: str
) -> None:
    """SIGKILL stands for a crash in C: nothing of ours runs any more."""
    cut = {"model_timeout_s": 0.1}
    daemon = make_daemon(
        faults=[Fault("kill", "before", effect, nth=2)], tables={"drain": cut}
    ).start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 100 0.03")
    wait_event(daemon, session, "turn.started")
    more = ask_for_more(daemon)
    assert daemon.wait_exit(30.0) == -signal.SIGKILL

    daemon.faults = [TRACE]
    daemon.start()
    status = daemon.status()
    assert status["configuration"] == "last-good"
    assert status["refusal"]["slug"] == "boot-crashed"
    assert status["addresses"] == [f"127.0.0.1:{daemon.port}"]
    assert "the last good configuration is served" in daemon.errors()
    rows = wait_all_ended(daemon, [session])[session]
    check_history(rows)
    assert of_type(rows, "turn.resumed")
    # It is remembered over one more crash, and tried on request.
    daemon.kill()
    daemon.start()
    assert daemon.status()["refusal"]["slug"] == "boot-crashed"
    assert daemon.reload()["outcome"] == "applied"
    assert f"127.0.0.1:{more}" in daemon.status()["addresses"]
    assert daemon.status()["refusal"] is None


def test_a_crash_after_ready_serves_the_new_configuration_again(make_daemon: Make) -> None:
    daemon = failing(make_daemon, Fault("kill", "before", "Retire", nth=2))
    wait_for(lambda: "Retire" in daemon.effects(), 10.0, "the first image to have retired")
    more = ask_for_more(daemon)
    assert daemon.wait_exit(30.0) == -signal.SIGKILL
    daemon.faults = []
    daemon.start()
    assert daemon.status()["configuration"] == "file"
    assert f"127.0.0.1:{more}" in daemon.status()["addresses"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_unix_sockets_of_the_failed_configuration_go_and_the_others_stay(
    make_daemon: Make, when: str
) -> None:
    daemon = make_daemon(faults=[Fault("raise", when, "Serve", nth=2)])
    stays, goes = daemon.home / "stays.sock", daemon.home / "goes.sock"
    tcp = f"127.0.0.1:{daemon.port}"
    daemon.write_config(listen=[tcp, f"unix:{stays}"])
    daemon.start()
    inode = stays.stat().st_ino
    daemon.write_config(listen=[tcp, f"unix:{stays}", f"unix:{goes}", f"unix:@{daemon.home}"])
    assert daemon.wait_ready(above=2) == 3
    assert daemon.status()["addresses"] == [tcp, f"unix:{stays}"]
    assert stays.stat().st_ino == inode
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(scaled(10.0))
        client.connect(str(stays))
        assert ask_over(client).generation == 3
    wait_for(lambda: not goes.exists(), 10.0, "the socket of the failed configuration to go")


def test_a_hup_that_comes_while_an_image_fails_is_judged_by_the_one_that_takes_over(
    make_daemon: Make,
) -> None:
    daemon = failing(
        make_daemon,
        Fault("signal", "before", "Import", nth=2, signal="SIGHUP"),
        Fault("raise", "before", "Serve", nth=2),
    )
    more = ask_for_more(daemon)
    assert daemon.wait_ready(above=3) == 4, "3 took over; who asks by name has the file tried again"
    assert f"127.0.0.1:{more}" in daemon.status()["addresses"]
    outcomes = [(row["outcome"], row["trigger"]) for row in daemon.ended_restarts()[:2]]
    assert outcomes[0] == ("applied", "hup")
    assert outcomes[1][0] == "rolled-back"


def test_a_stop_that_waits_while_an_image_fails_stops_the_one_that_takes_over(
    make_daemon: Make, tmp_path: Path
) -> None:
    held = Fault("hold", "before", "WarmUp", nth=2, until=tmp_path / "go-on")
    daemon = make_daemon(faults=[held, Fault("raise", "before", "WarmUp", nth=2)]).start()
    ask_for_more(daemon)
    wait_for(lambda: held.reached, 20.0, "the new image to be held")
    daemon.control("stop")
    held.release()
    assert daemon.wait_exit(30.0) == 0
    assert daemon.effects().count("Image") == 3
    assert daemon.effects()[-1] == "Exit"


def test_a_stop_before_ready_is_not_cut_short_by_the_boot_timeout(make_daemon: Make) -> None:
    """Its drain may take longer than a boot; and STOPPING is never followed by an execve."""
    daemon = make_daemon(
        faults=[
            Fault("signal", "after", "WarmUp", nth=2, signal="SIGTERM"),
            Fault("hang", "before", "Quiesce", nth=2),
        ],
        tables={"daemon": {"boot_timeout_s": 2}},
        environment={"TEST_HOLD_S": "4"},
    ).start()
    ask_for_more(daemon)
    assert daemon.wait_exit(30.0) == 0
    assert daemon.effects().count("Image") == 2
    assert daemon.effects()[-1] == "Exit"


def test_where_descriptors_run_out_the_connections_are_given_up_and_the_listeners_held(
    make_daemon: Make, tmp_path: Path
) -> None:
    held = Fault("hold", "before", "Serve", nth=2, until=tmp_path / "go-on")
    daemon = make_daemon(faults=[held, Fault("raise", "before", "Serve", nth=2)]).start()
    idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(28)]
    try:
        assert ask_over(idle[-1]).generation == 1
        ask_for_more(daemon)
        wait_for(lambda: held.reached, 20.0, "the new image to be held")
        most = max(int(number) for number in os.listdir(f"/proc/{daemon.pid}/fd")) + 10
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        held.release()
        assert daemon.wait_ready(above=2) == 3
    finally:
        for connection in idle:
            connection.close()
    assert daemon.ended_restarts()[0]["outcome"] == "rolled-back"
    assert "connections are given up" in daemon.errors()


def test_no_word_of_a_failure_shows_a_secret(make_daemon: Make) -> None:
    """The image that takes over does not know the secrets of the one that failed."""
    secret = "a-secret-of-the-new-image"
    fault = Fault("raise", "before", "Serve", nth=2, text=f"the key {secret} is wrong")
    daemon = make_daemon(faults=[fault], environment={"NEW_KEY": secret}).start()
    provider = {**daemon.tables["providers.demo"], "api_key": "env:NEW_KEY"}
    daemon.write_config(tables={"providers.demo": provider})
    assert daemon.wait_ready(above=2) == 3
    reason = daemon.ended_restarts()[0]["reason"]
    assert "the key [redacted] is wrong" in reason
    assert daemon.status()["refusal"]["reason"] == reason
    assert daemon.stop() == 0
    written = [path for path in daemon.home.rglob("*") if path.is_file()]
    assert list((daemon.home / "state" / "logs").glob("crash-*.log"))
    assert [str(path) for path in written if secret.encode() in path.read_bytes()] == []


def test_a_daemon_without_standard_descriptors_starts_restarts_and_goes_back(
    make_daemon: Make,
) -> None:
    """What is opened next must not be taken for standard error."""
    daemon = make_daemon(faults=[Fault("raise", "before", "Serve", nth=3)])
    daemon.prefix = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    daemon.start()
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.reload(force=True)["outcome"] == "rolled-back"
    targets = {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)}
    assert targets == {"/dev/null"}
