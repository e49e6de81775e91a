"""``netclaw init --non-interactive``: what it writes, and the daemon that it leaves behind."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netclawd.cli.demo_story import end_child
from tests.cli.conftest import CommandLine
from tests.process.harness import free_port

FILE = """\
# Ours.
[drain]
timeout_s = 20  # seconds

[sessions]
workers = 3
"""


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "netclaw.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def init(run: CommandLine) -> Any:
    return lambda *words: run("init", "--non-interactive", *words)


@pytest.fixture
def ends(home: Path) -> Iterator[None]:
    """End the daemon that the test has started; it is this process's child."""
    yield
    with contextlib.suppress(OSError, ValueError):
        end_child(int((home / "run" / "netclawd.pid").read_text().split()[0]))


# -- what is written -----------------------------------------------------------------------------


def test_a_new_file_has_every_answer_that_matters(run: CommandLine, home: Path) -> None:
    found = run.json("init", "--non-interactive", "--no-start")
    assert (found["written"], found["outcome"], found["daemon"]) == (True, "not-running", False)
    text = (home / "netclaw.toml").read_text()
    assert text.startswith("# The configuration of netclawd")
    assert tomllib.loads(text) == {
        "agent": {"provider": "demo"},
        "daemon": {"exposure": "local", "listen": ["127.0.0.1:5199"]},
        "drain": {"new_work": "defer", "timeout_s": 30},
    }
    again = run.json("init", "--non-interactive", "--no-start")
    assert (again["written"], again["outcome"]) == (False, "not-running")
    assert (home / "netclaw.toml").read_text() == text


def test_only_what_differs_is_written_and_comments_stay(init: Any, file: Path) -> None:
    result = init("--no-start", "--drain-timeout", "25", "--new-work", "defer")
    assert result.exit_code == 0, result.stderr
    assert file.read_text() == FILE.replace("timeout_s = 20 ", "timeout_s = 25 ")
    assert "  -timeout_s = 20  # seconds\n  +timeout_s = 25  # seconds\n" in result.stdout
    assert "\x1b" not in result.stdout, "colours are for terminals"


def test_what_no_option_says_stays_as_it_is_configured(init: Any, file: Path) -> None:
    inode = file.stat().st_ino
    result = init("--no-start")
    assert (result.exit_code, "nothing is written" in result.stdout) == (0, True)
    assert (file.read_text(), file.stat().st_ino) == (FILE, inode)


def test_a_daemon_that_does_not_run_is_started_with_the_answers(
    run: CommandLine, home: Path, ends: None
) -> None:
    port = free_port()
    found = run.json("init", "--non-interactive", "--listen", f"127.0.0.1:{port}")
    assert (found["outcome"], found["generation"]) == ("ready", 1)
    assert found["addresses"] == [f"127.0.0.1:{port}"]
    assert found["start"]["pid"] == found["pid"]
    again = run("init", "--non-interactive")
    assert (again.exit_code, "nothing is written" in again.stdout) == (0, True)
    assert run.json("status")["generation"] == 1
