"""``netclaw logs`` on the journal: whose it is, what is asked for, how a record is shown.

A real journal is read in tests/systemd.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from netclawd.cli import logs
from netclawd.cli.journal_log import LogUnit, json_of, line_of, open_journal, read_cgroup
from netclawd.errors import ControlError, NetclawError, NotFoundError
from tests.waiting import wait_for

SYSTEM, USER = LogUnit("netclawd.service"), LogUnit("netclawd.service", 1000)
APP = "/user.slice/user-1000.slice/user@1000.service/app.slice"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/netclawd.service\n", SYSTEM),
        ("0::/system.slice/system-claw.slice/claw@a.service\n", LogUnit("claw@a.service")),
        (f"0::{APP}/netclawd.service\n", USER),
        ("5:cpu:/x\n1:name=systemd:/system.slice/netclawd.service\n0::/\n", SYSTEM),
        (f"0::{APP}/app-terminal.scope\n", None),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/\n", None),
        ("5:cpu:/system.slice/netclawd.service\n", None),
        ("", None),
    ],
)
def test_the_unit_is_the_last_part_of_the_cgroup(text: str, unit: LogUnit | None) -> None:
    assert read_cgroup(text) == unit


def test_what_the_unit_wrote_and_what_systemd_says_of_it_is_asked_for() -> None:
    assert SYSTEM.matches(None) == [
        {"_SYSTEMD_UNIT": "netclawd.service"},
        {"_PID": "1", "UNIT": "netclawd.service"},
    ]
    assert USER.matches(None) == [
        {"_SYSTEMD_USER_UNIT": "netclawd.service", "_UID": "1000"},
        {"USER_UNIT": "netclawd.service", "_UID": "1000"},
    ]


def test_a_session_is_looked_for_in_what_the_daemon_wrote_alone() -> None:
    assert SYSTEM.matches("s_1") == [{"_SYSTEMD_UNIT": "netclawd.service", "SESSION_ID": "s_1"}]
    assert USER.matches("s_1") == [
        {"_SYSTEMD_USER_UNIT": "netclawd.service", "_UID": "1000", "SESSION_ID": "s_1"}
    ]


RECORD = {
    "__REALTIME_TIMESTAMP": 1_700_000_001.0,
    "__CURSOR": "s=1",
    "_SOURCE_REALTIME_TIMESTAMP": "1700000000123456",
    "PRIORITY": "4",
    "LOGGER": "netclawd.turns",
    "SYSLOG_IDENTIFIER": "netclawd",
    "MESSAGE": "turn parked: request",
    "SESSION_ID": "s_1",
    "TURN_ID": "t_2",
}
CLOCK = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_700_000_000))


def test_a_record_is_shown_as_a_line_of_a_file() -> None:
    assert line_of(RECORD) == (
        f"{CLOCK},123 WARNING netclawd.turns: turn parked: request session=s_1 turn=t_2"
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"LOGGER": None}, "WARNING netclawd: a"),
        ({"LOGGER": None, "SYSLOG_IDENTIFIER": None}, "WARNING ?: a"),
        ({"PRIORITY": "x"}, "INFO netclawd.turns: a"),
        ({"PRIORITY": None}, "INFO netclawd.turns: a"),
        ({"MESSAGE": None}, "WARNING netclawd.turns: "),
        ({"MESSAGE": b"\xff\x1b[2J"}, "WARNING netclawd.turns: \ufffd\\x1b[2J"),
        ({"MESSAGE": ["a", "b"]}, "WARNING netclawd.turns: a"),
        ({"MESSAGE": "a\n  b\nERROR c"}, "WARNING netclawd.turns: a\n  b\n  ERROR c"),
    ],
)
def test_what_others_wrote_is_shown_as_far_as_it_goes(more: dict[str, Any], line: str) -> None:
    bare = {k: v for k, v in RECORD.items() if k not in ("SESSION_ID", "TURN_ID")}
    assert line_of({**bare, "MESSAGE": "a", **more}) == f"{CLOCK},123 {line}"


def test_the_ids_stand_before_the_traceback() -> None:
    first, second = line_of({**RECORD, "MESSAGE": "a\n  ValueError: x"}).splitlines()
    assert first.endswith(" a session=s_1 turn=t_2")
    assert second == "  ValueError: x"


def test_a_program_gets_every_field_as_text() -> None:
    found = json_of({**RECORD, "RAW": b"\xff", "TWICE": ["a", b"b"]})
    assert found["at"] == 1_700_000_000.123456
    assert (found["SESSION_ID"], found["RAW"], found["TWICE"]) == ("s_1", "\ufffd", ["a", "b"])
    assert not [name for name in found if name.startswith("__")]


def test_without_the_library_it_is_said_how_else_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemd.journal", None)
    monkeypatch.delitem(sys.modules, "netclawd.adapters.journal", raising=False)
    with pytest.raises(ControlError) as caught, open_journal(USER, "s_1"):
        pass
    assert "python3-systemd" in caught.value.remedy
    assert "`journalctl --user -u netclawd.service SESSION_ID=s_1`" in caught.value.remedy


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the journal's files would be, a folder that isn't there yet; nothing in it may be read."""
    module = pytest.importorskip("netclawd.adapters.journal")
    (tmp_path / "machine-id").write_text("abc\n")
    monkeypatch.setattr(module, "MACHINE_ID", str(tmp_path / "machine-id"))
    monkeypatch.setattr(module, "FOLDERS", (str(tmp_path / "var"), str(tmp_path / "run")))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path).endswith("user-1000.journal"))
    return tmp_path / "var" / "abc"


def refusal(unit: LogUnit) -> NetclawError:
    with pytest.raises(NetclawError) as caught, open_journal(unit, None):
        pass
    return caught.value


@pytest.mark.usefixtures("journal")
def test_no_journal_is_said_to_be_none() -> None:
    error = refusal(SYSTEM)
    assert isinstance(error, NotFoundError)
    assert "There is no journal on this machine." in error.what


def test_who_may_not_read_the_system_s_is_told_which_groups_may(journal: Path) -> None:
    journal.mkdir(parents=True)
    for name in ("system.journal", "user-1000.journal"):
        (journal / name).touch()
    error = refusal(SYSTEM)
    assert "netclawd.service is in the journal. This user may not read" in error.what
    assert all(word in error.remedy for word in ("sudo", "systemd-journal", "adm"))
    with open_journal(USER, None):  # it is in the file that this user may read
        pass


def test_a_folder_that_may_not_be_listed_is_one_that_may_not_be_read(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.mkdir(parents=True)
    (journal / "user-1000.journal").touch()

    def refuse(path: str) -> list[str]:
        raise PermissionError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert "may not read the journal" in refusal(USER).what


@pytest.mark.parametrize("named", [True, False])
def test_only_the_stream_that_its_supervisor_connected_is_the_journal(
    monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """A unit may redirect standard error, and pass the variable on all the same."""
    monkeypatch.setattr(logs, "unit_of", lambda pid: SYSTEM)
    ours, theirs = socket.socketpair()
    found = os.fstat(theirs.fileno())
    inode = found.st_ino if named else found.st_ino + 1
    environ = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"}
    with ours, theirs:
        sleeper = subprocess.Popen(["sleep", "100"], stderr=theirs.fileno(), env=environ)
        try:
            environ_of = Path(f"/proc/{sleeper.pid}/environ")
            wait_for(environ_of.read_bytes, 5.0, "the program to have begun")
            assert logs.journal_unit(sleeper.pid) == (SYSTEM if named else None)
        finally:
            sleeper.kill()
            sleeper.wait()


def test_a_daemon_whose_standard_error_is_no_socket_logs_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "unit_of", lambda pid: SYSTEM)
    assert logs.journal_unit(os.getpid()) is None
