"""``netclaw init`` where no daemon runs: it is started, fails to start, aborts, or serves something else."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from netclawd.cli import bring_up
from netclawd.cli.demo_story import end_child
from netclawd.cli.wiring import replace_settings
from tests.cli.conftest import CommandLine
from tests.process.harness import free_port
from tests.waiting import wait_for

INIT = ("init", "--non-interactive")


def settled(home: Path, *lines: str) -> Sequence[str]:
    """Write a file for a daemon on a port of its own; return the options that keep it."""
    port = free_port()
    (home / "netclaw.toml").write_text(
        "\n".join(["[daemon]", f'listen = ["127.0.0.1:{port}"]', *lines, ""])
    )
    return (*INIT, "--drain-timeout", "5")


def test_a_start_that_fails_is_told_in_the_daemons_words_and_a_second_try_works(
    run: CommandLine, home: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run(*INIT, "--listen", f"127.0.0.1:{port}")
        assert result.exit_code == 75
        assert f"The address 127.0.0.1:{port}" in result.stderr
        assert "has the change all the same" in result.stderr
    found = run.json(*INIT)
    try:
        assert (found["written"], found["outcome"], found["generation"]) == (False, "ready", 1)
    finally:
        end_child(found["pid"])


def test_a_start_that_aborts_is_told_in_the_daemons_words(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home / "key"
    key.write_text("sk-1234")
    key.chmod(0o600)
    words = settled(home, "[providers.demo]", 'kind = "demo"', f'api_key = "file:{key}"')

    def write(*arguments: Any) -> None:
        key.unlink()  # after it was judged
        replace_settings(*arguments)

    monkeypatch.setattr(bring_up, "replace_settings", write)
    result = run(*words)
    assert result.exit_code == 78
    assert "Daemon startup aborted: providers.demo.api_key" in result.stderr
    told = json.loads(run(*words, "--json").stdout)
    assert told["error"]["slug"] == "config-meaning", (
        "by now it is known before anything is written"
    )


def test_a_daemon_that_starts_with_something_else_is_no_success(
    run: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, and then started with a file that is bad: it serves the last good one."""
    key = home / "key"
    key.write_text("sk-1234")
    key.chmod(0o600)
    words = settled(home)
    found = run.json(*words)
    wait_for((home / "state" / "last-good.toml").exists, 10.0, "what serves to be remembered")
    os.kill(found["pid"], signal.SIGKILL)
    os.waitpid(found["pid"], 0)
    with (home / "netclaw.toml").open("a") as file:
        file.write(f'[providers.demo]\nkind = "demo"\napi_key = "file:{key}"\n')

    def write(*arguments: Any) -> None:
        key.unlink()
        replace_settings(*arguments)

    monkeypatch.setattr(bring_up, "replace_settings", write)
    result = run(*INIT, "--drain-timeout", "6")
    pid = run.json("status")["pid"]
    try:
        assert result.exit_code == 1
        assert "the daemon runs, but not with this. providers.demo.api_key" in result.stderr
    finally:
        end_child(pid)
