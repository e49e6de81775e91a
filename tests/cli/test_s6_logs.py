"""``netclaw logs`` where s6-log keeps the log: its end and what is added, over real rotations."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from netclawd.cli import log_reader
from netclawd.cli.demo_story import free_ports
from netclawd.cli.log_reader import S6LogReader
from tests.cli.conftest import CommandLine
from tests.process.scan import Scan, needs_s6
from tests.waiting import scaled, wait_for

#: As small as s6-log allows, so that it rotates often; nothing is thrown away.
ROTATES = ("n200", "s4096")


class Writer:
    """A real s6-log, and what is written to it."""

    def __init__(self, folder: Path, *directives: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            ["s6-log", "-b", "--", *directives, str(folder)], stdin=subprocess.PIPE
        )

    def write(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def wait_for(self, line: str) -> None:
        """Wait until the newest file has a line."""
        wait_for(
            lambda: line in (self.folder / "current").read_text(), 10.0, f"{line!r} in the log"
        )

    def rotated(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if name.startswith("@"))

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(scaled(10.0))


@pytest.fixture
def folder(home: Path) -> Path:
    found = home / "state" / "logs" / "s6"
    found.parent.mkdir(parents=True)
    return found


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    writer = Writer(folder, *ROTATES)
    wait_for((folder / "current").exists, 10.0, "s6-log to begin")
    yield writer
    writer.end()


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number:05} {'x' * 60}" for number in range(first, last)]


@needs_s6
def test_the_last_lines_come_from_rotated_files_too(
    run: CommandLine, folder: Path, writer: Writer
) -> None:
    lines = numbered(0, 300)
    writer.write(*lines)
    writer.end()
    assert len(writer.rotated()) > 1
    assert run("logs", "-n", "300").stdout.splitlines() == lines
    assert run("logs", "-n", "7").stdout.splitlines() == lines[-7:]
    assert run.json("logs", "-n", "1") == {"path": str(folder / "current"), "lines": lines[-1:]}


@needs_s6
def test_what_an_interrupted_s6_log_left_is_part_of_it(
    run: CommandLine, folder: Path, writer: Writer
) -> None:
    writer.write("before")
    writer.wait_for("before")
    writer.process.kill()
    writer.end()
    again = Writer(folder, *ROTATES)
    again.write("after")
    again.wait_for("after")
    again.end()
    assert [name[-2:] for name in again.rotated()] == [".u"]
    assert run("logs").stdout == "before\nafter\n"


@needs_s6
def test_following_gives_every_line_once_over_rotations(folder: Path, writer: Writer) -> None:
    lines = numbered(0, 4000)
    thread = threading.Thread(target=lambda: writer.write(*lines))
    with S6LogReader(str(folder / "current")) as reader:
        found = reader.last(1 << 40)
        thread.start()

        def is_complete() -> bool:
            found.extend(reader.more())
            return len(found) >= len(lines)

        wait_for(is_complete, 30.0, lambda: f"all lines; {len(found)} have come")
        thread.join()
        assert len(writer.rotated()) > 20
        assert [line.decode() for line in found + reader.more()] == lines


@pytest.mark.parametrize("opened", ["current", "previous"])
def test_a_rotation_during_a_look_neither_hides_a_line_nor_repeats_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    """Each file moves on to its next name just when it, or the one before it, was looked at."""
    folder.mkdir()
    (folder / "current").write_text("first\n")
    with S6LogReader(str(folder / "current")) as reader:
        assert reader.last(10) == [b"first"]
        (folder / "current").rename(folder / "@1.s")
        (folder / "previous").write_text("second\n")
        (folder / "current").write_text("third\n")
        really_open = log_reader.open_log

        def open_and_rotate(path: str) -> BinaryIO | None:
            file = really_open(path)
            if os.path.basename(path) == opened and not (folder / "@2.s").exists():
                (folder / "previous").rename(folder / "@2.s")
                (folder / "current").rename(folder / "previous")
                (folder / "current").write_text("fourth\n")
            return file

        monkeypatch.setattr(log_reader, "open_log", open_and_rotate)
        found = [line for _ in range(6) for line in reader.more()]
        assert found == [b"second", b"third", b"fourth"]


@needs_s6
def test_a_session_s_lines_are_picked(run: CommandLine, writer: Writer) -> None:
    writer.write(
        "2026-11-28 15:00:00,000 INFO x: a turn begins session=s_1 turn=t_1",
        "2026-11-28 15:00:00,001 INFO x: nothing of it",
        "2026-11-28 15:00:00,002 ERROR x: it failed session=s_1",
        "  Traceback",
        "2026-11-28 15:00:00,003 INFO x: another session=s_12",
    )
    writer.wait_for("s_12")
    shown = run("logs", "--session", "s_1").stdout.splitlines()
    assert [line.split(": ")[-1] for line in shown] == [
        "a turn begins session=s_1 turn=t_1",
        "it failed session=s_1",
        "  Traceback",
    ]


@needs_s6
def test_while_nothing_runs_the_newer_log_counts_outside_of_a_container(
    run: CommandLine, home: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("under s6")
    writer.wait_for("under s6")
    alone = home / "state" / "logs" / "netclawd.log"
    alone.write_text("in the background\n")
    later = (writer.folder / "current").stat().st_mtime + 10
    os.utime(alone, (later, later))
    assert run("logs").stdout == "in the background\n"
    monkeypatch.setenv("NETCLAW_CONTAINER_SUPERVISOR", "s6")
    assert run("logs").stdout == "under s6\n"
    monkeypatch.delenv("NETCLAW_CONTAINER_SUPERVISOR")
    os.utime(alone, (0, 0))
    assert run("logs").stdout == "under s6\n"


def test_in_a_container_without_such_files_its_own_log_is_named(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETCLAW_CONTAINER_SUPERVISOR", "s6")
    result = run("logs")
    assert (result.exit_code, "the container's log" in result.stderr) == (1, True)


@needs_s6
@pytest.mark.parametrize("marked", [True, False])
def test_the_log_of_a_daemon_under_s6_is_followed(
    home: Path, run: CommandLine, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """In a container, and under a plain s6 of which no marker tells."""
    (home / "netclaw.toml").write_text(f'[daemon]\nlisten = ["127.0.0.1:{free_ports(1)[0]}"]\n')
    if marked:
        monkeypatch.setenv("NETCLAW_CONTAINER_SUPERVISOR", "s6")
    with Scan(home) as scan:
        scan.start()
        scan.wait_serving()
        shown = run("logs")
        assert "phase ready, generation 1" in shown.stdout
        assert shown.stderr == ""
        program = [sys.executable, "-P", "-c", "from netclawd.cli.client import main; main()"]
        following = subprocess.Popen(
            [*program, "logs", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True
        )
        assert following.stdout is not None
        try:
            assert "ready" in following.stdout.readline()
            run("reload", "--force", "--wait")
            assert any("generation 2" in line for line in following.stdout)
        finally:
            following.terminate()
            following.wait()
            following.stdout.close()
