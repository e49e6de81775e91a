"""Whether a process belongs to a command of an agent, seen from a daemon (here: the test)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from netclawd.adapters.tools.marked import CALL, is_of_a_command
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("own_session", "marked", "expected"),
    [(False, False, False), (False, True, True), (True, False, True), (True, True, True)],
)
def test_a_child_is_one_by_its_session_or_its_mark(
    own_session: bool, marked: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CALL, raising=False)
    environ = {**os.environ, **({CALL: "t_1-1-1"} if marked else {})}
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, env=environ, start_new_session=own_session
    ) as child:
        comm = Path(f"/proc/{child.pid}/comm")
        wait_for(lambda: comm.read_text() == "cat\n", 10, "the program to run")
        assert is_of_a_command(child.pid) is expected
        child.communicate()
    assert is_of_a_command(child.pid), "who has ended may have left its connection to anybody"


def test_neither_the_daemon_nor_who_started_it_nor_another_namespace_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CALL, raising=False)
    assert not is_of_a_command(os.getpid())
    assert not is_of_a_command(os.getppid())
    assert not is_of_a_command(1)
    assert not is_of_a_command(0)
