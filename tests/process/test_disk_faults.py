"""A disk that is full or read-only under a real daemon: it serves, says so, and goes on by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.process.client import Answer
from tests.process.faults import Fault
from tests.process.harness import Daemon
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
from tests.process.volume import Volume
from tests.waiting import wait_for

Make = Callable[..., Daemon]
pytestmark = [pytest.mark.needs_root, pytest.mark.long]

#: More than one page of the store: what is left of a full disk never takes it.
LARGE = "x" * 200_000


def told(daemon: Daemon, words: str) -> str:
    """Return what the status says of it; reads go on meanwhile."""

    def found() -> str:
        return next((line for line in daemon.status()["degraded"] if words in line), "")

    return wait_for(found, 15.0, lambda: f"{words} in {daemon.status()['degraded']}")


def healed(daemon: Daemon) -> None:
    wait_for(lambda: not daemon.status()["degraded"], 15.0, lambda: str(daemon.status()))


def check_refused(answer: Answer, status: int, slug: str) -> None:
    assert answer.status == status, answer
    assert answer.json["type"] == f"urn:netclaw:problem:{slug}"
    assert answer.json["remedy"]


def test_a_full_disk_refuses_what_it_can_not_store_and_heals(make_daemon: Make) -> None:
    daemon = make_daemon()
    with Volume(daemon, "4m") as volume:
        daemon.start()
        session = new_session(daemon)
        accepted(daemon, session, "hello", "before")
        wait_all_ended(daemon, [session])
        before = events(daemon, session)
        volume.fill()
        check_refused(send(daemon, session, LARGE, "during"), 507, "store-full")
        assert "Free space" in told(daemon, "is full")
        assert events(daemon, session) == before, "reads go on"
        assert daemon.ask("/api/health/ready").status == 200
        # A restart that could write no generation is refused, and says why.
        entry = daemon.reload(force=True)
        assert (entry["outcome"], entry["slug"]) == ("refused", "store-full")
        assert "reload" in entry["remedy"]
        assert daemon.status()["generation"] == 1

        volume.make_room()
        healed(daemon)
        accepted(daemon, session, "hello again", "during")
        assert daemon.reload(force=True)["outcome"] == "applied"
        outcomes = [row["outcome"] for row in daemon.ended_restarts()]
        assert outcomes == ["applied", "refused"], "what could not be recorded was recorded later"
        rows = wait_all_ended(daemon, [session])[session]
        check_history(rows)
        assert [row["text"] for row in of_type(rows, "input.admitted")] == ["hello", "hello again"]
        assert daemon.stop() == 0


def test_clients_at_a_disk_that_fills_up_lose_nothing_that_was_acknowledged(
    make_daemon: Make,
) -> None:
    """In the middle of commits: four clients write until there is no room, and again."""
    daemon = make_daemon()
    with Volume(daemon, "3m") as volume:
        daemon.start()
        sessions = [new_session(daemon) for _ in range(4)]
        acknowledged: dict[str, set[str]] = {session: set() for session in sessions}
        refused: list[Answer] = []

        def post(session: str) -> None:
            for number in range(100):
                answer = send(daemon, session, f"/echo {number} " + "y" * 8000, f"k{number}")
                if answer.status != 202:
                    refused.append(answer)
                    return
                acknowledged[session].add(answer.json["input_id"])

        threads = [threading.Thread(target=post, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused, "the disk was never full"
        for answer in refused:
            check_refused(answer, 507, "store-full")
        volume.remount("size=64m")
        healed(daemon)
        for session, rows in wait_all_ended(daemon, sessions, timeout_s=60.0).items():
            check_history(rows)
            admitted = {row["input_id"] for row in of_type(rows, "input.admitted")}
            assert admitted == acknowledged[session]
        assert daemon.stop() == 0


@pytest.mark.parametrize("moment", ["MarkManifest", "Settle"])
def test_a_disk_that_fills_up_in_a_restart_loses_no_turn(make_daemon: Make, moment: str) -> None:
    """At the manifest's first writing, and at its last; the new image needs room for its number."""
    daemon = make_daemon()
    hold = Fault("hold", "before", moment, until=daemon.home / "go")
    daemon.faults = [hold]
    with Volume(daemon, "4m") as volume:
        daemon.start()
        session = new_session(daemon)
        accepted(daemon, session, "/count 60 0.05")
        wait_event(daemon, session, "turn.started")
        daemon.control("reload", force=True)
        wait_for(lambda: hold.reached, 15.0, f"{moment} to be reached")
        volume.fill()
        hold.release()
        # Which way it ends depends on what closing the store frees; the turn does not.
        wait_for(
            lambda: daemon.running.poll() is not None or "manifest not written" in daemon.errors(),
            30.0,
            "the restart to meet the full disk",
        )
        volume.make_room()
        daemon.faults = []
        wait_for(
            lambda: daemon.running.poll() is not None or ready_again(daemon),
            60.0,
            lambda: f"the restart to end\n{daemon.errors()}",
        )
        if daemon.running.poll() is not None:
            assert daemon.running.returncode in (1, 75), daemon.errors()
            assert "is full" in daemon.errors()
            daemon.start()
        (rows,) = wait_all_ended(daemon, [session], timeout_s=60.0).values()
        check_history(rows)
        assert of_type(rows, "reply.sent")[0]["text"].endswith(" 60")
        assert daemon.stop() == 0


def test_a_restart_whose_configuration_can_not_be_kept_serves_it_and_a_crash_goes_one_further_back(
    make_daemon: Make,
) -> None:
    """last-good.toml is written when all is done; until the next time it is the one before."""
    daemon = make_daemon()
    hold = Fault("hold", "before", "KeepLastGood", nth=2, until=daemon.home / "go")
    daemon.faults = [hold]
    with Volume(daemon, "4m") as volume:
        daemon.start()
        kept, first = volume.root / "last-good.toml", daemon.config_path.read_bytes()
        wait_for(lambda: kept.exists() and kept.read_bytes() == first, 10.0, "the first to be kept")
        daemon.write_config(tables={"sessions": {"workers": 3}})
        second = daemon.config_path.read_bytes()
        wait_for(lambda: hold.reached, 20.0, "the new configuration to serve")
        volume.fill()
        hold.release()
        wait_for(
            lambda: "last-good.toml not written: No space left" in daemon.errors(),
            15.0,
            lambda: f"the full disk to be met\n{daemon.errors()}",
        )
        assert (daemon.generation(), daemon.status()["configuration"]) == (2, "file")
        assert kept.read_bytes() == first, "whole, not half of the new one"
        volume.make_room()
        daemon.kill()
        daemon.write_config(text="[daemon\n")
        daemon.faults = []
        daemon.start()
        assert daemon.status()["configuration"] == "last-good"
        assert daemon.status()["refusal"]["slug"] == "config-syntax"
        assert kept.read_bytes() == first
        daemon.write_config(text=second)
        daemon.wait_ready(above=3)
        wait_for(lambda: kept.read_bytes() == second, 10.0, "the second to be kept")
        assert daemon.stop() == 0


def ready_again(daemon: Daemon) -> bool:
    try:
        return daemon.ask("/api/health/ready").generation > 1
    except OSError:
        return False


def test_a_stop_on_a_full_disk_says_that_it_has_no_manifest_and_loses_no_turn(
    make_daemon: Make,
) -> None:
    daemon = make_daemon(tables={"drain": {"timeout_s": 3.0, "model_timeout_at_stop_s": 0.5}})
    with Volume(daemon, "4m") as volume:
        daemon.start()
        session = new_session(daemon)
        accepted(daemon, session, "/count 60 0.05")
        wait_event(daemon, session, "turn.started")
        volume.fill()
        assert daemon.stop() == 1, "exit 0 promises a manifest"
        assert "manifest not written: [Errno 28] No space left on device" in daemon.errors()
        volume.make_room()
        daemon.start()
        (rows,) = wait_all_ended(daemon, [session], timeout_s=60.0).values()
        check_history(rows)
        assert of_type(rows, "reply.sent")[0]["text"].endswith(" 60")
        assert daemon.stop() == 0


def test_a_start_on_a_full_disk_says_what_to_do_and_starts_once_there_is_room(
    make_daemon: Make,
) -> None:
    daemon = make_daemon()
    with Volume(daemon, "4m") as volume:
        daemon.start()
        session = new_session(daemon)
        assert daemon.stop() == 0
        volume.fill()
        daemon.spawn()
        assert daemon.wait_exit() == 75
        assert "is full" in daemon.errors()
        assert "Free space on that file system" in daemon.errors()
        volume.make_room()
        daemon.start()
        accepted(daemon, session, "hello")
        wait_all_ended(daemon, [session])
        assert daemon.stop() == 0


def test_the_first_start_on_a_full_disk_names_the_file_that_it_can_not_write(
    make_daemon: Make,
) -> None:
    daemon = make_daemon()
    with Volume(daemon, "1m") as volume:
        volume.fill()
        daemon.write_config()
        daemon.spawn()
        assert daemon.wait_exit() in (1, 75)
        assert "Make room" in daemon.errors() or "Free space" in daemon.errors()
        assert "Traceback" not in daemon.errors()
        volume.make_room()
        daemon.start()
        assert daemon.stop() == 0


def test_a_state_folder_that_turns_read_only_is_served_from_and_heals(make_daemon: Make) -> None:
    """Met at a start: a file system with files open for writing doesn't turn read-only."""
    daemon = make_daemon()
    with Volume(daemon, "4m") as volume:
        daemon.start()
        session = new_session(daemon)
        assert daemon.stop() == 0
        volume.remount("ro")
        daemon.spawn()
        assert daemon.wait_exit() == 1
        assert "Traceback" not in daemon.errors()
        assert "read-only" in daemon.errors().lower()
        volume.remount("rw")
        daemon.start()
        accepted(daemon, session, "hello")
        wait_all_ended(daemon, [session])
        assert daemon.stop() == 0
