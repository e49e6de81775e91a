"""What a supervisor is told, on real sockets: systemd's protocol and the descriptor of s6."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Callable

import pytest

from tests.process.faults import Fault
from tests.process.harness import PROVE, Daemon, full_or
from tests.process.notify_socket import NotifySocket
from tests.process.talk import accepted, new_session, wait_event
from tests.waiting import wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]


#: In a reduced run the transcript alone is told to both; tests/adapters/test_notify.py has every datagram.
@pytest.fixture(params=["path", "abstract"] if PROVE else ["path"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "abstract":
        return f"@netclaw-test-{uuid.uuid4().hex}"
    return str(tmp_path_factory.mktemp("n") / "notify")


@pytest.mark.parametrize("address", ["path", "abstract"], indirect=True)
def test_the_transcript_of_starts_restarts_and_a_stop(make_daemon: Make, address: str) -> None:
    reexecs = full_or(2, 10)
    with NotifySocket(address) as supervisor:
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}).start()
        for _ in range(reexecs):
            before = daemon.generation()
            daemon.reload(force=True)
            daemon.wait_ready(above=before)
        assert daemon.stop() == 0
        wait_for(lambda: "STOPPING" in supervisor.states(), 5.0, "STOPPING to arrive")

    states = supervisor.states()
    assert states == ["READY", *["RELOADING", "READY"] * reexecs, "STOPPING"]
    assert {notice.pid for notice in supervisor.notices} == {daemon.pid}
    for notice in supervisor.with_field("RELOADING"):
        assert int(notice["MONOTONIC_USEC"]) > 0
        assert notice["STATUS"] == "draining: 0 turns", "no time left before any was given"
    instants = [int(n["MONOTONIC_USEC"]) for n in supervisor.with_field("RELOADING")]
    assert instants == sorted(instants)
    for generation, notice in enumerate(supervisor.with_field("READY"), start=1):
        assert f"generation {generation} " in notice["STATUS"], "READY by another generation"
    for notice in supervisor.with_field("STATUS"):
        assert len(notice["STATUS"].encode()) <= 200


def test_status_says_what_each_phase_does(make_daemon: Make, address: str) -> None:
    with NotifySocket(address) as supervisor:
        quick = {"drain": {"model_timeout_s": 1}}
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}, tables=quick).start()
        session = new_session(daemon)
        accepted(daemon, session, "/count 100 0.1")
        wait_event(daemon, session, "turn.started")
        # It follows the turns, not only the phases.
        wait_for(
            lambda: supervisor.status() == "generation 1 ready, 1 turn running", 5.0, "the turn"
        )
        assert daemon.reload(force=True)["outcome"] == "applied"
        daemon.stop()
        said = [notice["STATUS"] for notice in supervisor.with_field("STATUS")]
        given = [n["EXTEND_TIMEOUT_USEC"] for n in supervisor.with_field("EXTEND_TIMEOUT_USEC")]
    # Each image asks for as long as its boot may take: until it serves it tells nothing.
    assert given.count("21000000") == 2, given
    patterns = (
        "starting: adopting listeners, opening the session store",
        r"generation 1 warming up, 0 turns running",
        r"generation 1 ready, 0 turns running",
        r"generation 1 ready, 1 turn running",
        r"generation 1 rehearsing a new configuration or new code, 1 turn running",
        r"draining: 1 turn, (30|29) s left",
        r"generation 1 handing off to the next image, 0 turns running",
        "starting: adopting listeners, opening the session store",
        r"generation 2 warming up, 0 turns running",
        r"generation 2 ready, \d turns? running",
        r"stopping: \d turns?, (30|29) s left",
    )
    rest = iter(said)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, text) for text in rest), (pattern, said)


def test_a_refusal_is_told_and_announces_nothing(make_daemon: Make, address: str) -> None:
    with NotifySocket(address) as supervisor:
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}).start()
        daemon.write_config(text="[daemon]\nlisten = 5\n")
        assert daemon.reload()["outcome"] == "refused"
        wait_for(
            lambda: any("refused" in n["STATUS"] for n in supervisor.with_field("STATUS")),
            5.0,
            "the refusal to be told",
        )
    assert supervisor.states() == ["READY"]


def test_an_abort_leaves_its_reason(make_daemon: Make, address: str) -> None:
    """systemd shows the last STATUS= of a unit that has failed."""
    with NotifySocket(address) as supervisor:
        abort = {"daemon": {"on_invalid_config": "abort"}}
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}, tables=abort).start()
        daemon.write_config(text="[daemon]\nlisten = 5\n")
        assert daemon.wait_exit() == 78
        wait_for(
            lambda: supervisor.status().startswith("ended, configuration refused: The conf"),
            5.0,
            lambda: f"the reason in STATUS=: {supervisor.status()}",
        )


def test_a_rollback_is_one_reload_that_ends_ready_and_refused(
    make_daemon: Make, address: str
) -> None:
    with NotifySocket(address) as supervisor:
        daemon = make_daemon(
            environment={"NOTIFY_SOCKET": address},
            faults=[Fault("raise", "before", "Serve", nth=2)],
        ).start()
        assert daemon.reload(force=True)["outcome"] == "rolled-back"
        assert daemon.stop() == 0
    assert supervisor.states() == ["READY", "RELOADING", "READY", "STOPPING"]
    assert {notice.pid for notice in supervisor.notices} == {daemon.pid}
    ready = supervisor.with_field("READY")[1]["STATUS"]
    assert ready.startswith("configuration refused: The new image failed")


def test_a_plain_hup_with_nothing_new_is_answered(make_daemon: Make, address: str) -> None:
    with NotifySocket(address) as supervisor:
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}).start()
        daemon.signal(signal.SIGHUP)
        wait_for(lambda: supervisor.states().count("READY") == 2, 5.0, "a second READY")
        (reloading,) = supervisor.with_field("RELOADING")
    assert "MONOTONIC_USEC" in reloading
    assert supervisor.states() == ["READY", "RELOADING", "READY"]


def test_a_long_drain_extends_the_supervisors_patience(make_daemon: Make, address: str) -> None:
    with NotifySocket(address) as supervisor:
        daemon = make_daemon(environment={"NOTIFY_SOCKET": address}).start()
        session = new_session(daemon)
        accepted(daemon, session, "/ledger 1 2.5")
        wait_event(daemon, session, "tool.started")
        assert daemon.reload(force=True)["outcome"] == "applied"
    states = [name for n in supervisor.notices for name, _ in n.fields]
    drain = states[states.index("RELOADING") :]
    assert "EXTEND_TIMEOUT_USEC" in drain[: drain.index("READY")]
    assert "STOPPING" not in states


def test_s6_gets_one_newline_at_the_first_readiness(make_daemon: Make) -> None:
    reader, writer = os.pipe()
    try:
        daemon = make_daemon(environment={"NETCLAW_NOTIFY_FD": str(writer)})
        daemon.start(pass_fds=[writer])
        os.close(writer)
        writer = -1
        daemon.reload(force=True)
        os.set_blocking(reader, False)
        # The end of file proves that no image holds the descriptor any more.
        assert os.read(reader, 100) == b"\n"
        assert os.read(reader, 100) == b""
        assert daemon.generation() == 2
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def test_without_a_supervisor_nothing_is_missing(daemon: Daemon) -> None:
    assert daemon.status()["phase"] == "ready"
