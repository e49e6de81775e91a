"""What can go wrong around a running daemon, by real means: it serves, says what is wrong, loses nothing.

Full and read-only disks are in test_disk_faults.py, damaged records in test_damaged_records.py.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from netclawd.adapters.store.schema import VERSION
from tests.adapters.test_store_faults import held
from tests.adapters.test_store_files import stamp
from tests.process.faults import TRACE, Fault
from tests.process.harness import Daemon
from tests.process.process_facts import children
from tests.process.talk import (
    accepted,
    check_history,
    events,
    new_session,
    of_type,
    send,
    wait_all_ended,
    wait_event,
)
from tests.waiting import scaled, wait_for

pytestmark = pytest.mark.long

Make = Callable[..., Daemon]

DAY_S = 86400.0


def check_ends(daemon: Daemon, session: str, last_words: str) -> None:
    """Every turn of the session ends, and its history is whole."""
    (rows,) = wait_all_ended(daemon, [session], timeout_s=60.0).values()
    check_history(rows)
    assert of_type(rows, "reply.sent")[-1]["text"].endswith(last_words)


def degraded(daemon: Daemon, words: str) -> None:
    wait_for(
        lambda: any(words in line for line in daemon.status()["degraded"]),
        15.0,
        lambda: f"{words!r} in {daemon.status()['degraded']}",
    )


# -- a store that is held by another program --------------------------------------------------------


def test_a_locked_store_refuses_messages_and_restarts_and_heals(daemon: Daemon) -> None:
    session = new_session(daemon)
    store = daemon.home / "state" / "netclawd.db"
    with held(str(store)):
        answer = send(daemon, session, "/count 3", "key")
        assert (answer.status, answer.json["type"]) == (503, "urn:netclaw:problem:store-locked")
        assert answer.retry_later
        assert "fuser" in answer.json["remedy"]
        degraded(daemon, "is locked by another program")
        assert events(daemon, session) == []
        entry = daemon.reload(force=True)
        assert (entry["outcome"], entry["slug"]) == ("refused", "store-locked")
    wait_for(lambda: not daemon.status()["degraded"], 15.0, "the lock to be gone")
    accepted(daemon, session, "/count 3", "key")
    wait_all_ended(daemon, [session])
    assert daemon.reload(force=True)["outcome"] == "applied"


def test_a_start_on_a_locked_store_ends_with_75_and_names_the_way_out(daemon: Daemon) -> None:
    session = new_session(daemon)
    assert daemon.stop() == 0
    with held(str(daemon.home / "state" / "netclawd.db")):
        daemon.spawn()
        assert daemon.wait_exit() == 75
        assert "is locked by another program" in daemon.errors()
    daemon.start()
    assert events(daemon, session) == []


def test_a_damaged_log_stops_the_start_until_somebody_decides(make_daemon: Make) -> None:
    daemon = make_daemon().start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 3")
    wait_all_ended(daemon, [session])
    daemon.kill()
    log = daemon.home / "state" / "netclawd.db-wal"
    whole = log.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\xa5" * len(whole)):
        log.write_bytes(damaged)
        daemon.spawn()
        assert daemon.wait_exit() == 1
        assert "Traceback" not in daemon.errors()
        assert "netclawd.db-wal is damaged" in daemon.errors()
        assert log.read_bytes() == damaged, "what may be mended was not changed"
    log.write_bytes(whole)
    daemon.start()
    check_ends(daemon, session, " 3")


def test_a_store_of_a_newer_release_ends_the_start_and_is_not_touched(daemon: Daemon) -> None:
    session = new_session(daemon)
    assert daemon.stop() == 0
    store = daemon.home / "state" / "netclawd.db"
    stamp(str(store), schema=VERSION + 1, min_reader=VERSION + 1)
    newer = store.read_bytes()
    daemon.spawn()
    assert daemon.wait_exit() == 1
    assert "Traceback" not in daemon.errors()
    assert "newer netclawd" in daemon.errors()
    assert "newer release" in daemon.errors()
    assert store.read_bytes() == newer
    stamp(str(store), schema=VERSION, min_reader=VERSION)
    daemon.start()
    assert events(daemon, session) == []


def test_a_store_that_this_user_may_only_read_ends_the_start_in_words(make_daemon: Make) -> None:
    daemon = make_daemon(launcher=Path(__file__).with_name("unprivileged.py")).start()
    session = new_session(daemon)
    assert daemon.stop() == 0
    store = daemon.home / "state" / "netclawd.db"
    for path, mode in ((store, 0o400), (store.parent, 0o500)):
        old = path.stat().st_mode
        path.chmod(mode)
        daemon.spawn()
        assert daemon.wait_exit() == 1
        assert f"{path} is read-only for this user. Make the file and its folder" in daemon.errors()
        path.chmod(old)
    daemon.start()
    assert events(daemon, session) == []


def test_a_corrupt_page_fails_what_needs_it_and_nothing_else(daemon: Daemon) -> None:
    """The events of one table are lost; the daemon says so, restarts and stops all the same."""
    session = new_session(daemon)
    for _ in range(10):
        accepted(daemon, session, "/count 200")
    wait_all_ended(daemon, [session])
    assert daemon.stop() == 0
    store = daemon.home / "state" / "netclawd.db"
    with closing(sqlite3.connect(store)) as db:
        names = "events", "events_by_seq"
        roots = [
            page
            for name in names
            for (page,) in db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,))
        ]
    with open(store, "r+b") as file:
        for page in roots:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 4096)
    daemon.start()
    answer = daemon.ask(f"/api/sessions/{session}/events?after=0")
    assert (answer.status, answer.json["type"]) == (500, "urn:netclaw:problem:store-damaged")
    assert "backup" in answer.json["remedy"]
    assert daemon.ask("/api/sessions").status == 200
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.generation() == 3
    assert daemon.stop() == 0


# -- folders that vanish ---------------------------------------------------------------------------


def test_a_state_folder_that_vanishes_is_told_and_nothing_more_is_acknowledged(
    daemon: Daemon,
) -> None:
    session = new_session(daemon)
    accepted(daemon, session, "/count 3")
    wait_all_ended(daemon, [session])
    before = events(daemon, session)
    shutil.rmtree(daemon.home / "state")
    answer = send(daemon, session, "/count 3")
    assert (answer.status, answer.json["type"]) == (503, "urn:netclaw:problem:store-gone")
    assert f"/proc/{daemon.pid}/fd" in answer.json["remedy"]
    degraded(daemon, "was moved or deleted")
    assert events(daemon, session) == before, "reads go on"
    entry = daemon.reload(force=True)
    assert entry["outcome"] == "refused"
    assert "no session store" in entry["reason"]
    assert daemon.generation() == 1
    assert daemon.stop() == 1, "exit 0 promises a manifest"
    assert "Traceback" not in daemon.errors()
    daemon.start()  # Anew.
    assert daemon.ask(f"/api/sessions/{session}").status == 404


def test_a_state_folder_that_is_moved_away_and_back_goes_on(daemon: Daemon) -> None:
    session = new_session(daemon)
    state = daemon.home / "state"
    state.rename(daemon.home / "elsewhere")
    assert send(daemon, session, "/count 3", "key").status == 503
    (daemon.home / "elsewhere").rename(state)
    wait_for(lambda: not daemon.status()["degraded"], 15.0, "the store to be found again")
    accepted(daemon, session, "/count 3", "key")
    check_ends(daemon, session, " 3")
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.stop() == 0


def test_a_runtime_folder_that_vanishes_comes_back(daemon: Daemon) -> None:
    session = new_session(daemon)
    shutil.rmtree(daemon.home / "run")
    assert daemon.status()["pid"] == daemon.pid, "HTTP does not need it"
    wait_for(daemon.control_path.exists, 10.0, "the control socket to be there again")
    assert daemon.control("status")["pid"] == daemon.pid
    assert (daemon.control_path.stat().st_mode & 0o777) == 0o660
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.control("status")["generation"] == 2
    accepted(daemon, session, "/count 3")
    check_ends(daemon, session, " 3")
    assert daemon.status()["degraded"] == []
    assert daemon.stop() == 0


# -- a clock that jumps ----------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_in_a_drain_loses_no_turn(make_daemon: Make, jump_s: float) -> None:
    """The wall clock; what is measured and bounded is so on the monotonic one."""
    daemon = make_daemon()
    clock = daemon.home / "clock"
    hold = Fault("hold", "after", "DrainTurns", until=daemon.home / "go")
    daemon.faults, daemon.environment = [hold], {"TEST_CLOCK": str(clock)}
    daemon.tables["drain"] = {"model_timeout_s": 0.3, "tool_timeout_s": 0.3}
    daemon.start()
    told, session = new_session(daemon), new_session(daemon)
    accepted(daemon, told, "/count 3")
    wait_all_ended(daemon, [told])
    accepted(daemon, session, "/count 60 0.05")
    wait_event(daemon, session, "turn.started")
    began = time.monotonic()
    daemon.control("reload", force=True)
    wait_for(lambda: hold.reached, 15.0, "the drain to begin")
    wait_event(daemon, session, "turn.interrupted")
    clock.write_text(str(jump_s))
    hold.release()
    daemon.wait_ready(above=1)
    took_s = time.monotonic() - began
    entry = daemon.ended_restarts()[0]
    assert entry["outcome"] == "applied"
    assert 0 <= entry["drain_s"] <= took_s
    assert 0 <= entry["gap_ms"] <= took_s * 1000
    accepted(daemon, told, "/count 3")
    check_ends(daemon, told, " 3")
    if jump_s < 0:
        check_ends(daemon, session, " 60")
    else:
        # Ten minutes from the interruption are over by every clock there is: it waits for a person.
        wait_event(daemon, session, "turn.parked")
        assert of_type(events(daemon, session), "turn.parked")[0]["reason"] == "resume-deadline"
        check_history(events(daemon, session))
    assert daemon.stop() == 0


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_under_running_turns_changes_nothing(
    make_daemon: Make, jump_s: float
) -> None:
    daemon = make_daemon(faults=[TRACE])
    clock = daemon.home / "clock"
    daemon.environment = {"TEST_CLOCK": str(clock)}
    daemon.start()
    session = new_session(daemon)
    accepted(daemon, session, "/count 20 0.05")
    wait_event(daemon, session, "turn.started")
    clock.write_text(str(jump_s))
    later = new_session(daemon)
    accepted(daemon, later, "/count 3")
    check_ends(daemon, session, " 20")
    check_ends(daemon, later, " 3")
    assert daemon.status()["degraded"] == []
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.stop() == 0


# -- what the kernel has no more of ------------------------------------------------------------------


@contextmanager
def limited(daemon: Daemon, kind: int, most: int) -> Iterator[None]:
    """Give a running daemon a low limit; afterwards the old one."""
    soft, hard = resource.prlimit(daemon.pid, kind)
    resource.prlimit(daemon.pid, kind, (most, hard))
    try:
        yield
    finally:
        resource.prlimit(daemon.pid, kind, (soft, hard))


def at_rest(daemon: Daemon) -> None:
    """Wait until the start has ended behind the scenes too: the file is watched."""
    wait_for(lambda: daemon.status()["watcher"], 15.0, "the configuration to be watched")


def spent_s(daemon: Daemon) -> float:
    """Return the processor time that the daemon has used, seconds."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_descriptor_left_neither_ends_the_daemon_nor_lets_it_spin(make_daemon: Make) -> None:
    daemon = make_daemon()
    daemon.prefix = ["prlimit", "--nofile=64:64"]
    daemon.start()
    session = new_session(daemon)
    with ExitStack() as stack:
        for _ in range(64):
            crowd = socket.create_connection(("127.0.0.1", daemon.port), timeout=scaled(5))
            stack.enter_context(crowd)
        for _ in range(16):
            control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.enter_context(control).connect(str(daemon.control_path))
        used, began = spent_s(daemon), time.monotonic()
        os.kill(daemon.pid, 1)  # HUP: nothing new, or refused with words; the process goes on.
        wait_for(lambda: time.monotonic() - began > 1.5, 30.0, "a moment to pass")
        assert spent_s(daemon) - used < 0.75, "it spins"
        assert daemon.running.poll() is None
    wait_for(lambda: answers(daemon), 15.0, "the crowd to have gone")
    accepted(daemon, session, "/count 3")
    check_ends(daemon, session, " 3")
    entry = daemon.reload(force=True)
    assert entry["outcome"] == "applied", entry
    assert daemon.stop() == 0


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(OSError):
        return daemon.ask("/api/health/ready").status == 200
    return False


def test_a_restart_without_descriptors_is_refused_with_words(daemon: Daemon) -> None:
    at_rest(daemon)
    session = new_session(daemon)
    used = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    with limited(daemon, resource.RLIMIT_NOFILE, used + 3):
        entry = daemon.reload(force=True)
        assert entry["outcome"] == "refused", entry
        assert "Too many open files" in entry["reason"]
        assert entry["remedy"]
        accepted(daemon, session, "/count 3")
        check_ends(daemon, session, " 3")
    assert daemon.status()["degraded"] == []
    assert daemon.reload(force=True)["outcome"] == "applied"


#: Somebody whom limits bind, and who may read a clone that is root's alone.
SOMEBODY = 61_347
RIGHTS = "+dac_override,+dac_read_search"


@pytest.mark.needs_root
def test_a_restart_without_processes_is_refused_with_words(make_daemon: Make) -> None:
    """RLIMIT_NPROC binds everybody but root; threads count."""
    daemon = make_daemon()
    daemon.write_config()
    os.chown(daemon.home, SOMEBODY, -1)
    rights = [f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"]
    daemon.prefix = ["setpriv", f"--reuid={SOMEBODY}", "--clear-groups", *rights]
    daemon.start()
    session = new_session(daemon)
    at_rest(daemon)
    tasks = len(os.listdir(f"/proc/{daemon.pid}/task"))
    old, _ = resource.getrlimit(resource.RLIMIT_NPROC)  # It was inherited.
    for spare in (0, 1):  # Not even the child; the child, but nobody to wait for it.
        limit_as(daemon, f"{tasks + spare}:")
        entry = daemon.reload(force=True)
        assert (entry["outcome"], entry["slug"]) == ("refused", "rehearsal-failed"), entry
        assert entry["remedy"]
    accepted(daemon, session, "/count 3")
    check_ends(daemon, session, " 3")
    limit_as(daemon, "unlimited:" if old == resource.RLIM_INFINITY else f"{old}:")
    assert daemon.reload(force=True)["outcome"] == "applied"
    assert daemon.stop() == 0


def limit_as(daemon: Daemon, limit: str) -> None:
    """Limit the processes of the daemon's user, as that user: root may lack the right to."""
    command = [*daemon.prefix, "prlimit", f"--pid={daemon.pid}", f"--nproc={limit}"]
    subprocess.run(command, check=True)


# -- a child that doesn't end ------------------------------------------------------------------------


def deaf_child(daemon: Daemon) -> int:
    """Ask for a restart whose rehearsing child hangs and ignores TERM; return its PID."""
    daemon.control("reload", force=True)

    def deaf() -> list[int]:
        # The imports of the start may have a child too: a library is looked for by a program.
        return [child for child in children(daemon.pid) if ignores_term(child)]

    (child,) = wait_for(deaf, 20.0, "the child to ignore TERM")
    os.kill(child, signal.SIGTERM)
    return child


def ignores_term(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def test_a_rehearsing_child_that_ignores_term_is_ended_at_its_deadline(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[Fault("deaf", "before", "Rehearsal")])
    daemon.environment["TEST_REHEARSAL_S"] = "2"
    daemon.start()
    session = new_session(daemon)
    child = deaf_child(daemon)
    accepted(daemon, session, "/count 3")
    check_ends(daemon, session, " 3")
    entry = wait_for(lambda: daemon.status()["last_restart"], 20.0, "the deadline")
    assert (entry["outcome"], entry["slug"]) == ("refused", "rehearsal-failed")
    assert "it took longer than 2 s" in entry["reason"]
    assert not os.path.exists(f"/proc/{child}"), "it was waited for"
    assert daemon.reload(force=True)["outcome"] == "applied"


def test_a_stop_does_not_wait_for_a_rehearsing_child_that_ignores_term(make_daemon: Make) -> None:
    daemon = make_daemon(faults=[Fault("deaf", "before", "Rehearsal")]).start()
    child = deaf_child(daemon)
    assert daemon.stop() == 0
    assert not os.path.exists(f"/proc/{child}")
