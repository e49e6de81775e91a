"""Standard streams that are closed, or take nothing: an error in words."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.cli.terminal import NETCLAW


def shell(words: str) -> subprocess.CompletedProcess[str]:
    """Run ``netclaw`` with these words and redirections."""
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(NETCLAW)} {words}"
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("init <&-", 2, "Standard input is no terminal"),
        ("send - <&-", 1, "The message is empty."),
        ("chat <&-", 1, "The message is empty."),
    ],
)
def test_nothing_can_be_read_where_standard_input_is_closed(
    home: Path, words: str, code: int, told: str
) -> None:
    ended = shell(words)
    assert ended.returncode == code, ended
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
@pytest.mark.parametrize("words", ["sessions --help", "completion bash"])
def test_what_cannot_be_written_is_an_error_in_words(home: Path, words: str, where: str) -> None:
    ended = shell(f"{words} {where}")
    assert ended.returncode == 1, ended
    assert "Standard output can't be written" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_standard_error_closed_the_answer_is_as_ever(home: Path) -> None:
    ended = shell("completion bash 2>&-")
    assert ended.returncode == 0, ended
    assert "netclaw" in ended.stdout


def test_a_message_that_no_client_could_send_is_refused_before_it_is_sent(
    run: CommandLine,
) -> None:
    ended = run("chat", stdin=b"x" * ((1 << 20) + 1))
    assert ended.exit_code == 1
    assert "The message has 1048577 bytes, more than 1048576." in ended.stderr
