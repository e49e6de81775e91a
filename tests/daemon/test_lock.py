"""One daemon for each home: the lock is the kernel's, the PID file is for people."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netclawd.daemon.descriptors import Inheritance, Named
from netclawd.daemon.lock import hold_lock
from netclawd.errors import EXIT_FAILURE, AlreadyRunningError, NetclawError

NOBODY = Inheritance([])


@contextmanager
def held(folder: Path, inherited: Inheritance = NOBODY) -> Iterator[int]:
    fd = hold_lock(str(folder), inherited)
    try:
        yield fd
    finally:
        os.close(fd)


def is_free(folder: Path) -> bool:
    try:
        with held(folder):
            return True
    except AlreadyRunningError:
        return False


def test_a_second_holder_is_refused_and_told_who_it_is(tmp_path: Path) -> None:
    with held(tmp_path):
        (tmp_path / "netclawd.pid").write_text("4711 7\n")
        with pytest.raises(AlreadyRunningError) as caught, held(tmp_path):
            pass
    error = caught.value
    assert error.what == (
        f"Another netclawd (PID 4711, generation 7) holds {tmp_path}/netclawd.lock."
    )
    assert "netclaw status" in error.remedy
    assert error.exit_code == EXIT_FAILURE


@pytest.mark.parametrize("content", [None, b"", b"4711", b"4711 7 8", b"\xff\xff \xff"])
def test_a_pid_file_that_says_nothing_is_no_matter(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "netclawd.pid").write_bytes(content)
    with held(tmp_path), pytest.raises(AlreadyRunningError, match="Another netclawd holds"):
        hold_lock(str(tmp_path), NOBODY)


def test_a_stale_pid_file_and_a_stale_lock_file_do_no_harm(tmp_path: Path) -> None:
    """Even when the PID is somebody else's now: a kill leaves both files."""
    (tmp_path / "netclawd.pid").write_text(f"{os.getppid()} 3\n")
    (tmp_path / "netclawd.lock").touch()
    assert is_free(tmp_path)


def test_it_is_free_again_when_the_holder_has_ended(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(done[1])
            hold_lock(str(tmp_path), NOBODY)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        finally:
            os._exit(0)
    os.close(ready[1])
    assert os.read(ready[0], 1) == b"x"
    assert not is_free(tmp_path)
    os.close(done[1])
    os.waitpid(child, 0)
    assert is_free(tmp_path)
    os.close(ready[0])
    os.close(done[0])


def test_it_is_held_through_a_copy_of_the_descriptor(tmp_path: Path) -> None:
    """A handoff moves it to another number and closes the first."""
    fd = hold_lock(str(tmp_path), NOBODY)
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    assert not is_free(tmp_path)
    os.close(copy)
    assert is_free(tmp_path)


def test_it_is_held_by_a_process_that_inherited_it(tmp_path: Path) -> None:
    fd = hold_lock(str(tmp_path), NOBODY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(fd)
    assert not is_free(tmp_path)
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)
    assert is_free(tmp_path)


def test_an_inherited_lock_is_claimed_and_not_taken_anew(tmp_path: Path) -> None:
    """Taking it anew would fail: the old descriptor holds it."""
    fd = hold_lock(str(tmp_path), NOBODY)
    inherited = Inheritance([Named("lock", fd)])
    with held(tmp_path, inherited) as claimed:
        assert claimed == fd
        assert inherited.names() == ()
        assert not is_free(tmp_path)


def test_tool_children_do_not_keep_it(tmp_path: Path) -> None:
    with held(tmp_path) as fd:
        assert not os.get_inheritable(fd)


@pytest.mark.parametrize("obstacle", ["no folder", "a folder in its place"])
def test_a_lock_that_cannot_be_made_is_an_error_with_a_remedy(
    tmp_path: Path, obstacle: str
) -> None:
    folder = tmp_path / "run"
    if obstacle == "a folder in its place":
        (folder / "netclawd.lock").mkdir(parents=True)
    with pytest.raises(NetclawError, match=r"netclawd\.lock can't be taken") as caught:
        hold_lock(str(folder), NOBODY)
    assert "NETCLAW_HOME" in caught.value.remedy
