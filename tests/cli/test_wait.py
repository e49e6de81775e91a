"""``netclawd-wait`` as s6 runs it: a process in a service folder, with signals, records and a changing file.

Nothing waits for long: a record may say that the daemon ended a while ago.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netclawd.cli import wait
from netclawd.core import budgets
from netclawd.core.backoff import (
    Exit,
    Start,
    read_start,
    read_uptime,
    read_waiting,
    write_start,
)
from tests.waiting import scaled, wait_for

WAIT = [sys.executable, "-P", "-m", "netclawd.cli.wait"]
#: Long enough that no test sees its end.
LONG_S = budgets.RETRY_LONGEST_S


def uptime() -> float:
    return read_uptime(Path("/proc/uptime").read_text())


class Folder:
    """A service folder, and the home whose configuration is looked at."""

    def __init__(self, place: Path) -> None:
        self.place = place / "service"
        self.home = place / "home"
        self.place.mkdir()
        self.home.mkdir()
        self.config = self.home / "netclaw.toml"
        self.process: subprocess.Popen[bytes] | None = None

    def ended(self, ago_s: float, *, code: int = 78, number: int = 0) -> None:
        """Write what `finish` writes."""
        text = f"{code} {number}\n{uptime() - ago_s:.2f} 1.00\n"
        (self.place / wait.LAST_EXIT).write_text(text)

    def started(self, ago_s: float, delay_s: float) -> None:
        """Write what the last start has written."""
        seen = wait._look(str(self.config))
        (self.place / wait.LAST_START).write_text(
            write_start(Start(uptime() - ago_s, delay_s, seen))
        )

    def loop(self, left_s: float = LONG_S) -> None:
        """Be in the middle of a crash loop, with so much left of the longest pause."""
        ago_s = LONG_S - left_s
        self.started(ago_s + 1.0, LONG_S)
        self.ended(ago_s)

    def spawn(self, *command: str, options: tuple[str, ...] = ()) -> None:
        with (self.place / "out").open("wb") as out, (self.place / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [*WAIT, *options, *(command or ("/bin/echo", "started"))],
                cwd=self.place,
                env={**os.environ, "NETCLAW_HOME": str(self.home)},
                stdout=out,
                stderr=err,
            )

    def waiting(self) -> subprocess.Popen[bytes]:
        """Spawn it, and return once it says that it waits."""
        self.spawn()
        assert self.process is not None
        wait_for(lambda: "starts again in" in self.err, 10.0, lambda: f"a wait: {self.err}")
        return self.process

    def end(self, timeout_s: float = 10.0) -> int:
        assert self.process is not None
        return self.process.wait(scaled(timeout_s))

    def run(self, *command: str, options: tuple[str, ...] = ()) -> int:
        self.spawn(*command, options=options)
        return self.end()

    @property
    def out(self) -> str:
        return (self.place / "out").read_text()

    @property
    def err(self) -> str:
        return (self.place / "err").read_text()

    @property
    def record(self) -> Start:
        record = read_start((self.place / wait.LAST_START).read_text())
        assert record is not None
        return record

    def has(self, name: str) -> bool:
        return (self.place / name).exists()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    folder.config.write_text("[daemon]\n")
    yield folder
    if folder.process is not None and folder.process.poll() is None:
        folder.process.kill()
        folder.process.wait()


# -- whether it waits ------------------------------------------------------------------------------


def test_the_first_start_is_at_once_and_is_recorded(folder: Folder) -> None:
    before = uptime()
    assert folder.run() == 0
    assert (folder.out, folder.err) == ("started\n", "")
    assert before - 0.01 <= folder.record.at <= uptime()
    assert folder.record.delay_s == 0.0


def test_what_is_left_of_the_pause_is_waited_for(folder: Folder) -> None:
    folder.loop(left_s=2.0)
    until = uptime() + 2.0
    assert folder.run() == 0
    assert folder.record.at >= until - 0.1
    assert folder.record.delay_s == LONG_S
    assert not folder.has(wait.LAST_EXIT)
    assert re.fullmatch(
        r"netclawd-wait: the daemon exited with 78 \(the configuration is wrong\):"
        rf" it starts again in [012]\.\d s, or as soon as {folder.config} changes\.\n",
        folder.err,
    )


def test_a_pause_that_is_over_is_not_spoken_of(folder: Folder) -> None:
    folder.loop(left_s=0.0)
    assert folder.run() == 0
    assert (folder.out, folder.err) == ("started\n", "")
    assert folder.record.delay_s == LONG_S


def test_a_change_since_the_last_start_makes_the_pause_short(folder: Folder) -> None:
    folder.started(3.0, LONG_S)
    folder.ended(1.5)
    folder.config.write_text("[daemon]\n# mended\n")
    assert folder.run() == 0
    assert folder.record.delay_s == budgets.RETRY_FIRST_S


@pytest.mark.parametrize("name", [wait.LAST_START, wait.LAST_EXIT])
def test_a_record_that_cannot_be_read_is_none(folder: Folder, name: str) -> None:
    folder.started(LONG_S, LONG_S)
    folder.ended(budgets.RETRY_FIRST_S)
    (folder.place / name).write_bytes(b"\xff\0half")
    assert folder.run() == 0
    assert folder.err == ""


def test_what_cannot_be_recorded_keeps_nothing_from_starting(folder: Folder) -> None:
    (folder.place / f"{wait.LAST_START}.new").mkdir()
    assert folder.run() == 0
    assert folder.out == "started\n"
    assert "the working directory can't be written (Is a directory)" in folder.err


def test_a_wait_leaves_a_record_of_who_waits_and_until_when(folder: Folder) -> None:
    folder.loop()
    process = folder.waiting()
    record = read_waiting((folder.place / wait.WAITING).read_text())
    assert record is not None
    assert record.pid == process.pid
    assert uptime() + LONG_S - scaled(10.0) < record.until <= uptime() + LONG_S


def test_one_that_is_killed_leaves_the_pause_to_the_next(folder: Folder) -> None:
    folder.loop()
    before = (folder.place / wait.LAST_EXIT).read_text()
    folder.waiting().kill()
    assert folder.end() == -signal.SIGKILL
    assert (folder.place / wait.LAST_EXIT).read_text() == before


# -- what ends a wait ------------------------------------------------------------------------------


def write_over(config: Path) -> None:
    config.write_text("[daemon]\n# mended\n")


def rename_over(config: Path) -> None:
    fresh = config.with_suffix(".new")
    fresh.write_text("[daemon]\n")
    fresh.rename(config)


def delete(config: Path) -> None:
    config.unlink()


def forbid(config: Path) -> None:
    config.chmod(0o600)


@pytest.mark.parametrize("change", [write_over, rename_over, delete, forbid])
def test_a_change_of_the_configuration_ends_the_wait(
    folder: Folder, change: Callable[[Path], None]
) -> None:
    folder.loop()
    folder.waiting()
    change(folder.config)
    assert folder.end() == 0
    assert folder.out == "started\n"
    assert folder.err.endswith(f"netclawd-wait: {folder.config} has changed: starting.\n")
    # So the next pause is the first one again.
    assert folder.record.delay_s == 0.0
    assert folder.record.seen == wait._look(str(folder.config))


def test_a_configuration_that_appears_ends_the_wait(folder: Folder) -> None:
    folder.config.unlink()
    folder.loop()
    folder.waiting()
    folder.config.write_text("")
    assert folder.end() == 0


def test_a_swap_of_the_links_of_a_configmap_ends_the_wait(folder: Folder) -> None:
    folder.config.unlink()
    for name in ("..1", "..2"):
        (folder.home / name).mkdir()
        (folder.home / name / "netclaw.toml").write_text("[daemon]\n")
    (folder.home / "..data").symlink_to("..1")
    folder.config.symlink_to("..data/netclaw.toml")
    folder.loop()
    folder.waiting()
    (folder.home / "..data_tmp").symlink_to("..2")
    (folder.home / "..data_tmp").rename(folder.home / "..data")
    assert folder.end() == 0
    assert folder.out == "started\n"


def test_a_named_configuration_is_looked_at_instead(folder: Folder, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    folder.loop()
    folder.spawn(options=("--config", str(other)))
    wait_for(lambda: str(other) in folder.err, 10.0, lambda: f"a wait: {folder.err}")
    other.write_text("")
    assert folder.end() == 0


def test_a_file_that_is_being_written_is_waited_for(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(["empty", "half", "whole", "whole", "later"])
    monkeypatch.setattr(wait, "_look", lambda _: next(looks))
    assert wait._sit_out(Exit(78, 0, uptime()), LONG_S, "netclaw.toml", "old") == (True, "whole")
    assert next(looks) == "later"


def test_a_change_at_the_very_end_of_the_wait_counts(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_look", lambda _: "new")
    assert wait._sit_out(Exit(78, 0, uptime()), 0.1, "netclaw.toml", "old") == (True, "new")


def test_a_hup_starts_at_once(folder: Folder) -> None:
    folder.loop()
    process = folder.waiting()
    process.send_signal(signal.SIGHUP)
    assert folder.end() == 0
    assert folder.out == "started\n"
    assert folder.err.endswith("netclawd-wait: asked by a HUP: starting.\n")
    assert folder.record.delay_s == 0.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("code", "by", "status"), [(78, 0, 78), (0, 0, 0), (256, 9, 137)])
def test_a_stop_ends_it_with_the_last_code_and_starts_nothing(
    folder: Folder, number: signal.Signals, code: int, by: int, status: int
) -> None:
    folder.loop()
    folder.ended(0.0, code=code, number=by)
    process = folder.waiting()
    begun = time.monotonic()
    process.send_signal(number)
    assert folder.end() == status
    assert time.monotonic() - begun < scaled(5.0)
    assert folder.out == ""
    # The start that follows is asked for by a person.
    assert not folder.has(wait.LAST_EXIT)
    assert not folder.has(wait.LAST_START)


# -- what it hands on ------------------------------------------------------------------------------


def test_signals_stay_blocked_until_the_daemon_lets_them_in(folder: Folder) -> None:
    assert folder.run("/bin/grep", "SigBlk", "/proc/self/status") == 0
    mask = int(folder.out.split()[1], 16)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        assert mask & 1 << (number - 1)


def test_the_notification_descriptor_is_handed_on(folder: Folder) -> None:
    reader, writer = os.pipe()
    process = subprocess.run(
        [*WAIT, sys.executable, "-c", f"import os; os.write({writer}, b'ready')"],
        cwd=folder.place,
        pass_fds=[writer],
        timeout=scaled(10.0),
        check=False,
    )
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        assert (process.returncode, pipe.read()) == (0, "ready")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("/no/such/program",), 127, "/no/such/program can't be started: No such file"),
        (("/etc",), 126, "/etc can't be started: Permission denied"),
        (("--lisen",), 2, "--lisen is no option"),
        (("--config",), 2, "--config is no option, or lacks its value"),
        (("--",), 2, "it is not said which program to start"),
    ],
)
def test_what_cannot_be_started_is_said(
    folder: Folder, command: tuple[str, ...], code: int, words: str
) -> None:
    assert folder.run(*command) == code
    assert folder.err.startswith(f"netclawd-wait: {words}")


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_it_says_what_it_is(folder: Folder, option: str) -> None:
    assert folder.run(option) == 0
    assert "netclawd-wait" in folder.out
