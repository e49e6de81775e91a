"""Log lines that can't be forged, hold no secret, and whose file is rotated."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netclawd.adapters.log import KEPT, OneLine, Send, rotate, set_up_logging
from netclawd.core.redact import Redactor
from tests.waiting import scaled

SECRET = "hunter2-and-more"
REDACTOR = Redactor([SECRET])


def formatted(message: str, *arguments: object, error: BaseException | None = None) -> str:
    trace = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("netclawd", logging.INFO, "x.py", 1, message, arguments, trace)
    return OneLine(REDACTOR.text, timed=False).format(record)


def raised(message: str) -> BaseException:
    try:
        raise RuntimeError(message)
    except RuntimeError as error:
        return error


def test_a_line_has_level_logger_and_text() -> None:
    assert formatted("phase %s, generation %d", "ready", 7) == (
        "INFO netclawd: phase ready, generation 7"
    )


def test_a_time_is_added_where_nobody_else_does() -> None:
    record = logging.LogRecord("netclawd", logging.INFO, "x.py", 1, "hello", (), None)
    line = OneLine(REDACTOR.text, timed=True).format(record)
    assert line.endswith(" INFO netclawd: hello")
    assert line[:4].isdigit()


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_text_cannot_begin_a_line_of_its_own(separator: str) -> None:
    line = formatted("event ignored: %s", f"x{separator}CRITICAL netclawd: forged")
    assert len(line.splitlines()) == 1
    assert line.startswith("INFO netclawd: event ignored: x\\")


def test_control_characters_are_escaped() -> None:
    assert formatted("%s", "\x1b[31mred\x00\x7f") == "INFO netclawd: \\x1b[31mred\\x00\\x7f"


def test_a_line_is_bounded() -> None:
    line = formatted("%s", "ä" * 100_000)
    assert line.endswith("…")
    assert len(line.encode()) < 2100


def test_secrets_are_masked_in_text_and_traceback() -> None:
    text = formatted("key %s", SECRET, error=raised(f"refused {SECRET}"))
    assert SECRET not in text
    assert text.count("[redacted]") == 2


def test_a_secret_is_masked_before_the_line_is_cut() -> None:
    line = formatted("%s", "x" * 1990 + SECRET)
    assert "hunter2" not in line


def test_a_traceback_follows_on_indented_lines() -> None:
    text = formatted("crash", error=raised("first\nCRITICAL netclawd: forged"))
    first, *rest = text.splitlines()
    assert first == "INFO netclawd: crash"
    assert len(rest) >= 4
    assert all(line.startswith("  ") for line in rest)
    assert "RuntimeError: first" in text


def test_a_line_shows_whose_it_is_at_its_end() -> None:
    record = logging.LogRecord("netclawd", logging.INFO, "x.py", 1, "parked", (), None)
    vars(record).update(SESSION_ID="s-1", TURN_ID="t-2\nforged", GENERATION="7", REASON="request")
    line = OneLine(REDACTOR.text, timed=False).format(record)
    assert line == "INFO netclawd: parked session=s-1 turn=t-2\\nforged"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def no_journal() -> Send:
    raise AssertionError("nobody asked for the journal")


def test_there_is_one_handler_however_often_it_is_set_up(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        set_up_logging(REDACTOR.text, None, {}, no_journal)
    logging.getLogger("netclawd.x").info("key %s", SECRET)
    logging.getLogger("netclawd.x").debug("not shown")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.endswith(" INFO netclawd.x: key [redacted]\n")


# -- rotation ------------------------------------------------------------------------------------

#: Logs lines of 100 bytes until ``count`` are out; what is written to standard output goes along.
PROGRAM = """
import logging, os, sys
from netclawd.adapters import log
log.LIMIT_BYTES = 1000
log.set_up_logging(lambda text: text, sys.argv[1], {}, lambda: None)
for number in range(int(sys.argv[2])):
    logging.getLogger("n").info("%05d %s", number, "x" * 50)
os.write(1, b"standard output\\n")
os.write(2, b"standard error\\n")
"""


def log_lines(path: Path, count: int) -> None:
    with open(path, "ab") as file:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path), str(count)],
            stdout=file,
            stderr=file,
            check=True,
            timeout=scaled(20),
        )


def numbers(path: Path) -> list[int]:
    rows = [line.split(" x")[0] for line in path.read_text().splitlines()]
    return [int(row.split()[-1]) for row in rows if row.split()[-1].isdigit()]


def test_a_file_that_has_grown_is_rotated_and_three_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "netclawd.log"
    log_lines(path, 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "netclawd.log",
        "netclawd.log.1",
        "netclawd.log.2",
        "netclawd.log.3",
    ]
    old = [path.with_name(f"netclawd.log.{n}") for n in range(KEPT, 0, -1)]
    for file in old:
        assert 1000 <= file.stat().st_size < 1200
    newest = [number for file in (*old, path) for number in numbers(file)]
    assert newest == list(range(newest[0], 100)), "no line is lost, none is twice"
    # What writes past the logger goes on in the new file too.
    assert path.read_text().endswith("standard output\nstandard error\n")
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_below_the_limit_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "netclawd.log"
    log_lines(path, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["netclawd.log"]
    assert numbers(path) == [0, 1, 2]


def test_rotating_with_gaps_or_without_a_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    rotate(str(path))
    assert os.listdir(tmp_path) == []
    path.write_text("new")
    (tmp_path / "a.log.2").write_text("old")
    rotate(str(path))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "a.log.1": "new",
        "a.log.3": "old",
    }
