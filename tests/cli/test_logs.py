"""``netclaw logs``: the end over rotations, what is added, crash logs, and where else the log goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.adapters.control import ControlServer
from netclawd.adapters.log import KEPT, rotate
from netclawd.cli.log_reader import LogReader, SessionLines
from netclawd.cli.logs import where_it_goes
from netclawd.daemon.crash import write_crash_log
from tests.cli.conftest import CommandLine
from tests.service_double import ServiceDouble
from tests.waiting import scaled


@pytest.fixture
def log(home: Path) -> Path:
    path = home / "state" / "logs" / "netclawd.log"
    path.parent.mkdir(parents=True)
    return path


def add(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def turn_over(log: Path, text: str) -> None:
    """Rotate, and begin the new file."""
    rotate(str(log))
    add(log, text)


# -- the end -------------------------------------------------------------------------------------


def test_the_last_lines_are_shown(run: CommandLine, log: Path) -> None:
    add(log, "".join(f"line {n}\n" for n in range(100)))
    assert run("logs").stdout.splitlines() == [f"line {n}" for n in range(50, 100)]
    assert run("logs", "-n", "2").stdout == "line 98\nline 99\n"
    assert run("logs", "-n", "0").stdout == ""
    found = run.json("logs", "-n", "1")
    assert found == {"path": str(log), "lines": ["line 99"]}


def test_lines_come_from_rotated_files_too(run: CommandLine, log: Path) -> None:
    add(log, "a\nb\n")
    turn_over(log, "c\n")
    turn_over(log, "d\ne")
    for count in range(1, 8):
        assert run("logs", "-n", str(count)).stdout.splitlines() == list("abcde")[-count:]


def test_a_long_log_is_read_from_its_end(log: Path) -> None:
    with log.open("w") as file:
        file.writelines(f"{n} {'x' * 100}\n" for n in range(20_000))
    with LogReader(str(log)) as reader:
        assert [int(line.split()[0]) for line in reader.last(3_000)] == [*range(17_000, 20_000)]


def test_control_characters_are_escaped(run: CommandLine, log: Path) -> None:
    log.write_bytes(b"\x1b[2Jgone\r\xff\tb\n")
    assert run("logs").stdout == "\\x1b[2Jgone\\r\ufffd\tb\n"


def test_what_is_no_file_is_refused(run: CommandLine, log: Path) -> None:
    os.mkfifo(log)
    result = run("logs")
    assert (result.exit_code, "is not a file" in result.stderr) == (1, True)


# -- one session ---------------------------------------------------------------------------------

ABOUT = [
    "t INFO netclawd: a session=s_1 turn=t_1",
    "t INFO netclawd: b session=s_2 turn=t_2",
    "t ERROR netclawd: c session=s_1",
    "  Traceback",
    "  ValueError: session=s_2",
    "t INFO netclawd: d",
    "  e",
    "t INFO netclawd: f session=s_10",
    "t INFO netclawd: session=s_1 forged: g",
]


def test_one_session_is_shown_with_its_tracebacks(run: CommandLine, log: Path) -> None:
    add(log, "\n".join(ABOUT[:2]) + "\n")
    turn_over(log, "\n".join(ABOUT[2:]) + "\n")
    wanted = [ABOUT[0], *ABOUT[2:5]]
    assert run("logs", "--session", "s_1").stdout.splitlines() == wanted
    assert run("logs", "--session", "s_1", "-n", "2").stdout.splitlines() == wanted[-2:]
    assert run.json("logs", "--session", "s_2")["lines"] == [ABOUT[1]]


def test_a_session_that_no_line_names_is_said_to_be_unknown(run: CommandLine, log: Path) -> None:
    add(log, "t INFO netclawd: a session=s_1\n")
    result = run("logs", "--session", "s_.")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing in the log is about the session s_." in result.stderr


def test_one_session_is_followed(log: Path) -> None:
    wanted = SessionLines("s_1")
    assert wanted([b"x session=s_1"]) == [b"x session=s_1"]
    assert wanted([b"  its traceback", b"y session=s_2", b"  not its"]) == [b"  its traceback"]


# -- following -----------------------------------------------------------------------------------


def texts(lines: list[bytes]) -> list[str]:
    return [line.decode() for line in lines]


def looks(reader: LogReader, count: int = 2) -> list[str]:
    return [text for _ in range(count) for text in texts(reader.more())]


@pytest.fixture
def reader(log: Path) -> Iterator[LogReader]:
    add(log, "a\nb\n")
    with LogReader(str(log)) as reader:
        assert texts(reader.last(1)) == ["b"]
        yield reader


def test_a_line_is_given_once_it_is_whole(reader: LogReader, log: Path) -> None:
    add(log, "c\nhal")
    assert looks(reader) == ["c"]
    add(log, "f\n")
    assert looks(reader) == ["half"]
    assert looks(reader) == []


@pytest.mark.parametrize("rotations", range(1, KEPT + 1))
def test_no_line_is_lost_or_repeated_over_rotations(
    reader: LogReader, log: Path, rotations: int
) -> None:
    add(log, "c\n")
    for n in range(rotations):
        turn_over(log, f"{n}\n")
    assert looks(reader) == ["c", *(str(n) for n in range(rotations))]
    add(log, "d\n")
    assert looks(reader) == ["d"]


def test_what_is_written_to_the_old_file_just_after_its_rotation_comes_first(
    reader: LogReader, log: Path
) -> None:
    with log.open("a") as old:
        turn_over(log, "new\n")
        assert looks(reader, 1) == []
        old.write("late\n")
    assert looks(reader, 1) == ["late", "new"]


def test_the_moment_without_a_file_is_waited_out(reader: LogReader, log: Path) -> None:
    rotate(str(log))
    assert looks(reader) == []
    add(log, "c\n")
    assert looks(reader) == ["c"]


def test_a_log_that_is_truncated_is_read_from_its_beginning(reader: LogReader, log: Path) -> None:
    os.truncate(log, 0)
    add(log, "c\n")
    assert looks(reader) == ["c"]


def test_a_log_that_is_removed_gives_no_older_lines_again(reader: LogReader, log: Path) -> None:
    older = log.with_name(f"{log.name}.1")
    older.write_text("long ago\n")
    os.utime(older, (1, 1))
    log.unlink()
    add(log, "c\n")
    assert looks(reader) == ["c"]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_follows_until_it_is_interrupted(log: Path, as_json: bool) -> None:
    add(log, "a\nb\n")
    more = ["--json"] if as_json else []
    with subprocess.Popen(
        [Path(sys.executable).with_name("netclaw"), "logs", "-f", "-n", "1", *more],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        killer = threading.Timer(scaled(60), process.kill)
        killer.start()
        assert process.stdout is not None
        seen = [process.stdout.readline()]
        add(log, "c\n")
        seen.append(process.stdout.readline())
        turn_over(log, "d\x1b\n")
        seen.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(30)) == 0
        killer.cancel()
    lines = [json.loads(line)["line"] if as_json else line[:-1] for line in seen]
    assert lines == ["b", "c", "d\\x1b"]


# -- elsewhere -----------------------------------------------------------------------------------


def test_without_a_log_it_is_said_where_one_would_be(run: CommandLine, home: Path) -> None:
    for arguments in (["logs"], ["logs", "-f"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert f"There is no log {home}/state/logs/netclawd.log." in result.stderr
        assert "netclaw daemon start" in result.stderr
        assert "journalctl" in result.stderr
    assert run.json("logs")["error"]["slug"] == "not-found"


@pytest.mark.usefixtures("server")
def test_a_daemon_that_writes_elsewhere_is_said_to(
    run: CommandLine, service: ServiceDouble, home: Path, server: ControlServer
) -> None:
    target = home / "its.log"
    with target.open("w") as file:
        sleeper = subprocess.Popen(["sleep", "100"], stderr=file)
    try:
        service.status_values["pid"] = sleeper.pid
        result = run("logs")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"(pid {sleeper.pid}) writes its log to {target}." in result.stderr
        log = home / "state" / "logs" / "netclawd.log"
        log.parent.mkdir(parents=True)
        log.write_text("old\n")
        result = run("logs")
        assert (result.exit_code, result.stdout) == (0, "old\n")
        assert "an older daemon's" in result.stderr
        assert where_it_goes(sleeper.pid, str(target)) is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize(
    ("stderr", "words"),
    [(subprocess.PIPE, "to a pipe."), (subprocess.DEVNULL, "nowhere (/dev/null).")],
)
def test_pipes_and_devices_are_named(stderr: int, words: str) -> None:
    with subprocess.Popen(["sleep", "100"], stderr=stderr) as sleeper:
        said = where_it_goes(sleeper.pid, "/nowhere")
        sleeper.kill()
    assert said is not None
    assert words in said[0]


# -- crashes -------------------------------------------------------------------------------------


def test_crash_logs_are_listed_and_shown(run: CommandLine, log: Path) -> None:
    assert "no crash log" in run("logs", "--crashes").stdout
    paths = [
        Path(write_crash_log(str(log.parent), ValueError(f"number {n} \x1b"), n, "ready"))
        for n in (1, 2)
    ]
    for n, path in enumerate(paths):
        os.utime(path, (1_000 + n, 1_000 + n))
    result = run("logs", "--crashes").stdout.splitlines()
    assert result[0].split() == ["CRASH", "WHEN", "GENERATION", "PHASE", "REASON"]
    assert [line.split()[0] for line in result[1:3]] == [paths[1].name, paths[0].name]
    assert f"{paths[1]}:" in result
    assert "reason: ValueError: number 2 \\x1b" in result
    found = run.json("logs", "--crashes")
    assert [(each["generation"], each["phase"]) for each in found] == [
        ("2", "ready"),
        ("1", "ready"),
    ]
    assert "number 1" in run("logs", "--crash", paths[0].name).stdout
    assert run.json("logs", "--crash", paths[0].name)["path"] == str(paths[0])
    for name in ("../netclawd.db", "crash-9.log"):
        missing = run("logs", "--crash", name)
        assert (missing.exit_code, "--crashes" in missing.stderr) == (1, True)


def test_only_one_thing_is_shown_at_a_time(run: CommandLine) -> None:
    assert run("logs", "-f", "--crashes").exit_code == 2
    assert run("logs", "--session", "s_1", "--crashes").exit_code == 2
