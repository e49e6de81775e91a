"""Crash logs: all that is needed to understand one, private, and not without end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from netclawd.daemon.crash import KEPT, write_crash_log


def crash(message: str = "unexpected") -> BaseException:
    try:
        raise ValueError(message) from OSError("the cause")
    except ValueError as error:
        return error


def test_it_names_reason_generation_phase_and_process(tmp_path: Path) -> None:
    path = Path(write_crash_log(str(tmp_path), crash(), 7, "draining"))
    text = path.read_text()
    assert text.startswith(
        f"reason: ValueError: unexpected\ngeneration: 7\nphase: draining\npid: {os.getpid()}\n"
    )
    assert "OSError: the cause" in text
    assert "in crash" in text, "the traceback of the reason"
    assert path.name.startswith("crash-")
    assert path.name.endswith(f"Z-{os.getpid()}.log")


def test_it_shows_where_every_thread_is(tmp_path: Path) -> None:
    release = threading.Event()
    ready = threading.Event()

    def waits_in_a_place_of_its_own() -> None:
        ready.set()
        release.wait()

    thread = threading.Thread(target=waits_in_a_place_of_its_own, name="turn-3")
    thread.start()
    try:
        ready.wait()
        text = Path(write_crash_log(str(tmp_path), crash(), 1, "ready")).read_text()
    finally:
        release.set()
        thread.join()
    _, _, threads = text.partition("\nthreads:\n")
    assert "\nturn-3\n" in threads
    assert "waits_in_a_place_of_its_own" in threads
    assert "\nMainThread\n" in threads


def test_it_is_for_this_user_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = Path(write_crash_log(str(tmp_path / "logs"), crash(), 1, "ready"))
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_crashes_of_one_second_leave_two_logs(tmp_path: Path) -> None:
    """A thread's and then the daemon's: the first is the one to look at."""
    paths = [write_crash_log(str(tmp_path), crash(f"number {n}"), 1, "ready") for n in range(3)]
    assert len(set(paths)) == 3
    assert [f"number {n}" in Path(path).read_text() for n, path in enumerate(paths)] == [True] * 3


def test_a_reason_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    path = write_crash_log(str(tmp_path), crash("\udcff"), 1, "ready")
    assert "\\udcff" in Path(path).read_text()


def test_old_ones_are_forgotten_and_nothing_else_is(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        (tmp_path / f"crash-20200101T0000{number:02}Z-1.log").touch()
    (tmp_path / "netclawd.log").touch()
    path = Path(write_crash_log(str(tmp_path), crash(), 1, "ready"))
    left = sorted(p.name for p in tmp_path.iterdir())
    assert len(left) == KEPT + 1
    assert path.name in left
    assert "netclawd.log" in left
    assert "crash-20200101T000024Z-1.log" in left, "the newest of the old"


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    """Which the caller says in the log instead."""
    (tmp_path / "logs").touch()
    with pytest.raises(OSError, match="logs"):
        write_crash_log(str(tmp_path / "logs"), crash(), 1, "ready")
